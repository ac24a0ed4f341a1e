"""Signed return paths: each test is named after what happens to an address between us and whoever sends it back."""

from __future__ import annotations

import hmac
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailback import address
from mailback.returnpath import (
    LONGEST_LOCAL,
    Key,
    KeyFileError,
    Keys,
    ReturnPaths,
    Standing,
    Verified,
    sign,
    unsubscribe_address,
    verify,
)

TODAY = date(2026, 11, 20)
KEYS = Keys((Key(1, date(2026, 1, 1), bytes(range(32))),))
DOMAIN = "bounce.sender.test"
AGE = 14


def signed(*recipients: str, sender: str = "news@sender.test", keys: Keys = KEYS, on: date = TODAY) -> str:
    path = sign(sender, recipients, keys, domain=DOMAIN, on=on, max_age_days=AGE)
    assert path is not None
    local, _, host = path.rpartition("@")
    assert host == DOMAIN
    assert len(local) <= LONGEST_LOCAL
    assert address.is_address(path)
    return path


def checked(path: str, *, keys: Keys = KEYS, on: date = TODAY) -> Verified:
    return verify(path, keys, on=on, max_age_days=AGE)


# One recipient -----------------------------------------------------------------------------------------------


def test_the_recipient_comes_back_from_the_address_alone() -> None:
    found = checked(signed("ada+list@receiver.test"))
    assert (found.standing, found.recipient, found.day) == (Standing.SIGNED, "ada+list@receiver.test", TODAY)
    assert found.names_recipient


def test_nobody_else_reads_the_recipient_in_it() -> None:
    path = signed("ada@receiver.test")
    assert not any(word in path.partition("@")[0] for word in ("ada", "receiver", "test"))
    one, other = (signed(f"ad{letter}@receiver.test").partition("@")[0][4:] for letter in "ab")
    same = sum(a == b for a, b in zip(one, other, strict=True))
    assert same < 10  # by chance one letter in 32 is


@pytest.mark.parametrize("change", [str.upper, str.lower, str.title, str.swapcase])
def test_a_return_path_whose_case_was_folded_on_the_way_is_still_good(change: object) -> None:
    assert callable(change)
    for path in (signed("ada@receiver.test"), signed("a@x.test", "b@x.test", sender="News@sender.test")):
        assert checked(change(path)).signed


def test_the_case_of_the_recipient_does_not_matter() -> None:
    assert signed("Ada@Receiver.Test") == signed("ada@receiver.test")


def test_it_is_letters_and_digits_only() -> None:
    """Delimiters in a local part mean something to some server on the way."""
    assert signed("ada@receiver.test").partition("@")[0].isalnum()


def test_one_address_a_recipient_and_day_so_that_greylisting_lets_it_through() -> None:
    assert signed("ada@receiver.test") == signed("ada@receiver.test")
    assert signed("ada@receiver.test") != signed("ada@receiver.test", on=TODAY + timedelta(days=1))


@pytest.mark.parametrize("length", range(7, 60))
def test_a_recipient_at_the_length_limit(length: int) -> None:
    """Up to 40 characters the address tells it; a longer one is known to the journal, and the address is as good."""
    recipient = "a" * (length - 6) + "@x.tst"
    found = checked(signed(recipient))
    assert found.signed
    assert found.names_recipient
    assert found.recipient == (recipient if length <= 40 else None)


@pytest.mark.parametrize("recipient", ['"ada lovelace"@receiver.test', "ädä@receiver.test", "x" * 64 + "@" + "y" * 180])
def test_a_recipient_that_cannot_be_packed_is_told_by_a_reference(recipient: str) -> None:
    found = checked(signed(recipient))
    assert found.signed
    assert found.names_recipient
    assert found.recipient is None
    assert found.return_path == signed(recipient).partition("@")[0]


def test_an_international_domain_is_told_by_its_a_labels() -> None:
    assert checked(signed("ada@bücher.test")).recipient == "ada@xn--bcher-kva.test"


def test_another_recipients_tag_replayed_names_the_other_recipient() -> None:
    mine = signed("mallory@receiver.test").partition("@")[0]
    victim = signed("ada@receiver.test").partition("@")[0]
    assert checked(f"{mine}@{DOMAIN}").recipient == "mallory@receiver.test"
    for cut in (8, 16, 20):
        assert checked(f"{mine[:cut]}{victim[cut:]}@{DOMAIN}").standing is Standing.WRONG


def test_a_tag_of_one_form_is_none_of_another() -> None:
    """A reference given out for a recipient must not pass for a sealed address, nor one for a sender for one's."""
    local = signed("x" * 50 + "@receiver.test").partition("@")[0]
    for letter in "vst":
        assert checked(f"{letter}{local[1:]}@{DOMAIN}").standing is Standing.WRONG


@given(st.integers(min_value=0, max_value=63), st.integers(min_value=1, max_value=31))
def test_any_letter_that_was_changed_makes_it_wrong(place: int, by: int) -> None:
    local = signed("ada.lovelace@analytical.receiver.test").partition("@")[0]
    if place >= len(local):
        place %= len(local)
    digits = "0123456789abcdefghijklmnopqrstuv"
    other = digits[(digits.index(local[place]) + by) % 32]
    found = checked(f"{local[:place]}{other}{local[place + 1 :]}@{DOMAIN}")
    assert not found.signed or local[place] == other


@pytest.mark.parametrize("cut", [1, 2, 5, 8, 20, 40])
def test_an_address_that_was_cut_short_is_not_good(cut: int) -> None:
    local = signed("ada.lovelace@analytical.receiver.test").partition("@")[0]
    assert not checked(f"{local[:-cut]}@{DOMAIN}").signed


# Time --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipients", [("a@x.test",), ("a@x.test", "b@x.test")])
def test_a_day_that_rolls_over_at_midnight_utc(recipients: tuple[str, ...]) -> None:
    paths = ReturnPaths(KEYS, DOMAIN, AGE)
    before = datetime(2026, 11, 20, 23, 59, 59, 999_999, tzinfo=UTC)
    path = paths.sign("news@sender.test", recipients, before)
    assert path is not None
    assert paths.verify(path, before + timedelta(microseconds=1)).signed
    after = paths.sign("news@sender.test", recipients, before + timedelta(microseconds=1))
    assert after is not None
    assert paths.verify(after, before).signed  # by a host whose clock is a moment behind


@pytest.mark.parametrize("recipients", [("a@x.test",), ("a@x.test", "b@x.test")])
def test_it_counts_for_so_many_days_and_not_one_longer(recipients: tuple[str, ...]) -> None:
    path = signed(*recipients)
    assert checked(path, on=TODAY + timedelta(days=AGE)).signed
    for days in (AGE + 2, 100, 900):
        assert checked(path, on=TODAY + timedelta(days=days)).standing is Standing.EXPIRED


@pytest.mark.parametrize("recipients", [("a@x.test",), ("a@x.test", "b@x.test")])
def test_one_from_the_day_after_tomorrow_does_not_count(recipients: tuple[str, ...]) -> None:
    path = signed(*recipients, on=TODAY + timedelta(days=3))
    assert not checked(path).signed


@given(st.dates(min_value=date(2020, 1, 1), max_value=date(2060, 1, 1)), st.integers(min_value=0, max_value=AGE))
def test_on_any_day_of_any_year_a_fresh_one_is_good(on: date, age: int) -> None:
    keys = Keys((Key(3, date(2019, 1, 1), b"k" * 32),))
    for recipients in (("a@x.test",), ("a@x.test", "b@x.test")):
        found = checked(signed(*recipients, keys=keys, on=on), keys=keys, on=on + timedelta(days=age))
        assert found.signed


# Several recipients: BATV --------------------------------------------------------------------------------------


def test_mail_to_several_bears_the_tag_of_the_draft() -> None:
    path = signed("a@x.test", "b@x.test", sender=f"Bounces@{DOMAIN}")
    days = (TODAY + timedelta(days=AGE) - date(1970, 1, 1)).days % 1000
    assert path.startswith(f"prvs=1{days:03}")
    assert path.endswith(f"=Bounces@{DOMAIN}")
    found = checked(path)
    assert (found.sender, found.recipient, found.names_recipient) == (f"Bounces@{DOMAIN}", None, False)


def test_a_sender_outside_the_bounce_domain_comes_back_whole() -> None:
    assert checked(signed("a@x.test", "b@x.test", sender="news+7=x@sender.test")).sender == "news+7=x@sender.test"


def test_a_tag_does_not_serve_another_sender() -> None:
    path = signed("a@x.test", "b@x.test", sender="news@sender.test")
    assert checked(path.replace("=news=", "=boss=")).standing is Standing.WRONG
    assert checked(path.replace("=sender.test", "=other.test")).standing is Standing.WRONG


@pytest.mark.parametrize("sender", ["a-very-long-name-of-a-campaign@marketing.sender.test", '"a b"@sender.test'])
def test_a_sender_that_leaves_no_room_for_a_tag_is_signed_all_the_same(sender: str) -> None:
    path = signed("a@x.test", "b@x.test", sender=sender)
    found = checked(path)
    assert found.signed
    assert not found.names_recipient
    assert found.return_path == path.partition("@")[0]


def test_the_same_recipient_twice_is_one() -> None:
    assert checked(signed("a@x.test", "A@X.test")).recipient == "a@x.test"


# Unsubscribing ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipient", ["ada@receiver.test", "a.rather.long.name@department.receiver.test"])
def test_an_unsubscribe_address_names_its_recipient_and_is_no_return_path(recipient: str) -> None:
    minted = unsubscribe_address(recipient, KEYS, domain=DOMAIN, on=TODAY)
    assert minted.startswith("unsubscribe-")
    assert address.is_address(minted)
    found = checked(minted.upper(), on=TODAY + timedelta(days=800))
    assert (found.signed, found.unsubscribes, found.names_recipient) == (True, True, True)
    assert found.recipient == (recipient if len(recipient) < 29 else None)
    assert not checked(signed(recipient)).unsubscribes
    assert checked("v" + minted[len("unsubscribe-") + 1 :]).standing is Standing.WRONG


# What stays as it is ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sender", "recipients"),
    [
        ("", ["a@x.test"]),
        ("news@sender.test", []),
        ("prvs=1234abcdef=news@sender.test", ["a@x.test"]),
    ],
)
def test_what_is_not_signed(sender: str, recipients: list[str]) -> None:
    assert sign(sender, recipients, KEYS, domain=DOMAIN, on=TODAY, max_age_days=AGE) is None


def test_a_signed_address_is_not_signed_again() -> None:
    for path in (signed("a@x.test"), signed("a@x.test", "b@x.test")):
        assert sign(path, ["c@x.test"], KEYS, domain=DOMAIN, on=TODAY, max_age_days=AGE) is None


def test_a_list_that_knows_its_posters_by_the_envelope_sender_sees_the_one_it_knows() -> None:
    paths = ReturnPaths(KEYS, DOMAIN, AGE, exempt=frozenset({"lists.x.test", "club@y.test"}))
    assert paths.sign("ada@sender.test", ["talk@lists.x.test"]) is None
    assert paths.sign("ada@sender.test", ["Club@Y.test"]) is None
    assert paths.sign("ada@sender.test", ["other@y.test"]) is not None


def test_mail_of_other_senders_that_passes_through_is_not_signed() -> None:
    paths = ReturnPaths(KEYS, DOMAIN, AGE, senders=frozenset({"sender.test"}))
    assert paths.sign("somebody@elsewhere.test", ["a@x.test"]) is None
    assert paths.sign("ada@Sender.test", ["a@x.test"]) is not None


# What others do to it --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipients", [("ada@receiver.test",), ("a@x.test", "b@x.test")])
@pytest.mark.parametrize(
    "wrapped",
    [
        "SRS0=xY1z=AB={host}={local}@forwarder.test",
        "srs0+xy1z=ab={host}={local}@forwarder.test",
        "SRS1=abCD=first.test==xY1z=AB={host}={local}@second.test",
        "prvs=4711abcdef={local}@{host}",
        "btv1==04711abcdef=={local}@{host}",
        "prvs=4711abcdef=prvs=0815fedcba={local}@{host}",
        "SRS0=xY1z=AB={host}=prvs=4711abcdef={local}@forwarder.test",
    ],
)
def test_what_is_wrapped_around_it_is_taken_off(wrapped: str, recipients: tuple[str, ...]) -> None:
    local, _, host = signed(*recipients).partition("@")
    found = checked(wrapped.format(local=local, host=host))
    assert found.signed
    assert found == checked(f"{local}@{host}")


def test_an_extension_behind_it_is_taken_off() -> None:
    local, _, host = signed("ada@receiver.test").partition("@")
    assert checked(f"{local}+autoreply@{host}").recipient == "ada@receiver.test"


def test_a_wrapping_does_not_make_good_what_is_inside() -> None:
    assert checked(f"prvs=4711abcdef=news@{DOMAIN}").standing is Standing.WRONG
    assert checked(f"SRS0=xY1z=AB={DOMAIN}=news@forwarder.test").standing is Standing.UNSIGNED
    assert checked("SRS0=a=b=c.test=" * 200 + "x@y.test").standing is Standing.UNSIGNED


@pytest.mark.parametrize(
    "path", ["", "@", "news@sender.test", "v1", "victor@x.test", "w" * 20, "v" * 64, "prvs=@x", "\0"]
)
def test_an_ordinary_address_is_unsigned(path: str) -> None:
    assert checked(f"{path}@{DOMAIN}" if "@" not in path else path).standing in (Standing.UNSIGNED, Standing.WRONG)
    assert not checked(path).signed


@given(st.text(max_size=200))
def test_no_text_at_all_raises(text: str) -> None:
    assert not checked(text).signed


# Keys ------------------------------------------------------------------------------------------------------------


def test_keys_overlap_so_that_what_is_under_way_comes_home() -> None:
    tomorrow = TODAY + timedelta(days=1)
    both = KEYS.rotated(b"n" * 32, tomorrow, on=TODAY, max_age_days=AGE)
    assert [key.id for key in both.keys] == [1, 2]
    assert checked(signed("a@x.test", keys=both), keys=both).signed
    assert signed("a@x.test", keys=both)[1] == "1"
    assert signed("a@x.test", keys=both, on=tomorrow)[1] == "2"
    assert checked(signed("a@x.test"), keys=both, on=tomorrow + timedelta(days=5)).signed


def test_a_key_is_dropped_only_when_its_last_signature_has_run_out() -> None:
    start = TODAY + timedelta(days=1)
    keys = KEYS.rotated(b"n" * 32, start, on=TODAY, max_age_days=AGE)
    soon, later = start + timedelta(days=900), start + timedelta(days=902)  # as long as an unsubscribe address counts
    assert [k.id for k in keys.rotated(b"o" * 32, soon, on=soon, max_age_days=AGE).keys] == [1, 2, 3]
    kept = keys.rotated(b"o" * 32, later, on=later, max_age_days=AGE)
    assert [k.id for k in kept.keys] == [2, 3]
    assert checked(signed("a@x.test"), keys=kept).standing is Standing.WRONG


def test_a_day_that_comes_round_again_is_not_believed_of_a_key_that_was_replaced() -> None:
    keys = KEYS.rotated(b"n" * 32, TODAY + timedelta(days=200), on=TODAY, max_age_days=AGE)
    for recipients, days in ((["a@x.test"], 1024), (["a@x.test", "b@x.test"], 1000 + AGE)):
        path = sign("news@sender.test", recipients, keys, domain=DOMAIN, on=TODAY, max_age_days=AGE)
        assert path is not None
        for when in (days, days + 5):
            told = verify(path, keys, on=TODAY + timedelta(days=when), max_age_days=AGE)
            assert told.standing is Standing.EXPIRED


def test_an_id_comes_round_again_as_late_as_can_be() -> None:
    keys, on, used = KEYS, TODAY, [1]
    for _ in range(12):
        on += timedelta(days=60)
        keys = keys.rotated(hmac.digest(b"k", on.isoformat().encode(), "sha256"), on, on=on, max_age_days=AGE)
        used.append(keys.keys[-1].id)
    assert used == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2, 3]


def test_ten_keys_at_once_are_too_many() -> None:
    keys = KEYS
    for step in range(1, 10):
        keys = keys.rotated(bytes([step]) * 32, TODAY + timedelta(days=step), on=TODAY, max_age_days=AGE)
    with pytest.raises(ValueError, match="ten key ids"):
        keys.rotated(b"x" * 32, TODAY + timedelta(days=11), on=TODAY, max_age_days=AGE)


def test_the_key_file_reads_back_as_it_was_written() -> None:
    keys = KEYS.rotated(b"n" * 32, TODAY, on=TODAY, max_age_days=AGE)
    assert Keys.parse(keys.text()) == keys


def test_every_problem_of_a_key_file_is_told_at_once_and_no_secret() -> None:
    secret = "ab" * 32
    text = f"# keys\n1 2026-01-01 {secret}\n1 2026-02-01 {secret}\n2 2026-02-30 {secret}\nx {secret[:-1]}\n"
    with pytest.raises(KeyFileError) as error:
        Keys.parse(text, "keys")
    assert [problem.partition(": ")[0] for problem in error.value.problems] == ["keys:3", "keys:4", "keys:5"]
    assert secret[:8] not in str(error.value)
    with pytest.raises(KeyFileError, match="holds no key"):
        Keys.parse("# nothing\n")


def test_no_secret_in_what_is_shown_of_a_key() -> None:
    assert bytes(range(32)).hex()[:8] not in repr(KEYS)
    assert "secret" not in repr(KEYS)
