"""docs/accuracy.md is what bench/accuracy.py writes, as far as that can be told without the labelled mail."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.support.mail import dsn

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "accuracy.md").read_text("utf-8")


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_accuracy", ROOT / "bench" / "accuracy.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up by name
    spec.loader.exec_module(module)
    return module


def test_the_words_of_the_page_are_those_of_the_command(bench: ModuleType) -> None:
    for part in (bench.HEAD, bench.MODEL, bench.ROUNDS, bench.MISSED, bench.REPLIES):
        assert part in PAGE, "docs/accuracy.md is out of date: run bench/accuracy.py"


def test_the_page_tells_of_the_model_that_ships(bench: ModuleType) -> None:
    from mailback.bounce.model import load_shipped

    shipped = load_shipped()
    assert shipped is not None
    assert f"{shipped.accuracy:.1%} are told rightly" in PAGE


def test_the_page_tells_of_the_model_of_intents_that_ships(bench: ModuleType) -> None:
    from mailback.reply.model import load_serving

    shipped = load_serving()
    assert shipped is not None
    assert f"Learnt from {shipped.trained_on} replies." in PAGE
    lines = list(bench.replies_section())
    for name in ("held back", "everyday", "hard"):
        assert any(line.startswith(f"| {name} |") for line in lines)


def test_counts_what_is_right_and_lists_what_is_missed(bench: ModuleType, tmp_path: Path) -> None:
    words = "550 5.1.1 <{}@a.example>: Recipient address rejected: User unknown"
    for name in ("right", "wrong"):
        raw = dsn(f"{name}@a.example", message_id=f"<{name}@s.example>", status="5.1.1", diagnostic=words.format(name))
        (tmp_path / f"{name}.eml").write_bytes(raw)

    def label(name: str, **changes: object) -> dict[str, object]:
        bounce = {"recipient": f"{name}@a.example", "status": "5.1.1", "types": ["hard_bounce"],
                  "subcategories": ["user_unknown"], "permanent": True}  # fmt: skip
        return {"file": f"{name}.eml", "kind": "bounce", "bounces": [bounce | changes]}

    changed = label("wrong", types=["soft_bounce"], subcategories=["mailbox_full"], permanent=False)
    labels = [json.loads(json.dumps(each)) for each in (label("right"), changed)]
    found = bench.score(labels, tmp_path)
    assert found.share("kind") == found.share("recipients") == found.share("status") == 1.0
    assert found.share("type") == found.share("subcategory") == found.share("never mail again: precision") == 0.5
    assert found.confusion == {("hard_bounce", "hard_bounce"): 1, ("soft_bounce", "hard_bounce"): 1}
    assert {(file, figure) for file, figure, _, _ in found.misses} == {
        ("wrong.eml", "type"), ("wrong.eml", "subcategory"), ("wrong.eml", "never mail again: precision"),
    }  # fmt: skip
