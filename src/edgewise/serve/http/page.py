"""The page at `/`: three static files, no request to anywhere else, nothing secret in them."""

from functools import cache
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

FOLDER = Path(__file__).parent / "page"
POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; " \
         "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"  # fmt: skip


@cache
def _file(name: str) -> bytes:
    return (FOLDER / name).read_bytes()


def _answer(name: str, media_type: str) -> Response:
    headers = {"content-security-policy": POLICY, "cache-control": "no-cache"}
    return Response(_file(name), media_type=media_type, headers=headers)


async def index(_: Request) -> Response:
    return _answer("index.html", "text/html")


async def script(_: Request) -> Response:
    return _answer("page.js", "text/javascript")


async def style(_: Request) -> Response:
    return _answer("page.css", "text/css")
