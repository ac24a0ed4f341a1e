"""BATV (draft-levine-smtp-batv-01, "simple private signature"): written and read back. Pure.

Where the draft is departed from stands in `mailback.returnpath`. Emits no log events.
"""

from __future__ import annotations

import hmac
import re
from datetime import date, timedelta

from mailback import address
from mailback.returnpath.days import CLOCK_SKEW_DAYS, EPOCH
from mailback.returnpath.keys import Key, Keys, mac_of
from mailback.returnpath.standing import WRONG, Standing, Verified
from mailback.returnpath.verp import LONGEST_LOCAL

_PRVS_DAYS = 1000  # of the three digits of BATV
_SLACK_DAYS = 60
"""The address tells its last day: when it was signed follows from `max_age_days`, which may have been changed since."""
PRVS = re.compile(r"prvs=([0-9])([0-9]{3})([0-9a-f]{6})=(.+)", re.IGNORECASE)
_PLAIN_LOCAL = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+")


def prvs_of(sender: str, key: Key, *, domain: str, last_day: date) -> str | None:
    """The local part of a BATV address; None where there is no room for it."""
    local, host = address.split(sender)
    if not _PLAIN_LOCAL.fullmatch(local):
        return None
    place = "" if address.domain_key(host) == domain else f"={address.domain_key(host)}"
    days = f"{key.id}{(last_day.toordinal() - EPOCH) % _PRVS_DAYS:03}"
    tagged = f"prvs={days}{_prvs_mac(key, days, address.key(sender))}={local}{place}"
    return tagged if len(tagged) <= LONGEST_LOCAL else None


def verify_prvs(found: re.Match[str], host: str, keys: Keys, on: date, max_age_days: int) -> Verified:
    """What a local part that `PRVS` has found is worth at a host."""
    key_id, days, mac, rest = found.groups()
    key = keys.find(int(key_id))
    if key is None:
        return WRONG
    before, _, place = rest.rpartition("=")
    for sender in (f"{rest}@{host}", f"{before}@{place}") if before else (f"{rest}@{host}",):
        if hmac.compare_digest(_prvs_mac(key, key_id + days, address.key(sender)), mac.lower()):
            left = (int(days) - (on.toordinal() - EPOCH)) % _PRVS_DAYS
            signed = on + timedelta(days=left - max_age_days)
            good = left <= max_age_days + CLOCK_SKEW_DAYS and keys.signed_on(key, signed, _SLACK_DAYS)
            return Verified(
                Standing.SIGNED if good else Standing.EXPIRED,
                sender=sender,
                return_path=found[0].lower(),
                day=on + timedelta(days=left if good else left - _PRVS_DAYS),
            )
    return WRONG


def _prvs_mac(key: Key, days: str, sender: str) -> str:
    """draft-levine-smtp-batv-01 section 4: the first three octets of the MAC, as hexadecimal digits."""
    return mac_of(key.tags, f"prvs={days}={sender}".encode())[:3].hex()
