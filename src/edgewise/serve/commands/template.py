"""`edgewise template MODEL|FILE.jinja MESSAGES.json`: exactly the rendered prompt, nothing more."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from edgewise.base import BadInput
from edgewise.kernels.parsing import parse_json

_LIMIT_BYTES = 1 << 26


def command(
    model: Annotated[str, typer.Argument(help="a model, or a template in a .jinja file")],
    messages: Annotated[
        str, typer.Argument(help="a JSON file: a list of messages, or an object with messages; - is standard input")
    ],
    tools: Annotated[Path | None, typer.Option("--tools", help="a JSON file with a list of tools")] = None,
    add_generation_prompt: Annotated[
        bool, typer.Option("--add-generation-prompt", help="open the assistant's turn")
    ] = False,
    bos: Annotated[str | None, typer.Option("--bos", help="what the template prints as bos_token")] = None,
    eos: Annotated[str | None, typer.Option("--eos", help="what the template prints as eos_token")] = None,
) -> None:
    """Renders a chat template over messages and prints the prompt, nothing more."""
    variables = _variables(messages)
    if tools is not None:
        variables["tools"] = _json(tools, str(tools))
    if add_generation_prompt:
        variables["add_generation_prompt"] = True
    strings = {key: value for key, value in (("bos_token", bos), ("eos_token", eos)) if value is not None}
    prompt = _template(model).render(variables.pop("messages"), **{**variables, **strings})
    try:
        data = prompt.encode("utf-8")
    except UnicodeEncodeError:
        raise BadInput("The prompt contains lone surrogates, which are not Unicode text.") from None
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _template(model: str) -> Any:
    from edgewise.text import load_template
    from edgewise.text.chat import JinjaChatTemplate
    from edgewise.weights import bundle, open_checkpoint

    path = Path(model).expanduser()
    if path.suffix in (".jinja", ".jinja2", ".j2") or (path.is_file() and path.suffix != ".gguf"):
        try:
            source = bundle.read_bytes(path, _LIMIT_BYTES).decode("utf-8")
        except UnicodeDecodeError as error:
            raise BadInput(f"{path} is not UTF-8: {error.reason} at byte {error.start}.") from None
        return JinjaChatTemplate({"default": source}, {}, path.name)
    header = open_checkpoint(model, need_tensors=False).header()
    template = load_template(header)
    if template is None:
        raise BadInput(
            f"{header.name} carries no chat template. Give a template file instead of the model: FILE.jinja."
        )
    return template


def _variables(messages: str) -> dict[str, Any]:
    value = _json(None if messages == "-" else Path(messages).expanduser(), messages)
    if isinstance(value, list):
        return {"messages": value}
    if isinstance(value, Mapping) and isinstance(value.get("messages"), list):
        return dict(value)
    raise BadInput(f"{messages}: expected a list of messages, or an object with a list called messages.")


def _json(path: Path | None, name: str) -> Any:
    from edgewise.weights import bundle

    return parse_json(sys.stdin.buffer.read() if path is None else bundle.read_bytes(path, _LIMIT_BYTES), name)
