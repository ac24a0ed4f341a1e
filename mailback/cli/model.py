"""`mailback model`: the learnt classifiers of diagnostics and of replies: train, evaluate, list, promote, compare.

Models that are trained here lie below the state folder and serve nobody until they are promoted; the daemon takes a
promoted model up on reload. A model below the gate is written, so that it can be looked at, and never serves. Emits no
log events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mailback.cli.errors import CommandError
from mailback.cli.options import config_option, json_option, load_settings, open_store
from mailback.cli.out import Cell, Column, json_line, safe, say, table

if TYPE_CHECKING:
    from mailback.bounce.model import Model
    from mailback.learn.evaluation import Bin, Evaluation
    from mailback.learn.reply_samples import ReplySample
    from mailback.learn.samples import Sample
    from mailback.reply.model import Model as ReplyModel

SHIPPED = "shipped"
"""What the model that comes with Mailback is called on the command line."""

_NAME = r"[a-z0-9][a-z0-9._-]*"
_CAUSES = (
    Column("cause", wraps=False), Column("samples", right=True, wraps=False), Column("told", right=True, wraps=False),
    Column("precision", right=True, wraps=False), Column("recall", right=True, wraps=False),
)  # fmt: skip
_CALIBRATION = (
    Column("probability", wraps=False), Column("votes", right=True, wraps=False),
    Column("told", right=True, wraps=False), Column("right", right=True, wraps=False),
)  # fmt: skip
_INTENTS = (Column("intent", wraps=False), *_CAUSES[1:])
_LANGUAGES = (
    Column("language", wraps=False), Column("replies", right=True, wraps=False),
    Column("acceptable", right=True, wraps=False),
)  # fmt: skip
_MISREAD = (Column("intent", wraps=False), Column("read as", wraps=False), Column("language", wraps=False),
            Column("text"))  # fmt: skip
_MODELS = (
    Column("model", "cyan", wraps=False), Column("state", wraps=False), Column("accuracy", right=True, wraps=False),
    Column("trained on", right=True, wraps=False), Column("made (UTC)", wraps=False), Column("file"),
)  # fmt: skip
_MISSES = (Column("cause", wraps=False), Column("told as", wraps=False), Column("server", wraps=False), Column("text"))


@click.group()
def model() -> None:
    """The learnt classifiers: train, evaluate, list, promote, compare.

    That of diagnostics votes beside codes and wordings with the least weight, and decides alone only where these say
    nothing. With --replies, a command is about that of intents, which reads what people answer.
    """


def _seed_option(command: Any) -> Any:
    return click.option(
        "--seed", "seed", metavar="DIRECTORY", type=click.Path(path_type=Path, file_okay=False, exists=True),
        help="Folder of labelled diagnostics (seed.jsonl, held_back.jsonl), or of labelled replies (*.jsonl). "
             "Default: the ones that ship.",
    )(command)  # fmt: skip


def _replies_option(command: Any) -> Any:
    return click.option("--replies", is_flag=True, help="The model of intents instead of that of diagnostics.")(command)


def _runtime(*, replies: bool) -> Any:
    """The module of such models: both load, gate and place their files by the same names."""
    from mailback.bounce import model as diagnostics
    from mailback.reply import model as intents

    return intents if replies else diagnostics


@model.command()
@config_option
@json_option
@_seed_option
@_replies_option
@click.option("--name", metavar="NAME", help="What the model is called. Default: the day, as 2026-11-30.")
@click.option(
    "--seed-only",
    is_flag=True,
    help="Learn from the labelled diagnostics alone, not from stored events and corrections.",
)
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Write the model there instead of to the state folder.")  # fmt: skip
def train(
    *, config: Path | None, as_json: bool, seed: Path | None, replies: bool, name: str | None, seed_only: bool,
    output: Path | None,
) -> None:  # fmt: skip
    """Train a model from the labelled diagnostics that ship and from stored events.

    Of stored events those count whose cause code and wording tell alike and beyond doubt, and those that a person has
    corrected (`mailback review correct`), whose word outranks the rest about the same wording. With --replies the
    model learns from the labelled replies that ship and from the intents that people have corrected. The new model is a
    candidate: it serves after `mailback model promote`. Exit code 1 when it is below the gate and can therefore never
    serve. Needs scikit-learn: install the extra `learn`.
    """
    import re
    from datetime import UTC, datetime

    from mailback import linear
    from mailback.learn import training

    runtime = _runtime(replies=replies)
    name = datetime.now(UTC).date().isoformat() if name is None else name
    if not re.fullmatch(_NAME, name) or name in (SHIPPED, Path(linear.SERVING).stem):
        raise click.BadParameter(f"{name!r}: write lower-case letters, digits, '.', '_' and '-'", param_hint="--name")
    learn = _replies_document if replies else _diagnostics_document
    document = learn(config, seed, name, seed_only=seed_only)
    path = output or _directory(config, replies=replies) / f"{name}.json"
    training.write(document, path)
    serves = document["accuracy"] >= runtime.GATE
    if as_json:
        told = {key: document[key] for key in ("name", "accuracy", "held_back", "trained_on", "made")}
        json_line(told | {"file": str(path), "may_serve": serves})
    else:
        noun, option = ("replies", " --replies") if replies else ("diagnostics", "")
        say(
            f"{name}: learnt from {document['trained_on']} {noun}, tells {document['accuracy']:.1%} of "
            f"{document['held_back']} held back rightly; written to {safe(path)}"
        )
        say(f"to let it vote: mailback model promote {name}{option}" if serves else _below_gate(runtime.GATE, option))
    if not serves:
        raise click.exceptions.Exit(1)


def _diagnostics_document(config: Path | None, seed: Path | None, name: str, *, seed_only: bool) -> dict[str, Any]:
    from mailback.learn import samples, training
    from mailback.store.reading import ReviewFilter

    directory = seed or samples.seed_directory()
    learnt_from = _read(directory / samples.SEED)
    if not seed_only:
        with open_store(config) as store:
            learnt_from += list(samples.of_events(store.events()))
            corrections = samples.of_corrections(store.reviews(ReviewFilter(state="corrected")))
            learnt_from = samples.outranked(learnt_from, corrections)
    held_back = _read(directory / samples.HELD_BACK)
    return _trained(lambda: training.train(learnt_from, held_back, name=name), "labelled diagnostics of more servers")


def _replies_document(config: Path | None, seed: Path | None, name: str, *, seed_only: bool) -> dict[str, Any]:
    from mailback.learn import reply_samples, reply_training
    from mailback.store.reading import ReviewFilter

    every = _labelled_replies(seed)
    learnt_from = [sample for sample in every if not sample.held_back]
    if not seed_only:
        with open_store(config) as store:
            corrections = list(reply_samples.of_corrections(store.reviews(ReviewFilter(state="corrected"))))
        settled = {sample.text for sample in corrections}
        learnt_from = [sample for sample in learnt_from if sample.text not in settled] + corrections
    held_back = [sample for sample in every if sample.held_back]
    directory = seed or reply_samples.seed_directory()
    return _trained(
        lambda: reply_training.train(learnt_from, held_back, directory, name=name), "labelled replies of more families"
    )


def _trained(train: Callable[[], dict[str, Any]], wanted: str) -> dict[str, Any]:
    from mailback.learn import training

    try:
        return train()
    except training.NotInstalledError as error:
        raise CommandError(error.reason, error.advice) from error
    except ValueError as error:
        raise CommandError(f"nothing to learn from: {error}", f"add {wanted}") from error


def _below_gate(gate: float, option: str) -> str:
    return f"it is a candidate only: below {gate:.0%} it does not serve; `mailback model evaluate{option}` shows where"


@model.command()
@config_option
@json_option
@_seed_option
@_replies_option
@click.argument("which", metavar="[MODEL]", required=False)
@click.option("--misses", is_flag=True, help="List everything that is told wrongly.")
def evaluate(
    *, config: Path | None, as_json: bool, seed: Path | None, replies: bool, which: str | None, misses: bool
) -> None:
    """Measure a model on the diagnostics held back: precision and recall by cause, calibration, time of a vote.

    With --replies on the replies held back: how many are read acceptably, precision and recall by intent, shares by
    language, calibration.

    MODEL is a name that `mailback model list` shows, or a file; by default the one that serves.
    """
    from mailback.learn.evaluation import evaluate as measure

    chosen = _model(config, which, replies=replies)
    if replies:
        _evaluate_replies(chosen, seed, as_json=as_json, misses=misses)
        return
    found = measure(chosen, _held_back(seed))
    if as_json:
        json_line(_to_dict(chosen, found))
        return
    _show(chosen, found)
    if misses:
        rows = [[s.target.value, Cell(said.value, "red"), s.family, s.text] for s, said in found.misses]
        table(_MISSES, rows, title="told wrongly", empty="nothing was told wrongly")


def _show(chosen: Model, found: Evaluation) -> None:
    say(f"{safe(chosen.name)}: {found.right} of {found.samples} held back are told rightly ({found.accuracy:.1%})")
    if found.voted:
        share = found.right_of_voted / found.voted
        say(f"it is sure enough to vote on {found.voted} of them, and {share:.1%} of these votes are right")
    say(f"a vote on 300 bytes takes {found.vote_us:.0f} µs")
    rows = [[s.cause.value, s.there, s.told, _share(s.precision), _share(s.recall)] for s in found.causes]
    table(_CAUSES, rows, title="by cause")
    _show_calibration(found.calibration)


def _show_calibration(calibration: list[Bin]) -> None:
    from mailback.learn.evaluation import expected_error

    bins = [[f"{b.least:.1f} to {b.least + 0.1:.1f}", b.count, f"{b.told:.2f}", f"{b.right:.2f}"] for b in calibration]
    table(_CALIBRATION, bins, title="what was told, and what share of it was right")
    say(f"expected calibration error: {expected_error(calibration):.3f}")


def _evaluate_replies(chosen: ReplyModel, seed: Path | None, *, as_json: bool, misses: bool) -> None:
    from mailback.learn import reply_evaluation

    found = reply_evaluation.evaluate(chosen, [sample for sample in _labelled_replies(seed) if sample.held_back])
    if as_json:
        json_line(reply_evaluation.to_dict(chosen, found))
        return
    say(
        f"{safe(chosen.name)}: {found.acceptable} of {found.samples} held back are read acceptably "
        f"({found.accuracy:.1%}), {found.strict} as their label says; macro F1 {found.macro_f1:.2f}"
    )
    say(f"told at {reply_evaluation.SURE} or more: {found.sure}, of which {found.sure_wrong} are wrong")
    say(f"reading one takes {found.read_us:.0f} µs")
    rows = [[s.cause.value, s.there, s.told, _share(s.precision), _share(s.recall)] for s in found.intents]
    table(_INTENTS, rows, title="by intent")
    table(_LANGUAGES, [[told.language, told.there, _share(told.share)] for told in found.languages])
    _show_calibration(found.calibration)
    if misses:
        misread = [[s.says.value, Cell(said.value, "red"), s.language, s.text] for s, said in found.misses]
        table(_MISREAD, misread, title="read wrongly", empty="nothing was read wrongly")


def _share(share: float | None) -> str | None:
    return None if share is None else f"{share:.1%}"


def _to_dict(chosen: Model, found: Evaluation) -> dict[str, object]:
    return {
        "model": chosen.name,
        "accuracy": round(found.accuracy, 4),
        "samples": found.samples,
        "voted": found.voted,
        "right_of_voted": found.right_of_voted,
        "vote_us": round(found.vote_us, 1),
        "causes": [asdict(s) | {"precision": s.precision, "recall": s.recall} for s in found.causes],
        "calibration": [asdict(b) for b in found.calibration],
        "misses": [{"text": s.text, "says": s.target, "told": said, "family": s.family} for s, said in found.misses],
    }


@model.command("list")
@config_option
@json_option
@_replies_option
def list_models(*, config: Path | None, as_json: bool, replies: bool) -> None:
    """List the model that ships and those trained here, and tell which one serves."""
    rows = list(_listed(config, replies=replies))
    if as_json:
        for row in rows:
            json_line(row)
    else:
        names = ("name", "state", "accuracy", "trained_on", "made", "file")
        table(_MODELS, [[row[name] for name in names] for row in rows], empty="there is no model")


def states(config: Path | None) -> Iterator[dict[str, object]]:
    """Of both sorts of models the one that serves, or what keeps it from serving."""
    for about, replies in (("failures", False), ("replies", True)):
        rows = list(_listed(config, replies=replies))
        serving = next((row for row in rows if row["state"] == "serving"), None) or next(iter(rows), None)
        if serving is not None:
            yield {"of": about} | {name: serving[name] for name in ("name", "state", "accuracy", "trained_on", "made")}


def _listed(config: Path | None, *, replies: bool) -> Iterator[dict[str, object]]:
    from mailback import linear

    runtime = _runtime(replies=replies)
    directory = _directory(config, replies=replies)
    promoted = directory / linear.SERVING
    serving = promoted.read_bytes() if promoted.is_file() else None
    if runtime.shipped_path().is_file():
        yield _row(runtime, SHIPPED, runtime.shipped_path(), serves=serving is None)
    trained = [path for path in sorted(directory.glob("*.json")) if path != promoted]
    copied = [path for path in trained if path.read_bytes() == serving]
    for path in trained:
        yield _row(runtime, path.stem, path, serves=path in copied)
    if serving is not None and not copied:  # the file that was promoted is gone, or was trained anew
        yield _row(runtime, promoted.stem, promoted, serves=True)


def _row(runtime: Any, name: str, path: Path, *, serves: bool) -> dict[str, object]:
    return {"name": name, "file": str(path), **_state(runtime, path, serves=serves)}


def _state(runtime: Any, path: Path, *, serves: bool) -> dict[str, object]:
    from mailback.linear import ModelError

    try:
        found = runtime.load(path, gate=0)
    except ModelError:
        return {"state": "damaged", "accuracy": None, "trained_on": None, "made": None}
    state = "below the gate" if found.accuracy < runtime.GATE else "serving" if serves else "candidate"
    return {"state": state, "accuracy": f"{found.accuracy:.1%}", "trained_on": found.trained_on, "made": found.made}


@model.command()
@config_option
@_replies_option
@click.argument("name", metavar="MODEL")
def promote(*, config: Path | None, replies: bool, name: str) -> None:
    """Let a model vote: one trained here by its name, or `shipped` for the one that comes with Mailback.

    A running server takes it up on reload (SIGHUP).
    """
    from mailback import linear

    runtime = _runtime(replies=replies)
    directory = _directory(config, replies=replies)
    serving = directory / linear.SERVING
    if name == SHIPPED:
        serving.unlink(missing_ok=True)
    else:
        path = directory / f"{name}.json"
        if "/" in name or not path.is_file():
            raise CommandError(f"no model {name!r} was trained here", "see: mailback model list", exit_code=2)
        runtime.load(path)  # the gate
        temporary = serving.with_suffix(".new")
        temporary.write_bytes(path.read_bytes())
        temporary.replace(serving)
    say(f"{safe(name)} serves from the next start or reload on")


@model.command()
@config_option
@json_option
@_seed_option
@_replies_option
@click.argument("one")
@click.argument("other")
def compare(*, config: Path | None, as_json: bool, seed: Path | None, replies: bool, one: str, other: str) -> None:
    """Measure two models on the same held-back diagnostics or replies, and tell how many each alone gets right.

    ONE and OTHER are names that `mailback model list` shows, or files.
    """
    from mailback.learn import reply_evaluation
    from mailback.learn.evaluation import evaluate as measure

    chosen = [_model(config, which, replies=replies) for which in (one, other)]
    held_back: list[Any]
    found: list[Any]
    if replies:
        held_back = [sample for sample in _labelled_replies(seed) if sample.held_back]
        found = [reply_evaluation.evaluate(each, held_back) for each in chosen]
    else:
        held_back = _held_back(seed)
        found = [measure(each, held_back) for each in chosen]
    missed = [{sample.text for sample, _ in each.misses} for each in found]
    only_one, only_other = len(missed[1] - missed[0]), len(missed[0] - missed[1])
    if as_json:
        told = {"held_back": len(held_back), "only_one": only_one, "only_other": only_other}
        json_line(told | {"one": round(found[0].accuracy, 4), "other": round(found[1].accuracy, 4)})
        return
    for which, each, alone in ((one, found[0], only_one), (other, found[1], only_other)):
        say(f"{safe(which)}: {each.accuracy:.1%} of {len(held_back)} rightly, {alone} of them it alone")


def _directory(config: Path | None, *, replies: bool) -> Path:
    found: Path = _runtime(replies=replies).directory_of(Path(load_settings(config).service.state_directory))
    return found


def _path(config: Path | None, which: str, *, replies: bool) -> Path:
    """The file of a model that is named."""
    if which == SHIPPED:
        shipped: Path = _runtime(replies=replies).shipped_path()
        return shipped
    trained = _directory(config, replies=replies) / f"{which}.json"
    path = trained if "/" not in which and trained.is_file() else Path(which)
    if not path.is_file():
        raise CommandError(f"there is no model {which!r}", "see: mailback model list", exit_code=2)
    return path


def _model(config: Path | None, which: str | None, *, replies: bool) -> Any:
    """A model for measuring: below the gate too."""
    runtime = _runtime(replies=replies)
    if which is not None:
        return runtime.load(_path(config, which, replies=replies), gate=0)
    serving = runtime.load_serving(Path(load_settings(config).service.state_directory))
    if serving is None:
        raise CommandError("no model serves", "train one: mailback model train")
    return serving


def _labelled_replies(seed: Path | None) -> list[ReplySample]:
    from mailback.learn import reply_samples

    directory = seed or reply_samples.seed_directory()
    if not (found := reply_samples.read(directory)):
        raise CommandError(f"{directory}: there are no labelled replies", "name their folder with --seed")
    return found


def _held_back(seed: Path | None) -> list[Sample]:
    from mailback.learn import samples

    return _read((seed or samples.seed_directory()) / samples.HELD_BACK)


def _read(path: Path) -> list[Sample]:
    from mailback.learn import samples

    if not path.is_file():
        raise CommandError(f"{path}: there are no labelled diagnostics", "name their folder with --seed")
    return samples.read(path)
