"""The whole configuration: which sections there are, and how a file becomes settings. Emits no log events."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from pydantic import Field
from pydantic.fields import FieldInfo

from mailback import locations
from mailback.settings.consequences import (
    BreakerSettings,
    CaptureSettings,
    HygieneSettings,
    PolicySettings,
    ProviderSettings,
    RetrySettings,
    ScoreSettings,
)
from mailback.settings.contradictions import conflicts, warnings
from mailback.settings.doors import FollowSettings, MilterSettings, PolicydSettings, SmtpdSettings, WebSettings
from mailback.settings.ours import AuthSettings, JournalSettings, MailSettings, SigningSettings, TrustSettings
from mailback.settings.problems import SettingsError
from mailback.settings.reading import Document
from mailback.settings.replies import LlmSettings, RepliesSettings, ReviewSettings, SafetySettings
from mailback.settings.running import LimitSettings, LogSettings, RulesSettings, ServiceSettings, StoreSettings
from mailback.settings.section import Section, is_fixed, keys_of


class Settings(Section):
    """The whole configuration; attribute names are the keys of the file."""

    store: StoreSettings = Field(default_factory=StoreSettings)
    mail: MailSettings = Field(default_factory=MailSettings)
    smtpd: SmtpdSettings = Field(default_factory=SmtpdSettings)
    milter: MilterSettings = Field(default_factory=MilterSettings)
    policyd: PolicydSettings = Field(default_factory=PolicydSettings)
    follow: FollowSettings = Field(default_factory=FollowSettings)
    web: WebSettings = Field(default_factory=WebSettings)
    signing: SigningSettings = Field(default_factory=SigningSettings)
    journal: JournalSettings = Field(default_factory=JournalSettings)
    auth: AuthSettings = Field(default_factory=AuthSettings)
    trust: TrustSettings = Field(default_factory=TrustSettings)
    policy: PolicySettings = Field(default_factory=PolicySettings)
    review: ReviewSettings = Field(default_factory=ReviewSettings)
    safety: SafetySettings = Field(default_factory=SafetySettings)
    llm: LlmSettings = Field(default_factory=LlmSettings)
    replies: RepliesSettings = Field(default_factory=RepliesSettings)
    score: ScoreSettings = Field(default_factory=ScoreSettings)
    breakers: BreakerSettings = Field(default_factory=BreakerSettings)
    providers: ProviderSettings = Field(default_factory=ProviderSettings)
    retry: RetrySettings = Field(default_factory=RetrySettings)
    capture: CaptureSettings = Field(default_factory=CaptureSettings)
    hygiene: HygieneSettings = Field(default_factory=HygieneSettings)
    rules: RulesSettings = Field(default_factory=RulesSettings)
    limits: LimitSettings = Field(default_factory=LimitSettings)
    log: LogSettings = Field(default_factory=LogSettings)
    service: ServiceSettings = Field(default_factory=ServiceSettings)

    @classmethod
    def load(
        cls, path: str | Path | None = None, *, environ: Mapping[str, str] = os.environ, files: bool = True
    ) -> Self:
        """Read and check the configuration in force (`locations.find_config` says which file that is).

        `files=False` leaves out the checks that open other files (certificates, rules): for commands that a person may
        run without the right to read the server's keys. Raises SettingsError with every problem at once.
        """
        found = locations.find_config(path, environ)
        return cls._checked(Document.read(found, environ, cls), files=files)

    @classmethod
    def loads(cls, text: str, *, environ: Mapping[str, str] | None = None, files: bool = True) -> Self:
        """As `load`, from a text."""
        return cls._checked(Document.parse("mailback.toml", text, environ or {}, cls), files=files)

    @classmethod
    def _checked(cls, document: Document[Self], *, files: bool) -> Self:
        settings, bad = document.validated()
        document.blame_missing(bad)
        for conflict in conflicts(settings, files=files):
            if bad.isdisjoint(conflict.keys):
                document.blame(conflict)
        if document.problems:
            raise SettingsError(sorted(document.problems, key=lambda problem: problem.line))
        return settings

    @cached_property
    def accepted_domains(self) -> frozenset[str]:
        """Recipient domains that the receiver takes mail for from anybody."""
        if self.smtpd.domains is not None:
            return frozenset(self.smtpd.domains)
        return frozenset((*self.mail.sending_domains, *filter(None, [self.mail.bounce_domain])))

    @property
    def authserv_id(self) -> str:
        """The name that results of authentication are written under."""
        name = self.auth.authserv_id or self.mail.host_name
        # A host without a name has an address for one, which would have to be quoted (RFC 8601 section 2.2).
        return name if re.fullmatch(r"[A-Za-z0-9._-]{1,255}", name) else "localhost"

    @property
    def quarantine_route(self) -> str:
        """Where the receiver puts replies that are held for a person."""
        return self.smtpd.quarantine_to or f"maildir:{self.service.state_directory / 'quarantine'}"

    @property
    def serves(self) -> bool:
        """Whether `mailback serve` has anything to do."""
        listens = (self.smtpd.listen, self.milter.listen, self.policyd.listen, self.policyd.socketmap, self.web.listen)
        return any(listens) or self.follow.on

    def warnings(self) -> list[str]:
        """What can be run but is hardly meant; `mailback config check` and the server's start tell it."""
        return list(warnings(self))

    def needs_restart(self, newer: Settings) -> list[str]:
        """Keys that differ in `newer` and that a reload cannot change."""
        return [
            f"{section}.{key}"
            for section, key, field in all_keys()
            if is_fixed(field) and getattr(getattr(self, section), key) != getattr(getattr(newer, section), key)
        ]

    def keeping_fixed(self, older: Settings) -> Self:
        """These settings, with the values of `older` for the keys that a reload cannot change."""
        kept: dict[str, dict[str, Any]] = {}
        for name in older.needs_restart(self):
            section, key = name.split(".")
            kept.setdefault(section, {})[key] = getattr(getattr(older, section), key)
        return self.model_copy(
            update={section: getattr(self, section).model_copy(update=values) for section, values in kept.items()}
        )


def all_keys() -> Iterator[tuple[str, str, FieldInfo]]:
    """Every key there is, in order: section, key, field."""
    return keys_of(Settings)
