"""OpenAI's chat.completion object, as a dict, from a finished request."""

import time
from typing import Any

from edgewise.serve.outputs import CompletionOutput, Logprob, RequestOutput
from edgewise.serve.tools import Tools, message_of


def completion(result: RequestOutput, model: str, tools: Tools | None = None) -> dict[str, Any]:
    """`choices` hold one message a sample; a sample that failed has finish_reason "error" and its `error`. tools: that
    may have been called."""
    made = result.metrics.completion_tokens
    return {
        "id": f"chat{result.request_id}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [_choice(output, tools) for output in result.outputs],
        "usage": {
            "prompt_tokens": result.metrics.prompt_tokens,
            "completion_tokens": made,
            "total_tokens": result.metrics.prompt_tokens + made,
        },
    }


def _choice(output: CompletionOutput, tools: Tools | None) -> dict[str, Any]:
    message, reason = {"role": "assistant", "content": output.text}, output.finish_reason
    if tools is not None:
        message, reason = message_of(output, tools)
        del message["refusal"]
    choice: dict[str, Any] = {
        "index": output.index,
        "message": message,
        "finish_reason": reason,
        "logprobs": None,
    }
    if output.logprobs is not None:
        pairs = zip(output.token_ids, output.logprobs, strict=True)
        choice["logprobs"] = {"content": [token_entry(token, entries) for token, entries in pairs]}
    if output.error is not None:
        choice["error"] = output.error
    return choice


def token_entry(token: int, entries: dict[int, Logprob]) -> dict[str, Any]:
    """One entry of `logprobs.content`: the token drawn, and the alternatives from the likeliest on."""
    ranked = sorted((e for e in entries.values() if e.rank is not None), key=lambda e: e.rank or 0)
    return {**_entry(entries[token]), "top_logprobs": [_entry(entry) for entry in ranked]}


def _entry(entry: Logprob) -> dict[str, Any]:
    text = entry.decoded_token
    return {"token": text, "logprob": entry.logprob, "bytes": list(text.encode("utf-8", "replace"))}
