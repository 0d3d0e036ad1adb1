"""/tokenize and /detokenize, as vLLM has them; `content` is llama.cpp's name for the prompt."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from edgewise.base import BadInput
from edgewise.serve.http.bodies import fields
from edgewise.serve.http.errors import bad
from edgewise.serve.http.messages import read_messages
from edgewise.serve.http.sampling import token_ids
from edgewise.serve.http.shelf import model_for


async def tokenize(request: Request) -> Response:
    body = await fields(request)
    model = await model_for(request, body)
    text, content = body.text("prompt"), body.text("content")
    special = body.boolean("add_special_tokens", content is None)
    if "messages" in body.given:
        messages, add = read_messages(body), body.boolean("add_generation_prompt", True)
        body.done()
        tokens = await model.chat_tokens(messages, add_generation_prompt=add)
    elif text is None and content is None:
        raise bad("prompt", "Give a prompt, or messages.", "missing")
    else:
        body.done()
        tokens = await model.text_tokens(content if text is None else text, special=special)
    return JSONResponse({"count": len(tokens), "max_model_len": model.context, "tokens": tokens})


async def detokenize(request: Request) -> Response:
    body = await fields(request)
    model = await model_for(request, body)
    tokens = token_ids(body, "tokens", 1 << 20)
    body.done()
    if tokens is None:
        raise bad("tokens", "Give tokens: a list of token ids.", "missing")
    wrong = next((token for token in tokens if token >= model.tokenizer.vocab), None)
    if wrong is not None:
        raise bad("tokens", f"Token {wrong} is outside the vocabulary of {model.tokenizer.vocab}.")
    try:
        text = model.tokenizer.decode(tokens, skip_special=False)
    except BadInput as problem:
        raise bad("tokens", str(problem)) from problem
    return JSONResponse({"prompt": text, "content": text})
