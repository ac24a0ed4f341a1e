"""Patterns: both engines answer alike, none can be made to run long, the compiled cache is not trusted blindly."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from functools import lru_cache
from itertools import islice
from pathlib import Path

import pytest

from mailback.bounce import dialect, patterns, rules
from mailback.bounce.dialect import Boundary, Choice, DialectError, Literal, Node, OneOf, Repeat, Sequence
from mailback.bounce.patterns import PatternSet, prepare
from mailback.resources import rules_dir

needs_hyperscan = pytest.mark.skipif(patterns._load_hyperscan() is None, reason="hyperscan is not installed")


@lru_cache(maxsize=1)
def shipped() -> tuple[Node, ...]:
    """Every pattern of every rule and provider that ships."""
    loaded = rules.load([rules_dir()])
    of_rules = [node for rule in loaded.texts.values() for node in rule.patterns]
    return (*of_rules, *(node for provider in loaded.providers.values() for node in provider.marks))


def sample(node: Node, choose: random.Random) -> bytes:
    """A text that the node matches."""
    match node:
        case Literal(text):
            return text
        case OneOf(_, example):
            return example
        case Boundary():
            return b""
        case Sequence(items):
            return b"".join(sample(item, choose) for item in items)
        case Choice(options):
            return sample(choose.choice(options), choose)
        case Repeat(item, least, most):
            return b"".join(sample(item, choose) for _ in range(choose.choice((least, most, min(most, least + 1)))))


def texts(node: Node, choose: random.Random) -> list[bytes]:
    """Texts that match, between words and within one, and a near miss: a byte changed, the rest repeated."""
    good = sample(node, choose)
    at = choose.randrange(len(good))
    return [b"x " + good + b" y", good[:at] + b"#" + good[at + 1 :] + b"550" + good]


@needs_hyperscan
def test_engines_agree_on_texts_made_from_every_shipped_pattern() -> None:
    choose = random.Random(20)
    nodes = shipped()
    fast, plain = (
        PatternSet(nodes, engine="hyperscan", cache=patterns.cache_directory()),
        PatternSet(nodes, engine="re"),
    )
    for node in nodes:
        for text in texts(node, choose):
            assert sorted(fast.found(text)) == sorted(plain.found(text)), text


@needs_hyperscan
def test_a_short_word_that_ends_the_text_is_found_in_the_whole_set() -> None:
    nodes = shipped()
    fast, plain = (
        PatternSet(nodes, engine="hyperscan", cache=patterns.cache_directory()),
        PatternSet(nodes, engine="re"),
    )
    for words in range(12):
        text = prepare("550 not allowed to send " + "a mail " * words + "as")
        assert sorted(fast.found(text)) == sorted(plain.found(text)), text


@pytest.mark.parametrize("engine", ["re", pytest.param("hyperscan", marks=needs_hyperscan)])
def test_every_shipped_pattern_can_match(engine: patterns.Engine) -> None:
    choose = random.Random(7)
    nodes = shipped()
    pattern_set = PatternSet(nodes, engine=engine, cache=patterns.cache_directory())
    never = []
    for number, node in enumerate(nodes):
        if not any(number in pattern_set.found(b" " + sample(node, choose) + b" ") for _ in range(3)):
            never.append(dialect.emit(node))
    assert never == []


def test_no_shipped_pattern_is_costly() -> None:
    assert max(map(dialect.work, shipped())) <= dialect.MAX_WORK


def steps(node: Node, text: bytes) -> int:
    """How many states a backtracking matcher visits that tries the node at every place of the text."""
    count = 0

    def ends(item: Node, at: int) -> list[int]:
        nonlocal count
        count += 1
        match item:
            case Literal(literal):
                return [at + len(literal)] if text.startswith(literal, at) else []
            case OneOf(source, _):
                return [at + 1] if at < len(text) and _one(source, text[at : at + 1]) else []
            case Boundary():
                return [at]
            case Sequence(items):
                places = [at]
                for part in items:
                    places = [end for place in places for end in ends(part, place)]
                return places
            case Choice(options):
                return [end for option in options for end in ends(option, at)]
            case Repeat(part, least, most):
                places, found = [at], [at] if least == 0 else []
                for n in range(1, most + 1):
                    places = [end for place in places for end in ends(part, place)]
                    found += places if n >= least else []
                return found

    for start in range(len(text)):
        ends(node, start)
    return count


@lru_cache(maxsize=4096)
def _one(source: bytes, byte: bytes) -> bool:
    import re

    return re.fullmatch(source, byte) is not None


def test_adversarial_texts_cost_linear_time() -> None:
    """Four times the text may cost little more than four times the steps, whatever it is made of."""
    choose = random.Random(3)
    for node in islice((n for n in shipped() if dialect.work(n) > 4), 0, None, 6):
        whole = sample(node, choose)
        piece = whole[: max(2, len(whole) * 2 // 3)]  # begins every attempt, ends none
        once = (piece * 150)[:300]  # much longer than any `.{0,N}`, so that both lengths feel it alike
        assert steps(node, once * 4) <= 5 * steps(node, once), dialect.emit(node)


def test_work_bounds_what_a_backtracking_matcher_does() -> None:
    node = dialect.parse("(over|out) .{0,40}(quota|limit)")
    attacked = b"over " * 60
    assert steps(node, attacked) / len(attacked) < 10 * dialect.work(node)


@pytest.mark.parametrize(
    "pattern",
    [
        "user.*unknown", "user.+unknown", "a{3,}bcd", "(user|)", "(abc", "abc)", "(?i)user", "(?=user)", "(?P<x>user)",
        r"(user)\1", r"user\Z", "^user", "user$", "(ab?){0,3}{2}", "user??", ".{0,40}", "u", r"\d{3}", "[a\\]]bc",
        "[^é]abc", "[à-é]abc", ".{0,80}.{0,80}user", "(user){0,900}", r"\b?user", "user{3,1}", "(abc|)",
    ],
)  # fmt: skip
def test_refuses_what_is_not_of_the_language(pattern: str) -> None:
    with pytest.raises(DialectError):
        dialect.parse(pattern)


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        ("Mailbox FULL", "550 mailbox Full", True),
        ("почтовый Ящик", "Почтовый ящик переполнен", True),
        ("bo[îi]te pleine", "La Boîte pleine", True),
        ("quota é?x", "quota x", True),
        ("boîte pleine", "Boite pleine", True),
        ("boîte pleine", "Bo?te pleine", True),
        ("boîte pleine", "Bo\ufffdte pleine", True),
        ("empfänger gelöscht", "Empfaenger geloescht", True),
        ("zu groß", "Zu gross", True),
        ("skrzynka pełna", "skrzynka pelna", True),
        ("boite pleine", "Boîte pleine", False),
        ("ящик полон", "?щик полон", False),
        ("a{2}b{1,2}code", "aabbcode", True),
        ("a{2}b{1,2}code", "abbcode", False),
        (r"\bspf\b", "spfail", False),
        ("x.{0,3}yz", "x12345yz", False),
        (r"5\.1\.1 user", "5x1x1 user", False),
    ],
)
@pytest.mark.parametrize("engine", ["re", pytest.param("hyperscan", marks=needs_hyperscan)])
def test_reads_case_sets_counts_and_letters_beyond_ascii(
    pattern: str, text: str, found: bool, engine: patterns.Engine
) -> None:
    assert bool(PatternSet([dialect.parse(pattern)], engine=engine).found(prepare(text))) is found


def test_spellings_that_begin_alike_are_counted_as_ways_to_try_a_pattern() -> None:
    assert dialect.work(dialect.parse("é.{0,9}quota")) == 10
    assert dialect.work(dialect.parse("ä.{0,9}quota")) == 20  # a, ae


def test_addresses_are_hidden_so_that_their_words_match_nothing() -> None:
    assert prepare("550 <mailbox-full@spam.example>...  User\tUnknown") == b"550 @... user unknown"
    assert prepare("Unknown user: virus@b.example (x)") == b"unknown user: @ (x)"


def test_lone_surrogates_do_not_break_the_scan() -> None:
    assert prepare("user \udce9 unknown") == b"user ? unknown"


def test_long_words_full_of_at_signs_are_not_searched_for_addresses() -> None:
    assert prepare("x" * 5000 + "@" * 5000) == b"@"


@needs_hyperscan
def test_threads_scan_at_the_same_time() -> None:
    pattern_set = PatternSet([dialect.parse(f"word{n} here") for n in range(50)], engine="hyperscan")
    wrong: list[object] = []

    def work(n: int) -> None:
        text = b"x " * 500 + b"word%d here" % n
        wrong.extend(found for _ in range(200) if (found := pattern_set.found(text)) != [n])

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@needs_hyperscan
class TestCache:
    nodes = (dialect.parse("mailbox full"), dialect.parse("user unknown"))

    def build(self, cache: Path) -> PatternSet:
        return PatternSet(self.nodes, engine="hyperscan", cache=cache)

    def test_is_written_for_the_owner_alone_and_read_again(self, tmp_path: Path) -> None:
        cache = tmp_path / "deep" / "mailback"
        self.build(cache)
        (kept,) = cache.iterdir()
        assert kept.stat().st_mode & 0o777 == 0o600
        written = kept.stat().st_mtime_ns
        assert self.build(cache).found(b"user unknown") == [1]
        assert kept.stat().st_mtime_ns == written

    def test_that_was_tampered_with_is_not_loaded(self, tmp_path: Path) -> None:
        self.build(tmp_path)
        (kept,) = tmp_path.iterdir()
        content = bytearray(kept.read_bytes())
        content[len(content) // 2] ^= 1
        kept.write_bytes(content)
        assert patterns._read_own(kept) is None
        assert self.build(tmp_path).found(b"user unknown") == [1]

    def test_that_others_may_write_is_not_loaded(self, tmp_path: Path) -> None:
        self.build(tmp_path)
        (kept,) = tmp_path.iterdir()
        kept.chmod(0o620)
        assert patterns._read_own(kept) is None

    def test_folder_that_cannot_be_written_is_no_error(self, tmp_path: Path) -> None:
        blocked = tmp_path / "file"
        blocked.write_text("")
        assert self.build(blocked / "below").found(b"mailbox full") == [0]

    def test_keeps_only_the_newest_few(self, tmp_path: Path) -> None:
        for n in range(15):
            PatternSet([dialect.parse(f"pattern {n}")], engine="hyperscan", cache=tmp_path)
        assert len(list(tmp_path.iterdir())) == 12


def test_looking_an_address_up_imports_no_patterns() -> None:
    """`mailback check` answers from the store alone: its start must not pay for the rules."""
    code = "import sys, mailback.store.lookup; sys.exit(any(m.startswith('mailback.bounce.p') for m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False, env=dict(os.environ)).returncode == 0
