"""What is wrong between keys that are each right by themselves, and what is right but hardly meant.

`conflicts` opens the files that keys name where it is asked to. Emits no log events.
"""

from __future__ import annotations

import grp
import pwd
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from mailback.settings.doors import SmtpdSettings
from mailback.settings.listening import Address, listen_address
from mailback.settings.ours import SigningSettings
from mailback.settings.problems import Conflict
from mailback.settings.replies import LlmSettings

if TYPE_CHECKING:
    from mailback.settings.schema import Settings


def conflicts(settings: Settings, *, files: bool) -> Iterator[Conflict]:
    yield from _endpoint_conflicts(settings.llm)
    yield from _listen_conflicts(settings)
    yield from _receiver_conflicts(settings.smtpd)
    if settings.signing.secret_file and not settings.mail.bounce_domain:
        yield Conflict(
            ("signing.secret_file", "mail.bounce_domain"),
            "return paths are signed in a domain of their own, and none is named",
            "`mail.bounce_domain`, or no `secret_file`",
        )
    if files:
        yield from _file_conflicts(settings)
        yield from _missing_extras(settings)


def _missing_extras(settings: Settings) -> Iterator[Conflict]:
    """Sections that need packages of an extra which is not installed here."""
    for key, used, extra, packages in (
        ("web.listen", bool(settings.web.listen), "web", ("fastapi", "uvicorn")),
        ("llm.url", settings.llm.url is not None, "llm", ("httpx",)),
    ):
        missing = [package for package in packages if used and find_spec(package) is None]
        if missing:
            what = f"needs packages that are not installed: {', '.join(missing)}"
            yield Conflict((key,), what, f"them (pip install 'mailback[{extra}]'), or no `{key.partition('.')[2]}`")


def _endpoint_conflicts(llm: LlmSettings) -> Iterator[Conflict]:
    if llm.url is not None and llm.model is None:
        yield Conflict(("llm.model", "llm.url"), "is missing: the endpoint has to be told which model", "its name")


def _listen_conflicts(settings: Settings) -> Iterator[Conflict]:
    """Two parts, or one twice, on the same address: the second could not start."""
    seen: list[tuple[str, str, Address]] = []
    for key in ("smtpd.listen", "milter.listen", "policyd.listen", "policyd.socketmap", "web.listen"):
        section, name = key.split(".")
        for listen in getattr(getattr(settings, section), name):
            address = listen_address(listen)
            taken = next((f"{listen_} of {key_}" for key_, listen_, other in seen if other.collides(address)), None)
            if taken is not None:
                yield Conflict((key,), f'"{listen}" is already taken by {taken}', "an address of its own")
            seen.append((key, f'"{listen}"', address))


def _receiver_conflicts(smtpd: SmtpdSettings) -> Iterator[Conflict]:
    if smtpd.quarantine_to == "discard":
        yield Conflict(
            ("smtpd.quarantine_to",), "what is held for a person would be thrown away", "a Maildir or server"
        )
    for key in ("next_hop", "bounces_to", "quarantine_to"):
        route: str | None = getattr(smtpd, key)
        if route and any(_leads_to(route, listen) for listen in smtpd.listen):
            yield Conflict(
                (f"smtpd.{key}", "smtpd.listen"),
                f'"{route}" is the receiver itself: mail would go round for ever',
                "another server, a Maildir or discard",
            )
    if smtpd.tls_key_file and not smtpd.tls_certificate_file:
        yield Conflict(
            ("smtpd.tls_key_file", "smtpd.tls_certificate_file"), "a key without a certificate", "both, or neither"
        )
    if smtpd.tls_required and not smtpd.tls_certificate_file:
        yield Conflict(
            ("smtpd.tls_required", "smtpd.tls_certificate_file"),
            "TLS cannot be asked for without a certificate",
            "`tls_certificate_file`",
        )
    if smtpd.proxy_protocol and not smtpd.proxy_clients:
        yield Conflict(
            ("smtpd.proxy_clients", "smtpd.proxy_protocol"),
            "nobody's PROXY header would be believed",
            "the proxy's address",
        )


def _leads_to(route: str, listen: str) -> bool:
    scheme, _, place = route.partition(":")
    return scheme in {"smtp", "lmtp"} and listen_address(place).collides(listen_address(listen))


def _file_conflicts(settings: Settings) -> Iterator[Conflict]:
    for key, path in (
        ("smtpd.tls_certificate_file", settings.smtpd.tls_certificate_file),
        ("smtpd.tls_key_file", settings.smtpd.tls_key_file),
        ("web.key_file", settings.web.key_file),
        ("llm.key_file", settings.llm.key_file),
    ):
        if path is not None and (reason := _unreadable(path)):
            yield Conflict((key,), f"{path}: {reason}", "a file that this user can read")
    api = settings.web.key_file
    if api is not None and not _unreadable(api) and not api.read_bytes().strip():
        yield Conflict(("web.key_file",), f"{api} is empty: the API would be off", "a key of some 40 characters")
    secret = settings.signing.secret_file
    if secret is not None and (reason := _unreadable(secret)):
        yield Conflict(
            ("signing.secret_file",),
            f"{secret}: {reason}",
            "a file that this user can read; `mailback signing keygen` makes one",
        )
    yield from _key_conflicts(settings.signing)
    yield from _account_conflicts(settings)
    directory = settings.rules.directory
    if directory is not None and not directory.is_dir():
        yield Conflict(("rules.directory",), f"{directory} is no folder", "an existing folder with your rule files")
    yield from _certificate_conflicts(settings.smtpd)


def _account_conflicts(settings: Settings) -> Iterator[Conflict]:
    """Users and groups that this host does not have."""
    named: tuple[tuple[str, str | None, Callable[[str], object]], ...] = (
        ("service.user", settings.service.user, _user),
        ("service.group", settings.service.group, _group),
        ("milter.socket_group", settings.milter.socket_group, grp.getgrnam),
        ("policyd.socket_group", settings.policyd.socket_group, grp.getgrnam),
    )
    for key, name, look_up in named:
        try:
            if name is not None:
                look_up(name)
        except (KeyError, OverflowError):
            kind = "user" if key.endswith("user") else "group"
            yield Conflict((key,), f"there is no {kind} {name!r}", f"a {kind} of this host")


def _user(name: str) -> object:
    return pwd.getpwuid(int(name)) if name.isdigit() else pwd.getpwnam(name)


def _group(name: str) -> object:
    return int(name) if name.isdigit() else grp.getgrnam(name)  # a number needs no entry


def _key_conflicts(signing: SigningSettings) -> Iterator[Conflict]:
    from mailback.returnpath.keys import KeyFileError, Keys

    if signing.secret_file is None or _unreadable(signing.secret_file):
        return
    try:
        Keys.load(signing.secret_file)
    except KeyFileError as error:
        for problem in error.problems:
            yield Conflict(("signing.secret_file",), problem, "a key file as `mailback signing keygen` makes it")


def _unreadable(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:
        return error.strerror or str(error)
    return None


def _certificate_conflicts(smtpd: SmtpdSettings) -> Iterator[Conflict]:
    certificate, key = smtpd.tls_certificate_file, smtpd.tls_key_file
    if certificate is None or _unreadable(certificate) or (key is not None and _unreadable(key)):
        return
    import ssl  # only who offers TLS pays for loading it

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except (ssl.SSLError, OSError) as error:
        reason = "the key is another certificate's" if "KEY_VALUES_MISMATCH" in str(error) else str(error)
        yield Conflict(
            ("smtpd.tls_certificate_file", "smtpd.tls_key_file"),
            f"{certificate} cannot be used: {reason}",
            "a PEM certificate chain and its own key",
        )


_PRIVATE_URLS = (
    "http://127.",
    "http://localhost",
    "http://[::1]",
    "https://127.",
    "https://localhost",
    "https://[::1]",
)


def warnings(settings: Settings) -> Iterator[str]:
    if not settings.serves:
        yield "nothing listens or is followed: no section has a `listen`, so `mailback serve` has nothing to serve"
    if settings.smtpd.listen and not settings.accepted_domains:
        yield "[smtpd] accepts mail from trusted_clients only: set mail.sending_domains or smtpd.domains"
    if any(network.endswith("/0") for network in settings.smtpd.trusted_clients):
        yield "[smtpd] trusted_clients holds the whole internet: this is an open relay"
    if any(network.endswith("/0") for network in settings.smtpd.proxy_clients) and settings.smtpd.proxy_protocol:
        yield "[smtpd] proxy_clients holds the whole internet: anybody can claim any client address"
    if settings.trust.require == "always":
        yield 'trust.require is "always": reports that prove nothing suppress nobody, they wait for a person'
    if settings.llm.url is not None and not settings.llm.url.startswith(_PRIVATE_URLS):
        yield "[llm] url: the text of replies that are read with little confidence leaves this host"
    if any(listen_address(listen).family == "tcp" for listen in settings.milter.listen):
        yield "[milter] listens on a TCP port: the protocol stalls about 88 ms a message there, a unix socket does not"
