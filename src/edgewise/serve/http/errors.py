"""What goes wrong in a request, in the words of whoever asked: OpenAI's, Anthropic's or Ollama's error object."""

from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse

from edgewise.base import EdgewiseError, OutOfRoom

TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}


class ApiError(Exception):
    """status: of HTTP. param: the field that is wrong. code: a word for programs. retry_s: when to come back."""

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None,
        retry_s: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.status, self.message, self.param, self.code, self.retry_s = status, message, param, code, retry_s

    @property
    def type(self) -> str:
        return TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")


class Gone(Exception):
    """The client went away; nobody reads an answer."""


def bad(param: str, message: str, code: str = "invalid_value") -> ApiError:
    return ApiError(400, message, param=param, code=code)


def overflow(param: str, prompt: int, wanted: int | None, context: int, *, least: bool = False) -> ApiError:
    """The prompt, or the prompt and what was asked for, exceeds the context. Nothing is ever cut. least: the prompt was
    not counted to its end."""
    asked = f", and {wanted} more were asked for" if wanted else ""
    has = "has more than" if least else "has"
    return ApiError(
        400,
        f"This model's context holds {context} tokens, but the prompt {has} {prompt}{asked}. "
        "Shorten it, ask for fewer tokens, or start the server with a larger --ctx-size.",
        param=param, code="context_length_exceeded",
    )  # fmt: skip


def understood(problem: Exception) -> ApiError:
    """Any exception as an answer that says nothing about paths or code."""
    if isinstance(problem, ApiError):
        return problem
    if isinstance(problem, OutOfRoom):
        return ApiError(503, str(problem), code="out_of_room", retry_s=5)
    if isinstance(problem, MemoryError) or "start new thread" in str(problem):
        return ApiError(503, "The machine has not enough memory for this request now.", code="out_of_room", retry_s=5)
    if isinstance(problem, EdgewiseError):
        return ApiError(400, str(problem), code="bad_request")
    return ApiError(500, "Something went wrong inside the server; its log says more.", code="internal_error")


def body(path: str, error: ApiError) -> dict[str, Any]:
    if path.startswith("/api/"):
        return {"error": error.message}
    if path.startswith("/v1/messages"):
        kind = "api_error" if error.status >= 500 else error.type
        return {"type": "error", "error": {"type": kind, "message": error.message}}
    return {"error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code}}


def headers(error: ApiError) -> Mapping[str, str]:
    found = {} if error.retry_s is None else {"retry-after": str(error.retry_s)}
    if error.status in (408, 413, 415, 431):  # the rest of the body is not waited for
        found["connection"] = "close"
    return {**found, "www-authenticate": "Bearer"} if error.status == 401 else found


def answer(path: str, error: ApiError) -> JSONResponse:
    return JSONResponse(body(path, error), error.status, headers(error))
