"""What litellm hears from a server, as JSON: a program of its own, because litellm leaves sockets and loops open."""

import asyncio
import json
import sys

import litellm

ASK = [{"role": "user", "content": "Write a function that adds two numbers."}]
TEXTS = ["a = 1", "def add(a, b):"]
COLD = {"messages": ASK, "temperature": 0, "max_tokens": 16}


def whole(made):
    usage = [made.usage.prompt_tokens, made.usage.completion_tokens]
    return {"text": made.choices[0].message.content, "reason": made.choices[0].finish_reason, "usage": usage}


def joined(pieces):
    text = "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
    return {"text": text, "reason": pieces[-1].choices[0].finish_reason}


async def streamed(settings):
    return joined([piece async for piece in await litellm.acompletion(**settings, **COLD, stream=True)])


def refused(**settings):
    try:
        litellm.completion(**settings)
    except Exception as problem:
        return type(problem).__name__, str(problem)


def main(url):
    litellm.suppress_debug_info = True
    found = {}
    for provider, where in (("openai", f"{url}/v1"), ("ollama_chat", url)):
        settings = {"model": f"{provider}/base", "api_base": where, "api_key": "test-key", "num_retries": 0}
        found[provider] = {
            "whole": whole(litellm.completion(**settings, **COLD)),
            "stream": joined(list(litellm.completion(**settings, **COLD, stream=True))),
            "async": asyncio.run(streamed(settings)),
            "unknown": refused(**{**settings, **COLD, "model": f"{provider}/nope"}),
            "long": refused(**{**settings, **COLD, "max_tokens": 5000}),
        }
    made = litellm.embedding(
        model="openai/base", input=TEXTS, api_base=f"{url}/v1", api_key="test-key", encoding_format="float"
    )
    found["embedding"] = [one["embedding"] for one in made.data]
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
