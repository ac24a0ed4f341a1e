"""`mailback model`: the learnt classifier of diagnostics: train, evaluate, list, promote, compare.

Models that are trained here lie below the state folder and serve nobody until they are promoted; the daemon takes a
promoted model up on reload. A model below the gate is written, so that it can be looked at, and never serves. Emits no
log events.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mailback.cli.errors import CommandError
from mailback.cli.options import config_option, json_option, load_settings, open_store
from mailback.cli.out import Cell, Column, json_line, safe, say, table

if TYPE_CHECKING:
    from mailback.bounce.model import Model
    from mailback.learn.evaluation import Evaluation
    from mailback.learn.samples import Sample

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
_MODELS = (
    Column("model", "cyan", wraps=False), Column("state", wraps=False), Column("accuracy", right=True, wraps=False),
    Column("trained on", right=True, wraps=False), Column("made (UTC)", wraps=False), Column("file"),
)  # fmt: skip
_MISSES = (Column("cause", wraps=False), Column("told as", wraps=False), Column("server", wraps=False), Column("text"))


@click.group()
def model() -> None:
    """The learnt classifier of diagnostics: train, evaluate, list, promote, compare.

    It votes beside codes and wordings with the least weight, and decides alone only where these say nothing.
    """


def _seed_option(command: Any) -> Any:
    return click.option(
        "--seed", "seed", metavar="DIRECTORY", type=click.Path(path_type=Path, file_okay=False, exists=True),
        help="Folder of labelled diagnostics (seed.jsonl, held_back.jsonl). Default: the ones that ship.",
    )(command)  # fmt: skip


@model.command()
@config_option
@json_option
@_seed_option
@click.option("--name", metavar="NAME", help="What the model is called. Default: the day, as 2026-11-30.")
@click.option(
    "--seed-only",
    is_flag=True,
    help="Learn from the labelled diagnostics alone, not from stored events and corrections.",
)
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Write the model there instead of to the state folder.")  # fmt: skip
def train(
    *, config: Path | None, as_json: bool, seed: Path | None, name: str | None, seed_only: bool, output: Path | None
) -> None:
    """Train a model from the labelled diagnostics that ship and from stored events.

    Of stored events those count whose cause code and wording tell alike and beyond doubt, and those that a person has
    corrected (`mailback review correct`), whose word outranks the rest about the same wording. The new model is a
    candidate: it serves after `mailback model promote`. Exit code 1 when it is below the gate and can therefore never
    serve. Needs scikit-learn: install the extra `learn`.
    """
    import re
    from datetime import UTC, datetime

    from mailback.bounce import model as runtime
    from mailback.learn import samples, training
    from mailback.store.reading import ReviewFilter

    name = datetime.now(UTC).date().isoformat() if name is None else name
    if not re.fullmatch(_NAME, name) or name in (SHIPPED, Path(runtime.SERVING).stem):
        raise click.BadParameter(f"{name!r}: write lower-case letters, digits, '.', '_' and '-'", param_hint="--name")
    directory = seed or samples.seed_directory()
    learnt_from = _read(directory / samples.SEED)
    if not seed_only:
        with open_store(config) as store:
            learnt_from += list(samples.of_events(store.events()))
            corrections = samples.of_corrections(store.reviews(ReviewFilter(state="corrected")))
            learnt_from = samples.outranked(learnt_from, corrections)
    document = _trained(learnt_from, _read(directory / samples.HELD_BACK), name)
    path = output or _directory(config) / f"{name}.json"
    training.write(document, path)
    serves = document["accuracy"] >= runtime.GATE
    if as_json:
        told = {key: document[key] for key in ("name", "accuracy", "held_back", "trained_on", "made")}
        json_line(told | {"file": str(path), "may_serve": serves})
    else:
        say(
            f"{name}: learnt from {document['trained_on']} diagnostics, tells {document['accuracy']:.1%} of "
            f"{document['held_back']} held back rightly; written to {safe(path)}"
        )
        say(f"to let it vote: mailback model promote {name}" if serves else _below_gate())
    if not serves:
        raise click.exceptions.Exit(1)


def _trained(learnt_from: list[Sample], held_back: list[Sample], name: str) -> dict[str, Any]:
    from mailback.learn import training

    try:
        return training.train(learnt_from, held_back, name=name)
    except training.NotInstalledError as error:
        raise CommandError(error.reason, error.advice) from error
    except ValueError as error:
        raise CommandError(f"nothing to learn from: {error}", "add labelled diagnostics of more servers") from error


def _below_gate() -> str:
    from mailback.bounce.model import GATE

    return f"it is a candidate only: below {GATE:.0%} it does not serve; `mailback model evaluate` shows where it errs"


@model.command()
@config_option
@json_option
@_seed_option
@click.argument("which", metavar="[MODEL]", required=False)
@click.option("--misses", is_flag=True, help="List every diagnostic that is told wrongly.")
def evaluate(*, config: Path | None, as_json: bool, seed: Path | None, which: str | None, misses: bool) -> None:
    """Measure a model on the diagnostics held back: precision and recall by cause, calibration, time of a vote.

    MODEL is a name that `mailback model list` shows, or a file; by default the one that serves.
    """
    from mailback.learn.evaluation import evaluate as measure

    chosen = _model(config, which)
    found = measure(chosen, _held_back(seed))
    if as_json:
        json_line(_to_dict(chosen, found))
        return
    _show(chosen, found)
    if misses:
        rows = [[s.target.value, Cell(said.value, "red"), s.family, s.text] for s, said in found.misses]
        table(_MISSES, rows, title="told wrongly", empty="nothing was told wrongly")


def _show(chosen: Model, found: Evaluation) -> None:
    from mailback.learn.evaluation import expected_error

    say(f"{safe(chosen.name)}: {found.right} of {found.samples} held back are told rightly ({found.accuracy:.1%})")
    if found.voted:
        share = found.right_of_voted / found.voted
        say(f"it is sure enough to vote on {found.voted} of them, and {share:.1%} of these votes are right")
    say(f"a vote on 300 bytes takes {found.vote_us:.0f} µs")
    rows = [[s.cause.value, s.there, s.told, _share(s.precision), _share(s.recall)] for s in found.causes]
    table(_CAUSES, rows, title="by cause")
    bins = [
        [f"{b.least:.1f} to {b.least + 0.1:.1f}", b.count, f"{b.told:.2f}", f"{b.right:.2f}"] for b in found.calibration
    ]
    table(_CALIBRATION, bins, title="what was told, and what share of it was right")
    say(f"expected calibration error: {expected_error(found.calibration):.3f}")


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
def list_models(*, config: Path | None, as_json: bool) -> None:
    """List the model that ships and those trained here, and tell which one serves."""
    rows = list(_listed(config))
    if as_json:
        for row in rows:
            json_line(row)
    else:
        names = ("name", "state", "accuracy", "trained_on", "made", "file")
        table(_MODELS, [[row[name] for name in names] for row in rows], empty="there is no model")


def _listed(config: Path | None) -> Iterator[dict[str, object]]:
    from mailback.bounce import model as runtime

    directory = _directory(config)
    promoted = directory / runtime.SERVING
    serving = promoted.read_bytes() if promoted.is_file() else None
    if runtime.shipped_path().is_file():
        yield _row(SHIPPED, runtime.shipped_path(), serves=serving is None)
    trained = [path for path in sorted(directory.glob("*.json")) if path != promoted]
    copied = [path for path in trained if path.read_bytes() == serving]
    for path in trained:
        yield _row(path.stem, path, serves=path in copied)
    if serving is not None and not copied:  # the file that was promoted is gone, or was trained anew
        yield _row(promoted.stem, promoted, serves=True)


def _row(name: str, path: Path, *, serves: bool) -> dict[str, object]:
    return {"name": name, "file": str(path), **_state(path, serves=serves)}


def _state(path: Path, *, serves: bool) -> dict[str, object]:
    from mailback.bounce.model import GATE, ModelError, load

    try:
        found = load(path, gate=0)
    except ModelError:
        return {"state": "damaged", "accuracy": None, "trained_on": None, "made": None}
    state = "below the gate" if found.accuracy < GATE else "serving" if serves else "candidate"
    return {"state": state, "accuracy": f"{found.accuracy:.1%}", "trained_on": found.trained_on, "made": found.made}


@model.command()
@config_option
@click.argument("name", metavar="MODEL")
def promote(*, config: Path | None, name: str) -> None:
    """Let a model vote: one trained here by its name, or `shipped` for the one that comes with Mailback.

    A running server takes it up on reload (SIGHUP).
    """
    from mailback.bounce import model as runtime

    serving = _directory(config) / runtime.SERVING
    if name == SHIPPED:
        serving.unlink(missing_ok=True)
    else:
        path = _directory(config) / f"{name}.json"
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
@click.argument("one")
@click.argument("other")
def compare(*, config: Path | None, as_json: bool, seed: Path | None, one: str, other: str) -> None:
    """Measure two models on the same held-back diagnostics, and tell how many each alone gets right.

    ONE and OTHER are names that `mailback model list` shows, or files.
    """
    from mailback.learn.evaluation import evaluate as measure

    held_back = _held_back(seed)
    found = [measure(_model(config, which), held_back) for which in (one, other)]
    missed = [{sample.text for sample, _ in each.misses} for each in found]
    only_one, only_other = len(missed[1] - missed[0]), len(missed[0] - missed[1])
    if as_json:
        told = {"held_back": len(held_back), "only_one": only_one, "only_other": only_other}
        json_line(told | {"one": round(found[0].accuracy, 4), "other": round(found[1].accuracy, 4)})
        return
    for which, each, alone in ((one, found[0], only_one), (other, found[1], only_other)):
        say(f"{safe(which)}: {each.accuracy:.1%} of {len(held_back)} rightly, {alone} of them it alone")


def _directory(config: Path | None) -> Path:
    from mailback.bounce.model import directory_of

    return directory_of(Path(load_settings(config).service.state_directory))


def _path(config: Path | None, which: str) -> Path:
    """The file of a model that is named."""
    from mailback.bounce import model as runtime

    if which == SHIPPED:
        return runtime.shipped_path()
    trained = _directory(config) / f"{which}.json"
    path = trained if "/" not in which and trained.is_file() else Path(which)
    if not path.is_file():
        raise CommandError(f"there is no model {which!r}", "see: mailback model list", exit_code=2)
    return path


def _model(config: Path | None, which: str | None) -> Model:
    """A model for measuring: below the gate too."""
    from mailback.bounce import model as runtime

    if which is not None:
        return runtime.load(_path(config, which), gate=0)
    serving = runtime.load_serving(Path(load_settings(config).service.state_directory))
    if serving is None:
        raise CommandError("no model serves", "train one: mailback model train")
    return serving


def _held_back(seed: Path | None) -> list[Sample]:
    from mailback.learn import samples

    return _read((seed or samples.seed_directory()) / samples.HELD_BACK)


def _read(path: Path) -> list[Sample]:
    from mailback.learn import samples

    if not path.is_file():
        raise CommandError(f"{path}: there are no labelled diagnostics", "name their folder with --seed")
    return samples.read(path)
