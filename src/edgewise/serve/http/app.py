"""Every route of the server, and what stands around all of them."""

import sys
import traceback
from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from edgewise.base import EdgewiseError
from edgewise.serve.http import anthropic, chat, completions, embeddings, ollama, page, responses, state, tokens
from edgewise.serve.http.errors import ApiError, Gone, answer, understood
from edgewise.serve.http.guard import App, Guard
from edgewise.serve.http.remembered import Remembered
from edgewise.serve.http.settings import MAX_RESPONSES, RESPONSES_BYTES, Settings
from edgewise.serve.http.shelf import Lease, Shelf

Endpoint = Callable[[Request], Awaitable[Response]]
ROUTES: dict[str, tuple[str, Endpoint]] = {
    "/": ("GET", page.index),
    "/page.js": ("GET", page.script),
    "/page.css": ("GET", page.style),
    "/health": ("GET", state.health),
    "/ready": ("GET", state.ready),
    "/metrics": ("GET", state.metrics),
    "/status": ("GET", state.status),
    "/tokenize": ("POST", tokens.tokenize),
    "/detokenize": ("POST", tokens.detokenize),
    "/v1/models": ("GET", state.models),
    "/v1/models/{name:path}": ("GET", state.model),
    "/v1/completions": ("POST", completions.completions),
    "/v1/chat/completions": ("POST", chat.chat),
    "/v1/responses": ("POST", responses.create),
    "/v1/responses/{name}": ("GET DELETE", responses.stored),
    "/v1/embeddings": ("POST", embeddings.embeddings),
    "/v1/messages": ("POST", anthropic.messages),
    "/v1/messages/count_tokens": ("POST", anthropic.count_tokens),
    "/api/version": ("GET", ollama.version),
    "/api/tags": ("GET", ollama.tags),
    "/api/ps": ("GET", ollama.ps),
    "/api/show": ("POST", ollama.show),
    "/api/chat": ("POST", ollama.chat),
    "/api/generate": ("POST", ollama.generate),
    "/api/embed": ("POST", ollama.embed),
}


def make_app(shelf: Shelf, settings: Settings) -> App:
    routes = [Route(path, _answered(endpoint), methods=method.split()) for path, (method, endpoint) in ROUTES.items()]
    inner = Starlette(routes=routes, exception_handlers={HTTPException: _plain})
    inner.state.shelf, inner.state.settings = shelf, settings
    inner.state.remembered = Remembered(MAX_RESPONSES, RESPONSES_BYTES)
    return Guard(inner, settings, shelf.busy)


def _answered(endpoint: Endpoint) -> Endpoint:
    """The endpoint, its errors as the dialect's error object."""

    async def call(request: Request) -> Response:
        leases: list[Lease] = []
        request.state.leases = leases  # of the models that it uses, until the answer has been sent
        try:
            response = await endpoint(request)
        except Gone:
            response = Response(status_code=499)
        except Exception as problem:
            if not isinstance(problem, ApiError | EdgewiseError):
                traceback.print_exc(file=sys.stderr)
            response = answer(request.url.path, understood(problem))
        except BaseException:
            _release(leases)
            raise
        return _Leased(response, leases) if leases else response

    return call


class _Leased(Response):
    def __init__(self, inner: Response, leases: list[Lease]) -> None:
        self._inner, self._leases = inner, leases

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._inner(scope, receive, send)
        finally:
            _release(self._leases)


def _release(leases: list[Lease]) -> None:
    for lease in leases:
        lease.release()


async def _plain(request: Request, problem: Exception) -> Response:
    """No such path, or not with this method."""
    assert isinstance(problem, HTTPException)
    word = "No such path" if problem.status_code == 404 else problem.detail
    error = ApiError(problem.status_code, f"{word}: {request.method} {request.url.path[:80]}.", code="no_route")
    response = answer(request.url.path, error)
    response.headers.update(problem.headers or {})
    return response
