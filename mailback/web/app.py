"""The application: its routes, who may call them, and what becomes of faults.

Recipients need no key: the token of an unsubscribe link proves itself. The API asks for the key of `web.key_file` as
`Authorization: Bearer KEY`; without such a file it is off, as whoever may write the journal may have bounces believed.

A store that cannot be read or written is 503 with `Retry-After`, and the reason in the log only.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from mailback.service.log import get_logger
from mailback.store.errors import StoreUnavailable
from mailback.web import api, unsubscribe

if TYPE_CHECKING:
    from mailback.engine import Engine
    from mailback.settings import Settings
    from mailback.store import Store

BODY_MAX = 1_000_000
"""Octets of a request; the API takes journal entries by the thousand, nothing larger."""
RETRY_S = 30

log = get_logger("web")


def application(settings: Settings, store: Store, engine: Engine, key: str, lifespan: Any = None) -> FastAPI:
    """The HTTP interface to one store; `key` is what the API asks for, empty where it is off."""
    app = FastAPI(title="Mailback", docs_url=None, redoc_url=None, openapi_url="/api/openapi.json", lifespan=lifespan)
    app.include_router(_health(store))
    app.include_router(unsubscribe.router(engine, store))
    app.include_router(api.router(settings, store, engine), prefix="/api")

    @app.middleware("http")
    async def guard(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        if "transfer-encoding" in request.headers:
            return PlainTextResponse("say how long it is\n", 411)
        if int(request.headers.get("content-length") or 0) > BODY_MAX:
            return PlainTextResponse("larger than any request here\n", 413)
        if request.url.path.startswith("/api"):
            refused = _refusal(request, key)
            if refused is not None:
                return refused
        response = await call_next(request)
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Cache-Control"] = "no-store"
        return response

    @app.exception_handler(StoreUnavailable)
    def unavailable(_: Request, error: StoreUnavailable) -> JSONResponse:
        log.error("store_unavailable", reason=error.reason, advice=error.advice)
        told = {"error": "the store cannot be used now, please try again later"}
        return JSONResponse(told, 503, {"Retry-After": str(RETRY_S)})

    @app.exception_handler(Exception)
    def failed(_: Request, error: Exception) -> JSONResponse:
        log.error("web.failed", exc_info=error)
        return JSONResponse({"error": "a fault of ours; it is in the log"}, 500)

    return app


def _refusal(request: Request, key: str) -> Response | None:
    if not key:
        return JSONResponse({"error": "the API is off: web.key_file is not set"}, 403)
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), key.encode()):
        return None
    return JSONResponse({"error": "the key is missing or wrong"}, 401, {"WWW-Authenticate": "Bearer"})


def _health(store: Store) -> APIRouter:
    router = APIRouter()

    @router.get("/healthz", include_in_schema=False)
    def healthz() -> PlainTextResponse:
        """Whether the store answers: for a load balancer."""
        store.lookup("")
        if store.trouble is not None:
            raise HTTPException(503, "the store cannot commit")
        return PlainTextResponse("ok\n")

    return router
