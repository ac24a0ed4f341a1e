"""What all sections have in common, and what is marked at a key. Emits no log events."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict
from pydantic.config import JsonDict
from pydantic.fields import FieldInfo

RESTART: JsonDict = {"restart": True}
"""Marks keys that a reload (SIGHUP) does not change: where the store is, who may connect, who the process has become.

A store elsewhere is an empty one until it is filled: one wrong letter, taken up by a reload, would lift every
suppression.
"""


class Section(BaseModel):
    """Common to all sections: unknown keys are problems, values are never coerced, nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, validate_default=False)


def keys_of(settings: type[Section]) -> Iterator[tuple[str, str, FieldInfo]]:
    """Every key of the sections that `settings` holds, in order: section, key, field."""
    for section, holder in settings.model_fields.items():
        model = holder.annotation
        assert isinstance(model, type)
        assert issubclass(model, Section)
        for key, field in model.model_fields.items():
            yield section, key, field


def is_fixed(field: FieldInfo) -> bool:
    """True for a key that only a restart can change."""
    return isinstance(field.json_schema_extra, dict) and bool(field.json_schema_extra.get("restart"))


def is_secret(field: FieldInfo) -> bool:
    """True for a key whose value may hold a password."""
    return isinstance(field.json_schema_extra, dict) and bool(field.json_schema_extra.get("secret"))


def is_hidden(field: FieldInfo) -> bool:
    """True for a key whose whole value is a secret, where others hold one within (a URL with its password)."""
    return isinstance(field.json_schema_extra, dict) and bool(field.json_schema_extra.get("hidden"))


def variable(section: str, key: str) -> str:
    """The environment variable that sets a key."""
    return f"MAILBACK_{section}_{key}".upper()
