"""The application: routes, errors in OpenAI's shape, an OpenAPI document that says what is so, and the page at `/`.

The page is files as they are shipped, that may load nothing from elsewhere.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, cast

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.openapi.utils import get_openapi
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.types import ASGIApp

from soupmix.errors import SoupmixError
from soupmix.serve import about, asking, chat_routes, feedback, grants, learning, questions, soups
from soupmix.serve.logs import LOGGER
from soupmix.serve.middleware import RequestGate
from soupmix.serve.profiles import PREFIX
from soupmix.serve.reload import watch
from soupmix.serve.responses import error_response, refusal_response, validation_response
from soupmix.serve.state import ServerState
from soupmix.version import __version__

__all__ = ["application", "schema"]

_APP: Mapping[str, Any] = {
    "title": "soupmix",
    "version": __version__,
    "description": "One language model for many people: a LoRA soup per person, clamped by policy.",
    "docs_url": None,
    "redoc_url": None,
    "redirect_slashes": False,
}
_PAGE: Final = Path(__file__).parent / "page"
_PAGE_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "object-src 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def application(state: ServerState) -> ASGIApp:
    """The ASGI application of a server."""
    app = FastAPI(lifespan=_lifespan, **_APP)
    app.state.server = state
    for room in (about, chat_routes, grants, asking, soups, learning, feedback, questions):
        app.include_router(room.router)
    _add_page(app)
    app.add_exception_handler(SoupmixError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _elsewhere)
    app.add_exception_handler(SQLAlchemyError, _database)
    app.add_exception_handler(Exception, _fault)
    app.openapi = lambda: schema(app)  # type: ignore[method-assign]
    if state.settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(state.settings.origins),
            allow_methods=["GET", "POST", "PUT", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "If-Match", "If-None-Match"],
            expose_headers=["ETag", "Location", "Retry-After", "X-Request-Id"],
        )
    return RequestGate(app, state)


def schema(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document of this very server.

    FastAPI's 422 is not in it, as wrong requests are answered with 400; the names of models and adapters are.
    """
    if app.openapi_schema is None:
        made = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        for operations in made["paths"].values():
            for operation in operations.values():
                if operation["responses"].get("422", {}).get("description") == "Validation Error":
                    del operation["responses"]["422"]
        schemas, state = made["components"]["schemas"], app.state.server
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        for name in ("ChatAsk", "CompletionAsk", "ResponsesAsk"):
            schemas[name]["properties"]["model"]["pattern"] = f"^({re.escape(state.settings.model)}|{PREFIX}.+)$"
        for name in ("SoupAsk", "TurnSoupAsk", "ProfileAsk", "TargetsAsk"):
            schemas[name]["properties"]["weights"]["propertyNames"] = {"enum": [each.name for each in state.adapters]}
        app.openapi_schema = made
    return app.openapi_schema


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    watching = asyncio.create_task(watch(app.state.server))
    yield
    watching.cancel()


async def _refused(_: Request, error: Exception) -> Response:
    return refusal_response(cast("SoupmixError", error))


async def _invalid(_: Request, error: Exception) -> Response:
    return validation_response(cast("RequestValidationError", error).errors())


async def _elsewhere(_: Request, error: Exception) -> Response:
    problem = cast("HTTPException", error)
    reason = {404: "no-such-path", 405: "wrong-method"}.get(problem.status_code, "bad-request")
    return error_response(str(problem.detail), problem.status_code, reason, headers=problem.headers)


async def _database(_: Request, error: Exception) -> Response:
    LOGGER.error("the database does not work", exc_info=error)
    return refusal_response(SoupmixError("the database does not work; ask again later", reason="database"))


async def _fault(_: Request, error: Exception) -> Response:
    """Told here, and raised again by Starlette, so that the request gate logs it."""
    return error_response("a fault of this server; it is in its log", 500, "fault")


def _add_page(app: FastAPI) -> None:
    """Serve every file of the page under its name, and index.html at `/`; no path of a request becomes one of a file."""
    for path in sorted(_PAGE.glob("*")) if (_PAGE / "index.html").is_file() else ():
        if path.is_file():
            _add(app, "/" if path.name == "index.html" else f"/{path.name}", path)


def _add(app: FastAPI, address: str, path: Path) -> None:
    async def send(_: Request) -> FileResponse:
        return FileResponse(path, headers=_PAGE_HEADERS)

    app.add_route(address, send, methods=["GET"], include_in_schema=False)
