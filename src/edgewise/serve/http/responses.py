"""OpenAI's /v1/responses: what is asked, and looking up or forgetting what was answered."""

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from edgewise.serve.http.bodies import Events, fields, unless_gone
from edgewise.serve.http.calling import held, read_response_tools
from edgewise.serve.http.errors import ApiError, bad
from edgewise.serve.http.fields import Fields
from edgewise.serve.http.hosted import Hosted
from edgewise.serve.http.remembered import Remembered
from edgewise.serve.http.response_items import read_input
from edgewise.serve.http.response_reply import Reply
from edgewise.serve.http.sampling import sampling
from edgewise.serve.http.settings import MAX_LOGPROBS
from edgewise.serve.http.shelf import model_for
from edgewise.serve.http.structured import Found, compiled, json_schema, made
from edgewise.serve.http.thinking import Wanted, effort_of

LOGPROBS = "message.output_text.logprobs"
UNSERVED = (
    "access_programs", "background_options", "context_management", "conversation", "image", "max_tool_calls",
    "moderation", "prompt", "prompt_cache_options",
)  # fmt: skip
ECHOED = ("metadata", "user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention")


async def create(request: Request) -> Response:
    body = await fields(request)
    model = await model_for(request, body)
    remembered: Remembered = request.app.state.remembered
    before = _before(body, remembered)
    instructions = body.text("instructions")
    asked = read_input(body)
    store = body.boolean("store", True)
    most = body.integer("max_output_tokens", None, 1, 1 << 31)
    stream = _streaming(body)
    for name in ("max_tokens", "max_completion_tokens", "logprobs"):
        if name in body.given:
            raise bad(name, f"{name} belongs to /v1/chat/completions; here it is "
                      f"{'include and top_logprobs' if name == 'logprobs' else 'max_output_tokens'}.", "unknown_field")
    body.only("n", 1, why="A response holds one answer.")
    format_, wanted = _format(body)
    tools, held_to = await held(model, read_response_tools(body), await compiled(model, [wanted]))
    more = {} if tools is None else {"skip_special_tokens": False}  # a call may begin with a control token
    params = sampling(
        body, model.defaults(), max_tokens=most, logprobs=_logprobs(body), structured_outputs=held_to, **more,
    )  # fmt: skip
    thinking, reasoning = _reasoning(body, model)
    _nothing_else(body)
    talk = [*before, *asked]
    head = [] if instructions is None else [{"role": "system", "content": instructions}]
    told = thinking.told([*head, *talk], model.thinking)
    options = thinking.options(model.thinking)
    if tools is not None:
        told, options = tools.conversation(told, options)
    tokens = await model.chat_tokens(told, param="input", **options)
    prepared = model.prepared(tokens, params, "input", thinking)
    echo = {
        "instructions": instructions, "max_output_tokens": most, "store": store, "text": {"format": format_},
        "reasoning": reasoning,
        "previous_response_id": body.given.get("previous_response_id"),
        "parallel_tool_calls": body.given.get("parallel_tool_calls", True),
        "tools": body.given.get("tools", []), "tool_choice": body.given.get("tool_choice", "auto"),
        **{name: body.given[name] for name in ECHOED if name in body.given},
    }  # fmt: skip
    reply = Reply(model, prepared, echo, talk, remembered if store else None, tools)
    if stream:
        return Events(reply.stream(), request.app.state.settings, request.url.path)
    return JSONResponse(await unless_gone(request, reply.whole()))


async def stored(request: Request) -> Response:
    """GET: the response once more. DELETE: it is forgotten."""
    remembered: Remembered = request.app.state.remembered
    name = request.path_params["name"]
    kept = remembered.find(name)
    if kept is None:
        raise ApiError(404, f"Response '{name[:80]}' is not here (any more).", param="response_id", code="not_found")
    if request.method == "DELETE":
        remembered.drop(name)
        return JSONResponse({"id": name, "object": "response", "deleted": True})
    return JSONResponse(kept.body)


def _before(body: Fields, remembered: Remembered) -> list[Any]:
    """The talk that goes on; the instructions of then do not hold any more, as OpenAI has it."""
    name = body.text("previous_response_id")
    if name is None:
        return []
    kept = remembered.find(name)
    if kept is None:
        raise bad(
            "previous_response_id",
            f"Response '{name[:80]}' is not here: it was not stored, or {remembered.most} newer ones were. Send the "
            "whole talk as input.",
            "previous_response_not_found",
        )
    return list(kept.talk)


def _streaming(body: Fields) -> bool:
    stream, options = body.boolean("stream"), body.mapping("stream_options")
    if options is not None:
        if not stream:
            raise bad("stream_options", "stream_options needs stream: true.")
        inner = Fields(options, "stream_options.")
        inner.only("include_obfuscation", False)
        inner.done()
    return stream


def _logprobs(body: Fields) -> int | None:
    top = body.integer("top_logprobs", None, 0, MAX_LOGPROBS)
    wanted = body.array("include", 16) or []
    for at, name in enumerate(wanted):
        if name != LOGPROBS:
            raise bad(f"include[{at}]", f"include[{at}] is {str(name)[:60]!r}; only '{LOGPROBS}' is served here.",
                      "unsupported")  # fmt: skip
    if wanted:
        return top or 0
    if top:
        raise bad("top_logprobs", f"top_logprobs needs include: ['{LOGPROBS}'].")
    return None


def _nothing_else(body: Fields) -> None:
    """Fields that are served as long as they ask for nothing."""
    for name in UNSERVED:
        body.only(name)
    body.only("background", False)
    body.only("truncation", "disabled", why="Nothing is cut here.")
    body.done()


def _reasoning(body: Fields, model: Hosted) -> tuple[Wanted, dict[str, Any]]:
    inner = Fields(body.mapping("reasoning") or {}, "reasoning.")
    wanted = effort_of(inner, "effort", model)
    for name in ("summary", "generate_summary"):
        inner.only(name, why="The reasoning itself is given.")
    inner.only("context", "auto", "all_turns")
    inner.only("mode", "standard")
    inner.done()
    return wanted or Wanted(), {"effort": inner.given.get("effort"), "summary": None}


def _format(body: Fields) -> tuple[dict[str, Any], Found | None]:
    """What the text has to look like, as it was said, and made ready."""
    text = Fields(body.mapping("text") or {}, "text.")
    given = text.mapping("format")
    text.only("verbosity")
    text.done()
    if given is None or given == {"type": "text"}:
        return {"type": "text"}, None
    kind = Fields(given, "text.format.").text("type", choices=("text", "json_object", "json_schema"))
    if kind == "json_schema":
        return given, json_schema({name: value for name, value in given.items() if name != "type"}, "text.format")
    if kind == "json_object" and len(given) == 1:
        return given, made("text.format", json_object=True)
    raise bad("text.format", "text.format needs a type: text, json_object, or json_schema with a schema.")
