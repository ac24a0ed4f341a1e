"""One finding of `mailback doctor`. Emits no log events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at, how it stands, and what to do where it is not well."""

    area: str
    """`settings`, `store`, `listen`, `follow`, `dns`, `postfix`, ..."""
    state: State
    what: str
    advice: str = ""

    def to_dict(self) -> dict[str, str]:
        return {"area": self.area, "state": self.state, "what": self.what, "advice": self.advice}
