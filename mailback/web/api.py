"""The API of applications, below `/api`: may I mail this address, what was mailed, and links to unsubscribe by.

The answers are those of the commands of the same names with `--json`.
"""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, HTTPException, Query
from pydantic import BaseModel, Field

from mailback.address import is_address
from mailback.outbound import unsubscribing
from mailback.outbound.check import Answer
from mailback.outbound.entries import entry
from mailback.outbound.remembering import Remembering
from mailback.outbound.watch import resolver_of
from mailback.recipient.entering import Checker, Lists

if TYPE_CHECKING:
    from mailback.auth.resolver import Resolver
    from mailback.engine import Engine
    from mailback.settings import Settings
    from mailback.store import Store
    from mailback.store.records import JournalEntry

MOST = 1000
"""Addresses or entries of one request."""


class Links(BaseModel):
    """Whom links are wanted for."""

    addresses: Annotated[list[str], Field(min_length=1, max_length=MOST)]
    list_id: str | None = None


class Entered(BaseModel):
    """Addresses that somebody entered."""

    addresses: Annotated[list[Annotated[str, Field(max_length=1000)]], Field(min_length=1, max_length=100)]
    source: Annotated[str, Field(max_length=200)] | None = None
    by: Annotated[str, Field(max_length=200)] | None = None


def router(settings: Settings, store: Store, engine: Engine) -> APIRouter:
    """The routes for applications."""
    routes = APIRouter()
    out = Remembering.of(settings, store)
    resolver = _resolver(settings)
    lists = cache(partial(Lists.load, settings))  # read when the first address is checked

    @routes.get("/check")
    def may_i_mail(
        address: Annotated[list[str], Query(min_length=1, max_length=MOST)],
        list_id: str | None = None,
        campaign: str | None = None,
        stream: Literal["transactional", "marketing"] | None = None,
    ) -> list[dict[str, object]]:
        """May I mail these addresses?"""
        return [
            _told(one, out.check.answer(one, list_id=list_id, campaign=campaign, stream=stream))
            if is_address(one)
            else {"address": one, "allowed": False, "error": "no mail address"}
            for one in address
        ]

    @routes.post("/journal", status_code=201)
    def remember(entries: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=MOST)]) -> dict[str, int]:
        """Remember mail that went out by another way than the milter; durable once this is answered. All or none."""
        read: list[JournalEntry] = []
        for number, told in enumerate(entries):
            found = entry({"source": "api", **told})
            if isinstance(found, str):
                raise HTTPException(422, f"entry {number}: {found}")
            read.append(found)
        store.submit(lambda transaction: [out.write(transaction, one) for one in read]).result()
        return {"added": len(read)}

    @routes.post("/unsubscribe-links", status_code=201)
    def links(wanted: Links) -> list[dict[str, object]]:
        """Mint the header fields by which these recipients unsubscribe."""
        paths = engine.return_paths
        if paths is None:
            raise HTTPException(409, "return paths are not signed: set signing.secret_file and mail.bounce_domain")
        for address in wanted.addresses:
            if not is_address(address):
                raise HTTPException(422, f"{address!r} is no mail address")
        base = settings.web.public_url
        link = f"{base.rstrip('/')}/unsubscribe" if base else None
        minted = [unsubscribing.mint(store, paths, one, list_id=wanted.list_id) for one in wanted.addresses]
        return [
            {"address": one.recipient, "mailto": one.mailto, "token": one.token, "fields": one.fields(link)}
            for one in minted
        ]

    @routes.post("/validate")
    def validate(entered: Entered) -> list[dict[str, object]]:
        """Check addresses as somebody enters them; each attempt is kept with its verdict, who and where from."""
        checker = Checker(lists(), store, resolver)
        found = checker.check(entered.addresses)
        checker.keep(found, source=entered.source, by=entered.by or "api")
        return [one.to_dict() for one in found]

    return routes


def _resolver(settings: Settings) -> Resolver | None:
    """DNS, where there is any: without it domains that nobody knows are `unknown`."""
    try:
        return resolver_of(settings)
    except ValueError:
        return None


def _told(address: str, told: Answer) -> dict[str, object]:
    held = told.suppression
    return {
        "address": address,
        "allowed": told.allowed,
        "reply": None if told.allowed else told.reply,
        "scope": held.scope if held else None,
        "type": held.type if held else None,
        "subcategory": held.subcategory if held else None,
        "reason": held.reason if held else None,
        "since": held.since if held else None,
        "until": held.until if held else None,
        "later": told.later,
        "breaker": told.breaker.name if told.breaker else None,
    }
