"""The boundary between libmilter and a session: C calls these functions, from threads of its own.

pymilter answers an exception that leaves a callback with a failure of its own choosing. None leaves: what a session
raises becomes its failure action (`Session.failed`). What pymilter itself raises before we are called (a HELO name that
is not UTF-8) counts as nothing said, for that is no reason to refuse anybody's mail.

Emits no log events of its own; see `session`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Concatenate, ParamSpec

import milter
from mailback_milter.session import ACTIONS, Door, Session

P = ParamSpec("P")


def register(door: Door, timeout_s: int) -> None:
    """Tell libmilter what to call and what we may do; before its loop starts."""

    def negotiate(context: milter.Context, options: list[int]) -> int:
        session = Session(door)
        context.setpriv(session)
        return session.negotiate(context, options)

    milter.set_connect_callback(_guarded("connect", Session.connect))
    milter.set_helo_callback(_guarded("helo", Session.helo))
    milter.set_envfrom_callback(_guarded("mail", Session.mail))
    milter.set_envrcpt_callback(_guarded("rcpt", Session.recipient))
    milter.set_header_callback(_guarded("header", Session.header))
    milter.set_eoh_callback(_guarded("eoh", Session.end_of_header))
    milter.set_body_callback(_guarded("body", Session.body))
    milter.set_eom_callback(_guarded("eom", Session.end_of_message))
    milter.set_abort_callback(_guarded("abort", Session.abort))
    milter.set_close_callback(_close)
    milter.set_flags(ACTIONS)
    milter.set_exception_policy(milter.CONTINUE)
    milter.settimeout(timeout_s)
    milter.register("mailback", data=_guarded("data", Session.data), negotiate=negotiate)


def _guarded(
    stage: str, method: Callable[Concatenate[Session, milter.Context, P], int]
) -> Callable[Concatenate[milter.Context, P], int]:
    """`method` of the connection's session; what it raises becomes the failure action."""

    def callback(context: milter.Context, /, *args: P.args, **kwargs: P.kwargs) -> int:
        session: Session = context.getpriv()
        try:
            return method(session, context, *args, **kwargs)
        except Exception as error:
            return session.failed(context, stage, error)

    return callback


def _close(context: milter.Context) -> int:
    """Also of a connection that never negotiated, which has no session."""
    session: Session | None = context.getpriv()
    if session is not None:
        session.close()
        context.setpriv(None)
    return milter.CONTINUE
