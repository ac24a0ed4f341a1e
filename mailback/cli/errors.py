"""How a command fails: one line that says what is wrong and what to do. Emits no log events."""

from __future__ import annotations


class CommandError(Exception):
    """A command cannot do what was asked; told as `mailback: WHAT; ADVICE`.

    `exit_code` is 1 for a failed item or a negative answer, 2 for a call or configuration that is wrong.
    """

    def __init__(self, what: str, advice: str = "", *, exit_code: int = 1) -> None:
        super().__init__(what, advice)
        self.what = what
        self.advice = advice
        self.exit_code = exit_code
