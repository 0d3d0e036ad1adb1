"""What goes on, or is embedded: texts or token ids, one or many."""

from edgewise.serve.http.errors import bad
from edgewise.serve.http.fields import Fields
from edgewise.serve.http.hosted import Hosted
from edgewise.serve.http.settings import MAX_PROMPTS


async def read_prompts(body: Fields, model: Hosted, name: str) -> list[list[int]]:
    """A text, token ids, or a list of either."""
    value = body.anything(name)
    if value is None:
        raise bad(name, f"Give {name}: a text, a list of texts, or token ids.", "missing")
    if isinstance(value, str):
        await model.fits(value, name)
        return [await model.text_tokens(value)]
    if isinstance(value, list) and value:
        if all(type(item) is int for item in value):
            return [value]
        if len(value) > MAX_PROMPTS:
            raise bad(name, f"{name} has {len(value)} entries; at most {MAX_PROMPTS} are taken at once.")
        if all(isinstance(item, str) for item in value):
            for item in value:
                await model.fits(item, name)
            return [await model.text_tokens(item) for item in value]
        if all(isinstance(item, list) and item and all(type(token) is int for token in item) for item in value):
            return value
    raise body.wrong(name, "a text, a list of texts, or token ids")
