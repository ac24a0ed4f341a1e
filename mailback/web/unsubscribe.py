"""One-click unsubscribing (RFC 8058): `/unsubscribe/TOKEN`, where TOKEN was minted for one recipient.

Only a POST unsubscribes. Scanners of mail follow every link with GET, so that shows a page with a button.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from mailback.outbound import unsubscribing

if TYPE_CHECKING:
    from mailback.engine import Engine
    from mailback.store import Store

_TOKEN_MAX = 64

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex"><title>{title}</title>
<style>body{{font:18px/1.5 system-ui,sans-serif;max-width:32rem;margin:15vh auto;padding:0 1rem;color:#222}}
button{{font:inherit;padding:.6rem 1.4rem;border:0;border-radius:.4rem;background:#1a4fa0;color:#fff;cursor:pointer}}
</style></head><body><h1>{title}</h1><p>{text}</p>{form}</body></html>
"""
_FORM = """<form method="post"><input type="hidden" name="List-Unsubscribe" value="One-Click">
<button>Unsubscribe</button></form>"""
_WRONG = "This link is not one of ours, or it is too old. Please use the one in the latest mail that you got."


def router(engine: Engine, store: Store) -> APIRouter:
    """The routes for recipients."""
    routes = APIRouter()

    @routes.get("/unsubscribe/{token}", include_in_schema=False)
    def ask(token: str) -> HTMLResponse:
        recipient = _recipient(engine, store, token)
        if recipient is None:
            return _page("Link not known", _WRONG, status=404)
        text = f"Do you want no more of this mail at {escape(_masked(recipient))}?"
        return _page("Unsubscribe", text, form=_FORM)

    @routes.post("/unsubscribe/{token}", include_in_schema=False)
    def take(token: str, request: Request) -> HTMLResponse:
        recipient = _recipient(engine, store, token)
        paths = engine.return_paths
        if recipient is None or paths is None:
            return _page("Link not known", _WRONG, status=404)
        client = request.client.host if request.client is not None else None
        engine.inbound(*unsubscribing.mail(paths, token, recipient, client))
        return _page("Unsubscribed", f"{escape(_masked(recipient))} gets no more of this mail.")

    return routes


def _recipient(engine: Engine, store: Store, token: str) -> str | None:
    if engine.return_paths is None or len(token) > _TOKEN_MAX:
        return None
    return unsubscribing.recipient_of(store, engine.return_paths, token)


def _masked(recipient: str) -> str:
    """Enough for the recipient to know the address by; a link that leaked should not tell it to others."""
    local, _, domain = recipient.rpartition("@")
    return f"{local[:2]}***@{domain}"


def _page(title: str, text: str, *, form: str = "", status: int = 200) -> HTMLResponse:
    return HTMLResponse(_PAGE.format(title=title, text=text, form=form), status)
