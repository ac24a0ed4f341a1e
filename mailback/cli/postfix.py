"""What `mailback doctor` asks of the installed Postfix: the parameters that decide whether Mailback sees mail at all.

Read through `postconf`, so that defaults, main.cf and master.cf count as Postfix itself sees them. Emits no log events.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mailback.cli.diagnosis import Finding
from mailback.locations import sqlite_path
from mailback.settings import listen_address

if TYPE_CHECKING:
    from mailback.settings import Settings

_PARAMETERS = (
    "mail_version", "queue_directory", "smtpd_milters", "non_smtpd_milters", "internal_mail_filter_classes",
    "milter_default_action", "milter_protocol", "milter_content_timeout", "smtpd_policy_service_timeout",
    "smtpd_policy_service_default_action", "proxy_read_maps", "transport_maps", "smtpd_client_restrictions",
    "smtpd_helo_restrictions", "smtpd_sender_restrictions", "smtpd_relay_restrictions",
    "smtpd_recipient_restrictions", "smtpd_data_restrictions", "smtpd_end_of_data_restrictions",
)  # fmt: skip
_RESTRICTIONS = tuple(name for name in _PARAMETERS if name.endswith("_restrictions"))
_TABLE = re.compile(r"\b((?:proxy:)?(?:sqlite|cdb|socketmap|texthash|hash|lmdb):[^\s,{}]+)")
_WITHOUT_MILTER = {
    "accept": "mail passes unread",
    "tempfail": "senders are told to try again",
    "shutdown": "senders are told to try again",
}
"""What `milter_default_action` makes of mail while the milter does not answer (postconf(5))."""
_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Postconf:
    """Postfix's configuration as it stands."""

    values: dict[str, str]
    services: list[list[str]]
    """The fields of each service of master.cf."""

    @classmethod
    def read(cls, folder: Path | None) -> Postconf:
        """Raises OSError or subprocess.SubprocessError where postconf cannot tell."""
        where = ["-c", str(folder.absolute())] if folder else []  # postconf fails silently on a relative path
        told = _output(["postconf", *where, "-x", *_PARAMETERS])
        pairs = (line.partition(" = ")[::2] for line in told.replace(" =\n", " = \n").splitlines())
        services = [line.split(None, 7) for line in _output(["postconf", *where, "-M"]).splitlines()]
        return cls({name.strip(): value.strip() for name, value in pairs}, services)

    def __getitem__(self, name: str) -> str:
        return self.values.get(name, "")

    @property
    def chrooted(self) -> bool:
        """True when an SMTP server of master.cf runs in the queue folder; the fifth field, `-` is no since 3.0."""
        return any(len(s) >= 8 and s[7].split()[0] == "smtpd" and s[4] == "y" for s in self.services)


def _output(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=_TIMEOUT_S).stdout


def examine_postfix(settings: Settings, folder: Path | None = None) -> Iterator[Finding]:
    """What stands in Mailback's way in Postfix's configuration."""
    if shutil.which("postconf") is None:
        yield Finding("postfix", "ok", "Postfix is not installed here: nothing to look at")
        return
    if folder is None and (unset := _not_set_up()) is not None:
        advice = "set Postfix up (docs/postfix.md), or leave it: the receiver needs none"
        yield Finding("postfix", "warn", f"Postfix is installed and not set up: there is no {unset}", advice)
        return
    try:
        postconf = Postconf.read(folder)
    except (OSError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
        yield Finding("postfix", "fail", f"postconf fails: {said[-1] if said else error}", "run `postfix check`")
        return
    yield Finding("postfix", "ok", f"Postfix {postconf['mail_version']}")
    if settings.milter.listen:
        yield from _milter(settings, postconf)
    if settings.policyd.listen:
        yield from _policy(settings, postconf)
    if settings.policyd.socketmap:
        yield from _socketmap(settings, postconf)
    yield from _tables(settings, postconf)


def _not_set_up() -> Path | None:
    """The main.cf that is missing: Debian's package installs without one where it is told "No configuration"."""
    main = _built_in_folder() / "main.cf"
    return None if main.exists() else main


def _built_in_folder() -> Path:
    try:
        return Path(_output(["postconf", "-dh", "config_directory"]).strip())
    except (OSError, subprocess.SubprocessError):
        return Path("/etc/postfix")


# ---- milter ---------------------------------------------------------------------------------------------------------


def _milter(settings: Settings, postconf: Postconf) -> Iterator[Finding]:
    ours = [name for listen in settings.milter.listen for name in _as_postfix(listen, postconf)]
    if not _names(postconf["smtpd_milters"], ours):
        in_master = any(_names(" ".join(service), ours) for service in postconf.services)
        if not in_master:
            advice = f"postconf -e 'smtpd_milters = {ours[0]}' (see milter/README.md)"
            yield Finding("postfix", "fail", "smtpd_milters does not name Mailback's milter: it sees no mail", advice)
            return
    yield Finding("postfix", "ok", "mail that comes by SMTP passes the milter")
    yield from _local_mail(postconf, ours)
    yield from _milter_failure(settings, postconf)
    for listen in settings.milter.listen:
        yield from _socket_reach("milter", listen, postconf)


def _local_mail(postconf: Postconf, ours: list[str]) -> Iterator[Finding]:
    if not _names(postconf["non_smtpd_milters"], ours):
        advice = f"postconf -e 'non_smtpd_milters = {ours[0]}', if local programs send mail of yours"
        what = "non_smtpd_milters does not name the milter: mail from sendmail(1) and Postfix's own bounces pass unseen"
        yield Finding("postfix", "warn", what, advice)
    elif "bounce" not in re.split(r"[,\s]+", postconf["internal_mail_filter_classes"]):
        advice = "postconf -e 'internal_mail_filter_classes = bounce'"
        what = "internal_mail_filter_classes lacks `bounce`: the bounces that Postfix itself writes pass unseen"
        yield Finding("postfix", "warn", what, advice)
    else:
        yield Finding("postfix", "ok", "local mail and Postfix's own bounces pass the milter")


def _milter_failure(settings: Settings, postconf: Postconf) -> Iterator[Finding]:
    """Two questions with an answer each: Mailback is away, which Postfix decides, and it is there but cannot record."""
    action, in_trouble = postconf["milter_default_action"], settings.milter.failure_action
    if action == "reject":
        what = "milter_default_action = reject: while Mailback is down all mail is refused for good"
        yield Finding("postfix", "fail", what, "postconf -e 'milter_default_action = tempfail'")
    elif action == "quarantine":
        what = "milter_default_action = quarantine: while Mailback is down all mail goes to the hold queue and stays"
        advice = "postconf -e 'milter_default_action = tempfail', or release it by hand afterwards: postsuper -H ALL"
        yield Finding("postfix", "warn", what, advice)
    else:
        away = _WITHOUT_MILTER.get(action, action)
        what = f"with Mailback down {away}; with its store in trouble milter.failure_action applies: {in_trouble}"
        yield Finding("postfix", "ok", what)
    protocol = postconf["milter_protocol"]
    if protocol.isdigit() and int(protocol) < 6:
        what = f"milter_protocol = {protocol}: Mailback needs 6 to leave unneeded callbacks out"
        yield Finding("postfix", "fail", what, "postconf -X milter_protocol (the default is 6)")


def _socket_reach(section: str, listen: str, postconf: Postconf) -> Iterator[Finding]:
    """A unix socket that Postfix cannot reach looks like a server that is down."""
    address = listen_address(listen)
    if address.family != "unix":
        return
    path = Path(address.host)
    queue = Path(postconf["queue_directory"])
    if postconf.chrooted and not path.is_relative_to(queue):
        what = f"smtpd runs chrooted in {queue} and cannot see {path}"
        advice = (
            f"put the socket below {queue} (and name it relative to that in smtpd_milters), or take the chroot away"
        )
        yield Finding("postfix", "fail", what, advice)
    if not path.exists():
        return
    closed = next((folder for folder in reversed(path.parents) if not _postfix_may(folder, stat.S_IXOTH)), None)
    if closed is not None:
        what = f"{path}: Postfix may not enter {closed}"
        advice = f"chgrp postfix {closed} && chmod g+x {closed}, or add the user postfix to its group"
        yield Finding("postfix", "fail", what, advice)
    if not _postfix_may(path, stat.S_IWOTH):
        if path.stat().st_mode & stat.S_IWGRP:
            what = f"{path}: Postfix is not in its group, and it is closed to others"
            advice = f'set {section}.socket_group = "postfix", or add the user postfix to that group'
        else:
            what = f"{path}: its group may not write to it, and nobody connects without"
            advice = f'set {section}.socket_mode = "0660"'
        yield Finding("postfix", "fail", what, advice)


def _postfix_may(path: Path, bit: int) -> bool:
    """Whether the user that smtpd and cleanup run as has a right; `bit` is that of others."""
    import pwd

    about = path.stat()
    try:
        user = pwd.getpwnam("postfix")
    except KeyError:
        return bool(about.st_mode & bit)
    if about.st_uid == user.pw_uid:
        return bool(about.st_mode & bit << 6)
    if about.st_gid in os.getgrouplist("postfix", user.pw_gid):
        return bool(about.st_mode & bit << 3)
    return bool(about.st_mode & bit)


# ---- policy service and socketmap -----------------------------------------------------------------------------------


def _policy(settings: Settings, postconf: Postconf) -> Iterator[Finding]:
    ours = [name for listen in settings.policyd.listen for name in _as_postfix(listen, postconf)]
    asked = [name for name in _RESTRICTIONS if _asks_policy(postconf[name], ours)]
    asked += [s[0] for s in postconf.services if _asks_policy(" ".join(s), ours)]
    if not asked:
        if not settings.milter.listen and not settings.policyd.socketmap:
            advice = f"add `check_policy_service {{ {ours[0]}, timeout=10s, default_action=DUNNO }}` to "
            what = "no restriction asks Mailback's policy service: suppressed addresses are mailed"
            yield Finding("postfix", "fail", what, advice + "smtpd_recipient_restrictions")
        return
    yield Finding("postfix", "ok", f"{', '.join(asked)} asks the policy service")
    for listen in settings.policyd.listen:
        yield from _socket_reach("policyd", listen, postconf)
    for name in asked:
        text = postconf[name]
        if not text or ("default_action" in text and "timeout" in text):
            continue
        what = (
            f"{name} asks without timeout and default_action: with Mailback down a client waits "
            f"{postconf['smtpd_policy_service_timeout']} and gets {postconf['smtpd_policy_service_default_action']}"
        )
        advice = f"write it as `check_policy_service {{ {ours[0]}, timeout=10s, default_action=DUNNO }}`"
        yield Finding("postfix", "warn", what, advice)


def _asks_policy(text: str, ours: list[str]) -> bool:
    return "check_policy_service" in text and _names(text, ours)


def _socketmap(settings: Settings, postconf: Postconf) -> Iterator[Finding]:
    ours = [f"socketmap:{n}" for listen in settings.policyd.socketmap for n in _as_postfix(listen, postconf)]
    users = [name for name, value in postconf.values.items() if any(our in value for our in ours)]
    if users:
        yield Finding("postfix", "ok", f"{', '.join(users)} asks the socketmap")
        for listen in settings.policyd.socketmap:
            yield from _socket_reach("policyd", listen, postconf)
    else:
        what = "no table of Postfix is Mailback's socketmap"
        advice = f"postconf -e 'transport_maps = {ours[0]}:transport', or take policyd.socketmap out of the settings"
        yield Finding("postfix", "warn", what, advice)


# ---- tables ---------------------------------------------------------------------------------------------------------


def _tables(settings: Settings, postconf: Postconf) -> Iterator[Finding]:
    live = sqlite_path(settings.store.url)
    allowed = postconf["proxy_read_maps"]
    named = {table for name in ("transport_maps", *_RESTRICTIONS) for table in _TABLE.findall(postconf[name])}
    for table in sorted(named):
        if table.startswith("proxy:") and table.removeprefix("proxy:") not in allowed and table not in allowed:
            advice = f"add it to proxy_read_maps: postconf -e 'proxy_read_maps = $proxy_read_maps {table}'"
            yield Finding("postfix", "warn", f"{table} may not be in proxy_read_maps", advice)
        kind, _, source = table.removeprefix("proxy:").partition(":")
        if kind == "sqlite" and live is not None and _dbpath(Path(source)) == live.resolve():
            yield from _live_table(table, live)


def _dbpath(source: Path) -> Path | None:
    """The database that a `sqlite:` table of Postfix reads."""
    try:
        match = re.search(r"^\s*dbpath\s*=\s*(\S+)", source.read_text("utf-8", "replace"), re.MULTILINE)
    except OSError:
        return None
    return Path(match[1]).resolve() if match else None


def _live_table(table: str, live: Path) -> Iterator[Finding]:
    """Postfix on the live database works in one set-up only; in all others smtpd dies or the writer is locked out."""
    folder, file = stat.S_IMODE(live.parent.stat().st_mode), stat.S_IMODE(live.stat().st_mode)
    if (folder, file) == (0o2770, 0o660) and live.parent.stat().st_gid == live.stat().st_gid:
        what = f"{table} reads the live database; folder and file modes are the ones that work"
        yield Finding("postfix", "warn", what, "keep umask 007 for Mailback; a socketmap or an export is safer")
        return
    what = f"{table} reads the live database in a set-up that ends in fatal errors of smtpd"
    advice = "use the policy service or a socketmap, or an export: mailback suppress export --format postfix-sqlite"
    yield Finding("postfix", "fail", what, advice)


# ---- names ----------------------------------------------------------------------------------------------------------


def _as_postfix(listen: str, postconf: Postconf) -> list[str]:
    """How Postfix may name an address of ours, best first."""
    address = listen_address(listen)
    if address.family == "unix":
        queue = postconf["queue_directory"].rstrip("/") + "/"
        inside = [f"unix:{address.host.removeprefix(queue)}"] if address.host.startswith(queue) else []
        return [*inside, f"unix:{address.host}"]
    if address.family == "fd":
        return [address.host]
    host = {"*": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(address.host, address.host)  # noqa: S104
    hosts = [f"[{host}]" if ":" in host and not host.startswith("[") else host]
    if host in {"127.0.0.1", "::1", "[::1]"}:
        hosts.append("localhost")
    return [f"inet:{name}:{address.port}" for name in hosts]


def _names(text: str, ours: list[str]) -> bool:
    return any(re.search(re.escape(our) + r"(?![\w./])", text) for our in ours)
