"""Other ways in: Postfix's log, mailboxes, tables of deliveries, opens and clicks.

A door like the milter and the receiver: it reads, builds facts and hands them to the engine, which judges and records
them; what it has read is remembered in the transaction that holds what was made of it (table `place`).

Reading order: `syslog` (lines of any log to records), `postfix_log` (records to what became of whom), `logfiles` (files
in pieces), `feed` (batches to the engine), `log_import` (a log from its place to its end), `follow` (as it is written).
`mailbox`, `mbox` and `imap` bring whole messages, `tables` rows.
"""

from __future__ import annotations

from datetime import tzinfo
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mailback.ingest.postfix_log import Rules
    from mailback.settings import Settings


def rules_of(settings: Settings) -> Rules:
    """What the settings say of Postfix's log: whose mail is ours, which next hops only hand it on."""
    from mailback import address
    from mailback.ingest.postfix_log import Rules

    mail, follow = settings.mail, settings.follow
    ours = (*mail.sending_domains, *filter(None, [mail.bounce_domain])) if mail.sending_domains else ()
    return Rules(
        domains=frozenset(address.domain_key(domain) for domain in ours),
        relays=frozenset(name.lower() for name in follow.relays),
        mailbox_programs=frozenset(follow.mailbox_programs),
    )


def zone_of(settings: Settings) -> tzinfo | None:
    """The zone of log lines that tell none; None is this host's."""
    from zoneinfo import ZoneInfo

    return ZoneInfo(settings.follow.timezone) if settings.follow.timezone else None
