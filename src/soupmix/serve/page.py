"""The page at `/`, if there is one: files as they are shipped, that may load nothing from elsewhere."""

from pathlib import Path
from typing import Final

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import FileResponse

__all__ = ["add_page"]

_FOLDER: Final = Path(__file__).parent / "page"
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "object-src 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def add_page(app: FastAPI) -> None:
    """Serve every file of the page under its name, and index.html at `/`; no path of a request becomes one of a file."""
    for path in sorted(_FOLDER.glob("*")) if (_FOLDER / "index.html").is_file() else ():
        if path.is_file():
            _add(app, "/" if path.name == "index.html" else f"/{path.name}", path)


def _add(app: FastAPI, address: str, path: Path) -> None:
    async def send(_: Request) -> FileResponse:
        return FileResponse(path, headers=_HEADERS)

    app.add_route(address, send, methods=["GET"], include_in_schema=False)
