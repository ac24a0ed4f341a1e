"""What a message is: the one entry to everything in this folder.

Log events: none; nothing here raises on any bytes.

Readers are asked in a fixed order, surest sign first: MIME parts that only reports have, then header fields, then
subject and sender, and texts last. The first that recognises the message answers. What no machine claims is a `reply`
when a person may have written it, else `other`.
"""

from __future__ import annotations

from collections.abc import Callable

from mailback.bounce.taxonomy import Kind, Subcategory
from mailback.envelope import Envelope
from mailback.message import Message
from mailback.reports import addresses, arf, autoreply, bounces, challenge, mdn, notices
from mailback.reports.facts import Facts
from mailback.reports.original import DEFAULT, OriginalNames
from mailback.reports.report import DeliveryFailure, Report
from mailback.reports.vocabulary import Vocabulary, shipped

RECIPIENT_CAP = 10_000
"""Failures kept of one report; a larger one is marked `truncated`."""

_BULK_FIELDS = (
    "list-id",
    "list-unsubscribe",
    "list-post",
    "x-mailing-list",
    "feedback-id",
    "x-campaign-id",
    "x-mailman-version",
)
_BULK_PRECEDENCE = frozenset({"bulk", "list", "junk"})
_TELLING_LABEL = 5  # letters of a host's name (`unsub.shop.example`); shorter words are names too (`uit.no`)
_FIELDS_OF_MAIL = ("from", "to", "subject", "date", "message-id", "received", "return-path")
_UNATTENDED = (
    "noreply",
    "no-reply",
    "no_reply",
    "donotreply",
    "do-not-reply",
    "newsletter",
    "news@",
    "mailing",
    "marketing",
    "nagios",
    "icinga",
    "zabbix",
    "monitoring@",
    "alerts@",
    "alertmanager",
    "notification",
)


def read(
    message: Message,
    envelope: Envelope | None = None,
    *,
    names: OriginalNames = DEFAULT,
    vocabulary: Vocabulary | None = None,
    cap: int = RECIPIENT_CAP,
) -> Report:
    """Decide what a message is and, for a report, whom it is about; one `DeliveryFailure` a recipient.

    `names` tells which fields of the returned message hold campaign, list and subscriber; `vocabulary` the words of
    servers and languages where they are not only those that ship; `cap` how many recipients of one report are kept.
    """
    facts = Facts(message, envelope, names, vocabulary or shipped(), cap)
    for reader in _READERS:
        report = reader(facts)
        if report is not None:
            report.truncated = report.truncated or message.truncated
            return report
    return Report(kind=_unclaimed(facts), explanation=lambda: message.text)


def _bounce_that_lists(facts: Facts) -> Report | None:
    """Exim, Gmail and others that name the recipients in the header."""
    return bounces.read_text(facts) if "x-failed-recipients" in facts.message.headers else None


def _bounce_before_answer(facts: Facts) -> Report | None:
    """Free-text bounces of servers that say who they are; what looks like an automatic answer waits its turn."""
    if (facts.answers and not facts.null_sender) or facts.automatic:
        return None
    says_so = facts.null_sender and "failed_subjects" in facts.subject_says
    return bounces.read_text(facts) if facts.daemon or says_so else None


def _bounce_after_answer(facts: Facts) -> Report | None:
    """Free-text bounces of servers that hide behind an ordinary address; a newsletter may write about bounces."""
    if facts.answers or facts.automatic:
        return None
    if not facts.null_sender and not facts.message.headers.names.isdisjoint(_BULK_FIELDS):
        return None
    return bounces.read_text(facts)


def _unsubscribe(facts: Facts) -> Report | None:
    """RFC 8058 section 3.1 and List-Unsubscribe mail: told by the address that it was sent to."""
    recipients = facts.envelope.recipients if facts.envelope and facts.envelope.recipients else facts.ours
    if not any(_unsubscribes(address.lower(), facts) for address in recipients):
        return None
    report = Report(kind=Kind.UNSUBSCRIBE, dialect="list-unsubscribe", explanation=lambda: facts.message.text)
    if addresses.is_full(facts.sender):
        report.failures.append(
            DeliveryFailure(
                recipient=facts.sender,
                final_recipient=facts.sender,
                action="delivered",
                diagnostic="asked to be unsubscribed",
                cause=Subcategory.UNSUBSCRIBE_REQUEST,
            )
        )
    return report


def _unsubscribes(address: str, facts: Facts) -> bool:
    """Whether mail to this address unsubscribes: by its local part, the host it goes to, or a list server's command.

    The command is the subject of mail to `list-request@`, as in the first example of RFC 2369 section 3.2.
    """
    words = facts.words.unsubscribe_localparts
    local, _, host = address.partition("@")
    label = host.partition(".")[0]
    if (len(label) >= _TELLING_LABEL and label in words) or (
        local.endswith("-request") and facts.subject.strip() in words
    ):
        return True
    for word in words:
        at = local.find(word)
        if at < 0:
            continue
        before, after = local[at - 1 : at], local[at + len(word) : at + len(word) + 1]
        if not before.isalnum() and not after.isalnum():
            return True
    return False


def _unclaimed(facts: Facts) -> Kind:
    """A person's mail, or anything else: bulk mail, what is not mail at all, what a program wrote."""
    headers = facts.message.headers
    if headers.names.isdisjoint(_FIELDS_OF_MAIL) or not facts.sender:
        return Kind.OTHER
    bulk = not headers.names.isdisjoint(_BULK_FIELDS) or facts.get("precedence") in _BULK_PRECEDENCE
    if bulk and not _answers_us(facts):
        return Kind.OTHER
    if facts.get("auto-submitted").startswith("auto-") or (facts.daemon and not _postmaster_answers(facts)):
        return Kind.OTHER
    return Kind.OTHER if facts.sender.lower().startswith(_UNATTENDED) else Kind.REPLY


def _answers_us(facts: Facts) -> bool:
    """Whether it says that it answers a message of our own domain, and nobody passed it on.

    Gateways mark people's mail as bulk too; a list sends under a return path of its own.
    """
    domains = {address.rpartition("@")[2].lower() for address in facts.ours}
    answered = facts.get("in-reply-to").strip().rstrip(">").rpartition("@")[2].lower()
    return _sent_by_its_writer(facts) and any(answered == ours or answered.endswith(f".{ours}") for ours in domains)


def _sent_by_its_writer(facts: Facts) -> bool:
    """Whether the envelope sender, which the conversation or the server that delivered tells, is who wrote it."""
    told = facts.return_path or (facts.envelope.sender if facts.envelope is not None else None)
    return (told or "").lower() == facts.sender.lower()


def _postmaster_answers(facts: Facts) -> bool:
    """People read postmaster@ too, and answer: what no reader claimed, answers our mail and can be answered in turn."""
    return facts.answers and "in-reply-to" in facts.message.headers and _sent_by_its_writer(facts)


_READERS: tuple[Callable[[Facts], Report | None], ...] = (
    bounces.read_structured,
    _bounce_that_lists,
    arf.read,
    mdn.read,
    notices.read_report,
    notices.read_event,
    challenge.read,
    bounces.read_list_refusal,
    _bounce_before_answer,
    _unsubscribe,
    autoreply.read,
    _bounce_after_answer,
    autoreply.read_null_sender,
)
