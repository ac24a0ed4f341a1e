"""The configuration: every key with its type, default, meaning and checks.

The fields of the sections are the one source. `config/mailback.toml` and `docs/configuration.md` are written from them
(`mailback config show --template`, `--reference`) and a test holds the three equal.

A file that is wrong is told whole: `Settings.load` raises `SettingsError` with *every* problem, each with its line and
with what was expected instead. Any key can be set from the environment too (`MAILBACK_STORE_URL` is `url` of
`[store]`); the environment outranks the file.

Reading order: `schema` (the sections there are), a file a group of sections (`ours`, `doors`, `consequences`,
`replies`, `running`), `values` and `listening` (what a key takes), `reading` (a file to settings or problems),
`contradictions` (what is wrong between keys). Emits no log events: the caller shows the problems.
"""

from mailback.settings.consequences import (
    BreakerSettings,
    CaptureSettings,
    HygieneSettings,
    PolicySettings,
    ProviderSettings,
    RetrySettings,
    ScoreSettings,
)
from mailback.settings.doors import FollowSettings, MilterSettings, PolicydSettings, SmtpdSettings, WebSettings
from mailback.settings.listening import Address, listen_address
from mailback.settings.ours import AuthSettings, JournalSettings, MailSettings, SigningSettings, TrustSettings
from mailback.settings.problems import Problem, SettingsError
from mailback.settings.replies import LlmSettings, RepliesSettings, ReviewSettings, SafetySettings
from mailback.settings.running import LimitSettings, LogSettings, RulesSettings, ServiceSettings, StoreSettings
from mailback.settings.schema import Settings, all_keys
from mailback.settings.section import Section, is_fixed, is_hidden, is_secret, variable
from mailback.settings.values import ROUTES, expected

__all__ = [
    "ROUTES",
    "Address",
    "AuthSettings",
    "BreakerSettings",
    "CaptureSettings",
    "FollowSettings",
    "HygieneSettings",
    "JournalSettings",
    "LimitSettings",
    "LlmSettings",
    "LogSettings",
    "MailSettings",
    "MilterSettings",
    "PolicySettings",
    "PolicydSettings",
    "Problem",
    "ProviderSettings",
    "RepliesSettings",
    "RetrySettings",
    "ReviewSettings",
    "RulesSettings",
    "SafetySettings",
    "ScoreSettings",
    "Section",
    "ServiceSettings",
    "Settings",
    "SettingsError",
    "SigningSettings",
    "SmtpdSettings",
    "StoreSettings",
    "TrustSettings",
    "WebSettings",
    "all_keys",
    "expected",
    "is_fixed",
    "is_hidden",
    "is_secret",
    "listen_address",
    "variable",
]
