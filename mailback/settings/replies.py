"""The sections about people's mail: its review by a person, what else looks at it, what is done with replies.

Emits no log events.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mailback.settings.section import Section
from mailback.settings.values import (
    AddressOfRoute,
    AddressOrDomain,
    CopyOfRoute,
    EndpointUrl,
    FilePath,
    Owner,
    Scanner,
    TagOfRoute,
)


class ReviewSettings(Section):
    """What waits for a person: `mailback review`."""

    bounce_due_hours: int = Field(
        24,
        ge=1,
        le=8760,
        description=(
            "Hours within which somebody must have decided about a bounce that waits. Replies have deadlines of their "
            "own, by what they ask for (`replies_routes.toml`)."
        ),
    )
    expire_days: int = Field(
        90,
        ge=0,
        le=3650,
        description="Days after which what nobody decided leaves the queue, and nothing is done about it. 0 is never.",
    )
    escalate_unanswered: bool = Field(
        True,
        description=(
            "Put replies for their owner into the review when their deadline passes and nothing went out to the writer "
            "since. The journal tells that, so it must be fed with your answers; while nothing at all goes out by it, "
            "nothing is escalated."
        ),
    )


class SafetySettings(Section):
    """What else looks at people's mail: a virus scanner."""

    clamd: Scanner | None = Field(
        None,
        description=(
            "Socket of a clamd, which is asked about every reply before it is answered for; unset, none is asked. A "
            "clamd that does not answer costs no mail: it goes on, noted as not scanned."
        ),
        examples=["unix:/run/clamav/clamd.ctl"],
    )
    clamd_timeout_s: float = Field(
        10.0, gt=0, le=120, description="Seconds that clamd has for one message; the peer waits meanwhile."
    )
    clamd_max_bytes: int = Field(
        26_214_400,
        ge=1024,
        le=1 << 31,
        description=(
            "Octets of the largest message that is scanned. clamd has a limit of its own, `StreamMaxLength`, which "
            "must not be smaller."
        ),
    )


class LlmSettings(Section):
    """An endpoint that is asked what a reply means where Mailback is not sure, after the mail was answered for. Off
    unless `url` is set: the text of such replies leaves this host."""

    url: EndpointUrl | None = Field(
        None,
        description=(
            "Base of an OpenAI-compatible API, to which `/chat/completions` is added. What it says is a suggestion, "
            "which `mailback review show` shows to the person who decides, and never more. Needs the extra `llm`."
        ),
        examples=["http://127.0.0.1:11434/v1"],
    )
    model: str | None = Field(None, min_length=1, description="Name of the model that is asked.", examples=["qwen3:8b"])
    key_file: FilePath | None = Field(
        None,
        description="File with the key of the API; unset, none is sent, or the one of `key`.",
        examples=["/etc/mailback/llm.key"],
    )
    key: str | None = Field(
        None,
        min_length=1,
        repr=False,
        description="The key itself, best given by the environment. `key_file` outranks it.",
        examples=["sk-..."],
        json_schema_extra={"secret": True, "hidden": True},
    )
    below: float = Field(
        0.6, gt=0, le=1, description="Only replies that were read with less confidence are asked about."
    )
    timeout_s: float = Field(20.0, gt=0, le=300, description="Seconds that the endpoint has for one answer.")
    per_minute: int = Field(10, ge=1, le=10_000, description="Most questions within a minute.")
    per_day: int = Field(500, ge=1, le=10_000_000, description="Most questions of a day (UTC): the budget.")


class RepliesSettings(Section):
    """What people answer: what is done at each route, who is who. Actions of routes are off unless they are set."""

    opt_out_scope: Literal["list", "all"] = Field(
        "list",
        description=(
            "How far an opt-out reaches: `list` holds mail of the list, else of the campaign, that the person answers, "
            "and everything where neither is known; `all` holds everything always."
        ),
    )
    unsafe: Literal["quarantine", "tag"] = Field(
        "quarantine",
        description=(
            "What becomes of a reply that is phishing, abuse or impersonation: held for a person (on Postfix's hold "
            "queue, or in `smtpd.quarantine_to`), or only tagged."
        ),
    )
    malware: Literal["quarantine", "reject", "tag"] = Field(
        "quarantine",
        description="The same for a reply that carries malware, which can be refused with 550 as well.",
    )
    subject_tags: tuple[TagOfRoute, ...] = Field(
        (),
        description="Text put before the subject of replies of a route.",
        examples=[["spam=[SPAM]", "escalate=[CHECK]"]],
    )
    rewrite_to: tuple[AddressOfRoute, ...] = Field(
        (),
        description="Replies of a route are delivered there, and not to whom they were addressed: a queue's mailbox.",
        examples=[["spam=junk@example.com"]],
    )
    copy_to: tuple[CopyOfRoute, ...] = Field(
        (),
        description="Further recipients of replies of a route; `owner` is whose the reply is.",
        examples=[["notify_owner=owner", "require_approval=desk@example.com"]],
    )
    quarantine: tuple[Literal["notify_owner", "auto_archive", "require_approval", "escalate", "spam"], ...] = Field(
        (),
        description="Routes whose replies are held for a person, in the same place as those that are not safe.",
        examples=[["spam"]],
    )
    default_owner: Owner = Field(
        "recipient",
        description=(
            "Whose a reply is where `replies_owners.toml` and the message that it answers tell no owner: `recipient` "
            "is the mailbox that it came to; with `nobody` a person has to claim it."
        ),
    )
    our_names: tuple[str, ...] = Field(
        (),
        description="Display names of your people: a stranger who writes under one is taken for an impostor.",
        examples=[["Mona Lundquist"]],
    )
    allow: tuple[AddressOrDomain, ...] = Field(
        (),
        description="Addresses and domains whose replies are never held, malware excepted.",
        examples=[["customer.example"]],
    )
