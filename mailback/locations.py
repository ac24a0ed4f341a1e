"""Where the configuration and the state lie when nobody says; cheap to import (no pydantic, no store).

`mailback check` answers from here and from `[store]` alone: validating every setting would cost it more time than the
look-up it was asked for. The full settings (`mailback.settings`) take their defaults from the same functions, so the
two cannot disagree. Emits no log events.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

CONFIG_VARIABLE = "MAILBACK_CONFIG"
SYSTEM_CONFIG = Path("/etc/mailback/mailback.toml")
DATABASE = "mailback.db"
SCHEMES = ("sqlite", "postgresql", "postgresql+psycopg")


def find_config(path: str | Path | None = None, environ: Mapping[str, str] = os.environ) -> Path | None:
    """The file in force: the one named, else $MAILBACK_CONFIG, else the system's, else None (all defaults)."""
    if path is not None:
        return Path(path)
    if named := environ.get(CONFIG_VARIABLE):
        return Path(named)
    return SYSTEM_CONFIG if SYSTEM_CONFIG.is_file() else None


def state_directory(environ: Mapping[str, str] = os.environ) -> Path:
    """The folder of the database when none is set: systemd's StateDirectory, else the XDG state folder."""
    if assigned := environ.get("STATE_DIRECTORY"):
        return Path(assigned.split(":")[0])  # systemd separates several by colons
    state_home = environ.get("XDG_STATE_HOME", "")
    base = Path(state_home) if state_home.startswith("/") else Path.home() / ".local" / "state"
    return base / "mailback"  # the XDG specification has relative values ignored


def default_store_url(directory: Path | None = None) -> str:
    """The embedded store: one SQLite file below the state folder."""
    return f"sqlite:///{(directory or state_directory()).absolute() / DATABASE}"


def sqlite_path(url: str) -> Path | None:
    """The database file of a `sqlite:` URL, or None for any other store."""
    if not url.startswith("sqlite:///"):
        return None
    path = url.removeprefix("sqlite:///").partition("?")[0]
    return Path(path) if path and path != ":memory:" else None


def with_password(url: str, password: str) -> str:
    """The URL with its password set (percent-encoded); the file that holds it ends in a newline as a rule."""
    parts = urlsplit(url)
    user, _, host = parts.netloc.rpartition("@")
    name = user.partition(":")[0]
    return urlunsplit(parts._replace(netloc=f"{name}:{quote(password.rstrip(chr(13) + chr(10)), safe='')}@{host}"))


def masked(url: str) -> str:
    """The URL with its password hidden, fit to be shown."""
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    name, colon, _ = user.partition(":")
    netloc = f"{name}{':***' if colon else ''}{at}{host}"
    query = "&".join(
        f"{name}=***" if name.lower() in {"password", "sslpassword"} else field
        for field in parts.query.split("&")
        for name in (field.partition("=")[0],)
    )
    if (netloc, query) == (parts.netloc, parts.query):
        return url  # putting it together again would turn sqlite:////path into something else
    return urlunsplit(parts._replace(netloc=netloc, query=query))


def store_url(path: str | Path | None = None, environ: Mapping[str, str] = os.environ) -> str:
    """The store's URL, read without validating anything else.

    Raises OSError or tomllib.TOMLDecodeError for a file that cannot be read, ValueError for a value of the wrong type:
    the caller then loads the full settings, which tell every problem with its line.
    """
    found = find_config(path, environ)
    document = tomllib.loads(found.read_bytes().decode("utf-8-sig")) if found else {}
    store, service = document.get("store", {}), document.get("service", {})
    url = environ.get("MAILBACK_STORE_URL") or store.get("url")
    password_file = environ.get("MAILBACK_STORE_PASSWORD_FILE") or store.get("password_file")
    directory = environ.get("MAILBACK_SERVICE_STATE_DIRECTORY") or service.get("state_directory")
    if url is None:
        return default_store_url(Path(directory) if directory else state_directory(environ))
    if not isinstance(url, str) or url.partition(":")[0] not in SCHEMES:
        raise ValueError("store.url")
    if password_file:
        url = with_password(url, Path(password_file).read_text("utf-8"))
    return absolute(url)


def absolute(url: str) -> str:
    """The URL with a relative SQLite path made absolute, so that a later change of folder does not move the store."""
    path = sqlite_path(url)
    if path is None or path.is_absolute():
        return url
    query = url.partition("?")[2]
    return f"sqlite:///{path.absolute()}" + (f"?{query}" if query else "")
