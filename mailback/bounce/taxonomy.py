"""The words every part agrees on: kinds of message, bounce types, subcategories, fault, actions, provenance.

A subcategory implies its type, whose fault it is, and whether the address is gone for good; the table `CAUSES`
says so once. What to *do* about each is data (`config/rules/handling.toml`, read by `mailback.policy.handling`).

`message_temporarily_delayed` is the one subcategory with two types: `soft_bounce` when the mail was given up,
`delayed_bounce` while a server is still trying. A delay notice keeps the cause's subcategory where the cause is
told, and has the type `delayed_bounce` whatever the cause.

`permanent` speaks of delivery: the address itself is dead. A complaint is suppressed for ever, yet its mailbox works,
so it is not `permanent`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class _Word(StrEnum):
    """Words that look-ups of every verdict are keyed by: they hash as the text that they equal, not by their name in
    Python code, which takes five times as long."""

    __hash__ = str.__hash__


class Kind(StrEnum):
    """What a message is."""

    BOUNCE = "bounce"
    DELAY = "delay"
    DELIVERED = "delivered"
    COMPLAINT = "complaint"
    AUTO_REPLY = "auto_reply"
    CHALLENGE = "challenge"
    DISPOSITION = "disposition"
    UNSUBSCRIBE = "unsubscribe"
    REPORT = "report"
    REPLY = "reply"
    OTHER = "other"


class Type(_Word):
    """The coarse class of a bounce."""

    HARD_BOUNCE = "hard_bounce"
    SOFT_BOUNCE = "soft_bounce"
    BLOCK_BOUNCE = "block_bounce"
    CHALLENGE_BOUNCE = "challenge_bounce"
    SPAM_BOUNCE = "spam_bounce"
    AUTO_REPLY = "auto_reply"
    DELAYED_BOUNCE = "delayed_bounce"
    COMPLAINT = "complaint"
    DELIVERED = "delivered"
    UNKNOWN = "unknown"


class Subcategory(_Word):
    """The cause of a bounce."""

    USER_UNKNOWN = "user_unknown"
    DOMAIN_INVALID = "domain_invalid"
    MAILBOX_DISABLED = "mailbox_disabled"
    ADDRESS_MOVED = "address_moved"
    RECIPIENT_REJECTED = "recipient_rejected"
    MESSAGE_TOO_LARGE = "message_too_large"
    POLICY_VIOLATION = "policy_violation"
    RELAY_DENIED = "relay_denied"
    MAILBOX_FULL = "mailbox_full"
    MAILBOX_TEMPORARILY_FULL = "mailbox_temporarily_full"
    SERVER_TEMPORARILY_UNAVAILABLE = "server_temporarily_unavailable"
    MESSAGE_TEMPORARILY_DELAYED = "message_temporarily_delayed"
    CONTENT_REJECTED = "content_rejected"
    ROUTING_ERROR = "routing_error"
    CONFIGURATION_ERROR = "configuration_error"
    PROTOCOL_ERROR = "protocol_error"
    IP_BLOCKED = "ip_blocked"
    DOMAIN_BLOCKED = "domain_blocked"
    REPUTATION_BLOCKED = "reputation_blocked"
    SENDER_REJECTED = "sender_rejected"
    REVERSE_DNS_MISSING = "reverse_dns_missing"
    TLS_REQUIRED = "tls_required"
    RATE_LIMITED = "rate_limited"
    GREYLISTED = "greylisted"
    CHALLENGE_RESPONSE_REQUIRED = "challenge_response_required"
    SPF_FAIL = "spf_fail"
    DKIM_FAIL = "dkim_fail"
    DMARC_FAIL = "dmarc_fail"
    AUTH_FAIL = "auth_fail"
    SPAM_DETECTED = "spam_detected"
    VIRUS_DETECTED = "virus_detected"
    OUT_OF_OFFICE = "out_of_office"
    ACKNOWLEDGEMENT = "acknowledgement"
    LEFT_ORGANISATION = "left_organisation"
    SPAM_COMPLAINT = "spam_complaint"
    UNSUBSCRIBE_REQUEST = "unsubscribe_request"
    DELIVERED = "delivered"
    UNKNOWN = "unknown"


class Fault(StrEnum):
    """Who has to change something before mail goes through; only `RECIPIENT` counts against an address."""

    RECIPIENT = "recipient"
    SENDER = "sender"
    RECEIVER = "receiver"
    NETWORK = "network"


class Action(StrEnum):
    """What handling a verdict asks for."""

    SUPPRESS_PERMANENTLY = "suppress_permanently"
    SUPPRESS_TEMPORARILY = "suppress_temporarily"
    RETRY_IMMEDIATELY = "retry_immediately"
    RETRY_WITH_DELAY = "retry_with_delay"
    RE_ENGAGE = "re_engage"
    MANUAL_REVIEW = "manual_review"
    NO_ACTION = "no_action"


class Provenance(StrEnum):
    """How far a report is believed, best first; `FORGED` contradicts what is known."""

    SIGNED = "signed"
    RETURNED_ORIGINAL = "returned-original"
    JOURNAL = "journal"
    AUTHENTICATED = "authenticated"
    UNPROVEN = "unproven"
    FORGED = "forged"

    @property
    def rank(self) -> int:
        """Higher is believed more; use it to compare two grades."""
        return _PROVENANCE_RANK[self]


_PROVENANCE_RANK = {grade: rank for rank, grade in enumerate(reversed(Provenance))}


class Cause(NamedTuple):
    """What a subcategory implies."""

    type: Type
    fault: Fault | None
    permanent: bool


_T, _S, _F = Type, Subcategory, Fault

CAUSES: dict[Subcategory, Cause] = {
    _S.USER_UNKNOWN: Cause(_T.HARD_BOUNCE, _F.RECIPIENT, True),
    _S.DOMAIN_INVALID: Cause(_T.HARD_BOUNCE, _F.RECIPIENT, True),
    _S.MAILBOX_DISABLED: Cause(_T.HARD_BOUNCE, _F.RECIPIENT, True),
    _S.ADDRESS_MOVED: Cause(_T.HARD_BOUNCE, _F.RECIPIENT, True),
    _S.RECIPIENT_REJECTED: Cause(_T.HARD_BOUNCE, _F.RECIPIENT, False),
    _S.MESSAGE_TOO_LARGE: Cause(_T.HARD_BOUNCE, _F.SENDER, False),
    _S.POLICY_VIOLATION: Cause(_T.HARD_BOUNCE, _F.SENDER, False),
    _S.RELAY_DENIED: Cause(_T.HARD_BOUNCE, _F.SENDER, False),
    _S.MAILBOX_FULL: Cause(_T.SOFT_BOUNCE, _F.RECIPIENT, False),
    _S.MAILBOX_TEMPORARILY_FULL: Cause(_T.SOFT_BOUNCE, _F.RECIPIENT, False),
    _S.SERVER_TEMPORARILY_UNAVAILABLE: Cause(_T.SOFT_BOUNCE, _F.RECEIVER, False),
    _S.MESSAGE_TEMPORARILY_DELAYED: Cause(_T.SOFT_BOUNCE, _F.NETWORK, False),
    _S.CONTENT_REJECTED: Cause(_T.SOFT_BOUNCE, _F.SENDER, False),
    _S.ROUTING_ERROR: Cause(_T.SOFT_BOUNCE, _F.NETWORK, False),
    _S.CONFIGURATION_ERROR: Cause(_T.SOFT_BOUNCE, _F.RECEIVER, False),
    _S.PROTOCOL_ERROR: Cause(_T.SOFT_BOUNCE, _F.SENDER, False),
    _S.IP_BLOCKED: Cause(_T.BLOCK_BOUNCE, _F.SENDER, False),
    _S.DOMAIN_BLOCKED: Cause(_T.BLOCK_BOUNCE, _F.SENDER, False),
    _S.REPUTATION_BLOCKED: Cause(_T.BLOCK_BOUNCE, _F.SENDER, False),
    _S.SENDER_REJECTED: Cause(_T.BLOCK_BOUNCE, _F.SENDER, False),
    _S.REVERSE_DNS_MISSING: Cause(_T.BLOCK_BOUNCE, _F.SENDER, False),
    _S.TLS_REQUIRED: Cause(_T.BLOCK_BOUNCE, _F.SENDER, False),
    _S.RATE_LIMITED: Cause(_T.BLOCK_BOUNCE, _F.SENDER, False),
    _S.GREYLISTED: Cause(_T.CHALLENGE_BOUNCE, _F.RECEIVER, False),
    _S.CHALLENGE_RESPONSE_REQUIRED: Cause(_T.CHALLENGE_BOUNCE, _F.RECIPIENT, False),
    _S.SPF_FAIL: Cause(_T.CHALLENGE_BOUNCE, _F.SENDER, False),
    _S.DKIM_FAIL: Cause(_T.CHALLENGE_BOUNCE, _F.SENDER, False),
    _S.DMARC_FAIL: Cause(_T.CHALLENGE_BOUNCE, _F.SENDER, False),
    _S.AUTH_FAIL: Cause(_T.CHALLENGE_BOUNCE, _F.SENDER, False),
    _S.SPAM_DETECTED: Cause(_T.SPAM_BOUNCE, _F.SENDER, False),
    _S.VIRUS_DETECTED: Cause(_T.SPAM_BOUNCE, _F.SENDER, False),
    _S.OUT_OF_OFFICE: Cause(_T.AUTO_REPLY, None, False),
    _S.ACKNOWLEDGEMENT: Cause(_T.AUTO_REPLY, None, False),
    _S.LEFT_ORGANISATION: Cause(_T.AUTO_REPLY, None, False),
    _S.SPAM_COMPLAINT: Cause(_T.COMPLAINT, _F.RECIPIENT, False),
    _S.UNSUBSCRIBE_REQUEST: Cause(_T.COMPLAINT, _F.RECIPIENT, False),
    _S.DELIVERED: Cause(_T.DELIVERED, None, False),
    _S.UNKNOWN: Cause(_T.UNKNOWN, None, False),
}
