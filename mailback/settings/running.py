"""The sections about how Mailback runs: store, rules, limits of reading, log, processes.

Emits no log events.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from mailback import locations
from mailback.settings.section import RESTART, Section
from mailback.settings.values import FilePath, StoreUrl

if TYPE_CHECKING:
    from mailback.message import Limits


class StoreSettings(Section):
    """Where events, suppressions and the audit trail are kept."""

    url: StoreUrl = Field(
        default_factory=locations.default_store_url,
        description=(
            "The database. SQLite is the embedded default and needs no other service; its file must lie on "
            "a local disk (never NFS), in a folder that only Mailback may write to. Unset: `mailback.db` in "
            "`service.state_directory`."
        ),
        examples=["sqlite:////var/lib/mailback/mailback.db"],
        repr=False,
        json_schema_extra={"secret": True, **RESTART},
    )
    password_file: FilePath | None = Field(
        None,
        description=(
            "File whose content is the password of a database server. This version has SQLite only, which takes none: "
            "leave it unset."
        ),
        examples=["/etc/mailback/store.password"],
        json_schema_extra=RESTART,
    )
    busy_timeout_s: float = Field(
        5.0,
        gt=0,
        le=300,
        description=(
            "Seconds that a commit waits for another process to finish its own before it gives up. The peer "
            "is then answered 451 and keeps the mail."
        ),
    )
    keep_raw: Literal["never", "review", "all"] = Field(
        "review",
        description=(
            "Which messages are kept as they came in, for a person to read (`mailback store message`): those that wait "
            "for a review (at most 500 an hour), all, or none. They are packed, and cut after 64 kB."
        ),
    )
    raw_retention_days: int = Field(
        30,
        ge=1,
        le=3650,
        description="Days that a message is kept as it came in; `mailback store maintain` removes older ones.",
    )
    retention_days: int = Field(
        730,
        ge=30,
        le=36_500,
        description=(
            "Days that an event is kept; `mailback store maintain` removes older ones, except those behind a "
            "suppression that stands, an open review or a message still to be sent again. Statistics, `explain` and "
            "`hygiene` know nothing older; suppressions, their history and the audit trail stay. A report or log that "
            "is older than that and read again is an event again."
        ),
    )


class RulesSettings(Section):
    """The rules: patterns, provider quirks, and what is done about each cause."""

    directory: FilePath | None = Field(
        None,
        description=(
            "Folder of your own rule files, named like those that ship (`config/rules/`); they extend and "
            "override them."
        ),
        examples=["/etc/mailback/rules"],
    )


class LimitSettings(Section):
    """Caps of reading one message; past one it is still accepted, and recorded as truncated."""

    max_parts: int = Field(1000, ge=1, le=100_000, description="MIME parts that are read, attached messages' included.")
    max_depth: int = Field(50, ge=1, le=500, description="Levels of nested parts and attached messages.")
    max_header_bytes: int = Field(1 << 20, ge=1024, le=1 << 26, description="Octets of all header blocks together.")
    max_headers: int = Field(2000, ge=10, le=100_000, description="Header fields of one header block.")
    max_text_bytes: int = Field(
        1 << 20, ge=1024, le=1 << 28, description="Octets of one part that are decoded and searched."
    )
    max_recipients: int = Field(20_000, ge=1, le=1_000_000, description="Recipients that are kept of one report.")

    def message_limits(self) -> Limits:
        """These limits as the reader of messages takes them."""
        from mailback.message import Limits

        return Limits(
            max_parts=self.max_parts,
            max_depth=self.max_depth,
            max_header_bytes=self.max_header_bytes,
            max_headers=self.max_headers,
            max_text_bytes=self.max_text_bytes,
            max_groups=self.max_recipients,
        )


class LogSettings(Section):
    """The log, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        "info",
        description=("The least that is logged."),
    )
    format: Literal["auto", "text", "json"] = Field(
        "auto", description="`text` is for people, `json` for machines; `auto` is text."
    )
    addresses: bool = Field(
        False, description="Write whole addresses to the log. Otherwise only their domains are written."
    )


class ServiceSettings(Section):
    """The processes."""

    user: str | None = Field(
        None,
        min_length=1,
        description=(
            "User to become after the sockets are open; only root can. Unset: stay as started (systemd sets the user)."
        ),
        examples=["mailback"],
        json_schema_extra=RESTART,
    )
    group: str | None = Field(
        None,
        min_length=1,
        description="Group to become. Unset: the primary group of `user`.",
        examples=["mailback"],
        json_schema_extra=RESTART,
    )
    state_directory: FilePath = Field(
        default_factory=locations.state_directory,
        description=(
            "Folder of the models that were promoted, of what is held in quarantine, and of the database when "
            "`store.url` is unset. Unset: the folder of the SQLite file of `store.url`; where that is unset too, "
            "`$STATE_DIRECTORY` (set by systemd), else `$XDG_STATE_HOME/mailback`, else `~/.local/state/mailback`."
        ),
        examples=["/var/lib/mailback"],
        json_schema_extra=RESTART,
    )
