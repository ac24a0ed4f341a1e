"""The words of free-text reports, loaded from `config/rules/dialects.toml`: labels, separators, words that tell a kind.

Log events: none. A wrong file raises ValueError that names the file and the key; the shipped file is held to be right
by a test.

Look-ups are dictionary and set look-ups, or one compiled pattern, because they run for each address of each report.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mailback.reports.phrases import says

FILE = "dialects.toml"

_LABEL_WORDS = 4  # words at the end of a line that may be a label
_WORD = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*")
_NOT_LETTERS = re.compile(r"[^\w\s\-/()]+|\s+")


@dataclass(frozen=True, slots=True)
class Server:
    """A dialect by name, with what gives it away."""

    name: str
    text: tuple[str, ...]
    """Phrases of the explanation; one is enough. Lower case."""
    mailer: str
    """A phrase of its X-Mailer field, lower case; empty where it has none of its own."""


@dataclass(frozen=True, slots=True)
class Dialects:
    """Everything the free-text reader knows of servers and languages."""

    returned: re.Pattern[str]
    """Lines after which the returned message stands, in lower case."""
    labels: dict[str, str]
    """Lower-case label -> `recipient`, `sender` or `summary`."""
    objects: frozenset[str]
    """Words directly before an address that make it the object of a failed delivery."""
    object_endings: tuple[str, ...]
    """The same for languages without spaces, as endings."""
    contacts: frozenset[str]
    """Words before an address that is to be asked, not to be reached."""
    contact_pieces: tuple[str, ...]
    """The same for languages without spaces, as pieces."""
    introductions: tuple[str, ...]
    """What the line above an address says that is to be written to, or that wrote; lower case."""
    roles: tuple[str, ...]
    """Beginnings of local parts that are never a person's address."""
    machines: frozenset[str]
    """Local parts that only mail servers send from."""
    machine_headers: tuple[str, ...]
    """Header fields that only programs set which handle mail of others, lower case."""
    list_endings: tuple[str, ...]
    """What mailing-list servers put behind the name of a list to write from, lower case."""
    machine_names: re.Pattern[str]
    """In display names, lower case, the words that only mail servers use of themselves."""
    machine_full_names: frozenset[str]
    """Whole display names that only mail servers send under, lower case."""
    failed_subjects: tuple[str, ...]
    delayed_subjects: tuple[str, ...]
    delivered_subjects: tuple[str, ...]
    failed_texts: tuple[str, ...]
    permanent_texts: tuple[str, ...]
    """Phrases that say outright that a server has given up."""
    delayed_texts: tuple[str, ...]
    delivered_texts: tuple[str, ...]
    list_refusal_texts: tuple[str, ...]
    """Phrases by which a mailing-list server refuses a posting; they tell nothing where anybody else writes them."""
    servers: tuple[Server, ...]

    def label(self, text: str) -> str | None:
        """What the label `text` announces, by its last words: `Failed recipient`, `Empfänger`, `宛先`.

        A summary label counts only by itself: `To:` quotes a header field, `could not be delivered to:` does not and
        is an `object`.
        """
        words = _NOT_LETTERS.sub(" ", text.lower()).strip()
        role = self.labels.get(words)
        for _ in range(5):
            if role is not None:
                return role
            _, space, words = words.partition(" ")
            if not space:
                return None
            words = words.lstrip()
            role = self.labels.get(words)
            if role == "summary":
                return "object"
        return None

    def names_object(self, before: str) -> bool:
        """True when what stands right before an address makes it whom the mail was for."""
        stem = before.rstrip(" \t:：<\"'([「『*").lower()
        if stem.endswith(self.object_endings):
            return True
        return bool(stem) and stem.rsplit(None, 1)[-1].strip("\"'(,;.") in self.objects

    def asks_for_contact(self, before: str) -> bool:
        """True when the words before an address invite to write there."""
        lower = before.lower()
        if not self.contacts.isdisjoint(_WORD.findall(lower)):
            return True
        return not lower.isascii() and says(lower, self.contact_pieces)

    def introduces(self, line: str) -> bool:
        """True when a line above an address tells that it is to be asked, or wrote; not that delivery to it failed."""
        lower = line.strip().lower()
        if not says(lower, self.introductions):
            return False
        return self.label(" ".join(lower.split()[-_LABEL_WORDS:])) != "recipient" and not says(lower, self.failed_texts)

    def is_role(self, address: str) -> bool:
        """True for addresses of machines and help desks, and those that a mailing-list server writes from."""
        lower = address.lower()
        return lower.startswith(self.roles) or lower.partition("@")[0].endswith(self.list_endings)

    def server(self, told: Set[str], mailer: str) -> str | None:
        """The name of the dialect, for the evidence: by the servers whose phrases the text has, and by X-Mailer."""
        for server in self.servers:
            if server.name in told or (server.mailer and server.mailer in mailer):
                return server.name
        return None


def load(directories: Sequence[Path]) -> Dialects:
    """Read the file from each directory that has one; lists of later files extend those of earlier ones.

    Raises ValueError, naming file and key, for data of the wrong shape, and OSError when no directory has the file.
    """
    merged: dict[str, Any] = {}
    found = [directory / FILE for directory in directories if (directory / FILE).is_file()]
    if not found:
        raise FileNotFoundError(f"{FILE} is in none of {', '.join(str(directory) for directory in directories)}")
    for path in found:
        try:
            _merge(merged, tomllib.loads(path.read_text(encoding="utf-8")))
        except (tomllib.TOMLDecodeError, TypeError) as wrong:
            raise ValueError(f"{path}: {wrong}") from wrong
    try:
        return _build(merged)
    except (KeyError, TypeError, AttributeError, re.error) as wrong:
        raise ValueError(f"{found[-1]}: missing or wrong entry {wrong}") from wrong


def _merge(into: dict[str, Any], more: dict[str, Any]) -> None:
    for key, value in more.items():
        if isinstance(value, dict):
            _merge(into.setdefault(key, {}), value)
        elif isinstance(value, list):
            into[key] = into.get(key, []) + value
        else:
            into[key] = value


def _build(data: dict[str, Any]) -> Dialects:
    labels = {name.lower(): role for role, names in data["labels"].items() for name in names}
    words = data["words"]
    returned = _LETTER.sub(lambda found: found[1] or found[2].lower(), "|".join(data["returned"]["lines"]))
    return Dialects(
        returned=re.compile(rf"\n[ \t\-=_*>|+#.]{{0,80}}+(?:{returned})[^\n]*", re.MULTILINE),
        labels=labels,
        objects=frozenset(_lower(words["objects"])),
        object_endings=_lower(words["object_endings"]),
        contacts=frozenset(_lower(words["contacts"])),
        contact_pieces=_lower(words["contact_pieces"]),
        introductions=_lower(words["introductions"]),
        roles=_lower(words["roles"]),
        machines=frozenset(_lower(words["machines"])),
        machine_headers=_lower(words["machine_headers"]),
        list_endings=_lower(words["list_endings"]),
        machine_names=_whole_words(words["machine_names"]),
        machine_full_names=frozenset(_lower(words["machine_full_names"])),
        failed_subjects=_lower(data["failed"]["subjects"]),
        delayed_subjects=_lower(data["delayed"]["subjects"]),
        delivered_subjects=_lower(data["delivered"]["subjects"]),
        failed_texts=_lower(data["failed"]["texts"]),
        permanent_texts=_lower(data["failed"]["permanent"]),
        delayed_texts=_lower(data["delayed"]["texts"]),
        delivered_texts=_lower(data["delivered"]["texts"]),
        list_refusal_texts=_lower(data["refused_by_list"]["texts"]),
        servers=tuple(
            Server(
                name=server["name"],
                text=_lower(server.get("text", [])),
                mailer=server.get("header", {}).get("x-mailer", "").lower(),
            )
            for server in data["server"]
        ),
    )


def _whole_words(phrases: Sequence[str]) -> re.Pattern[str]:
    """Any of the phrases, not within a word; languages without spaces have no such bounds."""
    return re.compile(
        "|".join(rf"\b{re.escape(one)}\b" if one.isascii() else re.escape(one) for one in _lower(phrases))
    )


_LETTER = re.compile(r"(\\.)|(\w)")
r"""An escape such as `\S`, which must stay as it is, or a letter."""


def _lower(values: Sequence[str]) -> tuple[str, ...]:
    return tuple(value.lower() for value in values)
