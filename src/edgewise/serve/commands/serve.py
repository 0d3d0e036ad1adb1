"""`edgewise serve [MODEL…]`: an OpenAI-compatible server and a page to chat on, at home until told otherwise."""

import asyncio
import os
import secrets
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgewise.base import BadInput, Incompatible
from edgewise.serve import hub
from edgewise.serve.options import (
    CacheType,
    Context,
    Neurons,
    Policy,
    Prefetch,
    PrefixCache,
    RamBudget,
    Residency,
    Speculator,
    Swap,
    Threads,
    Verifier,
    human,
)

if TYPE_CHECKING:
    from edgewise.serve.http.shelf import Place
    from edgewise.serve.llm import LLM

PORT = 8899
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def command(
    models: Annotated[
        list[str] | None, typer.Argument(help="folders, GGUF files or user/repo[:FILE]; none: the embedded model")
    ] = None,
    host: Annotated[str, typer.Option(help="address to listen on; any but loopback needs an API key")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one")] = PORT,
    api_key: Annotated[str | None, typer.Option(help="keys that open the server, separated by commas")] = None,
    api_key_file: Annotated[
        Path | None, typer.Option(help="keys, one a line; a file that is missing is made with a random key")
    ] = None,
    alias: Annotated[
        list[str] | None, typer.Option("--alias", "--served-model-name", help="names for MODEL…, in their order")
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="a name this server is called by; may be repeated")
    ] = None,
    allow_origin: Annotated[
        list[str] | None, typer.Option(help="a page elsewhere that may ask, such as https://chat.home; may be repeated")
    ] = None,
    context: Context = None,
    threads: Threads = None,
    kv_cache_dtype: CacheType = None,
    max_num_seqs: Annotated[
        int, typer.Option("--max-num-seqs", "-np", "--parallel", min=1, help="sequences computed together")
    ] = 16,
    max_queue: Annotated[int, typer.Option(min=0, help="requests that may wait; more get 429")] = 256,
    chat_template: Annotated[str | None, typer.Option(help="a Jinja template instead of the model's")] = None,
    chat_template_file: Annotated[Path | None, typer.Option(help="the same, from a file")] = None,
    request_timeout: Annotated[float, typer.Option(min=1, help="seconds a request may take")] = 3600.0,
    drain_timeout: Annotated[float, typer.Option(min=0, help="seconds for running requests at SIGTERM")] = 30.0,
    keep_alive: Annotated[
        str, typer.Option("--keep-alive", help='how long an unused model stays loaded: "5m", 0, or -1 for ever')
    ] = "-1",
    max_loaded: Annotated[
        int, typer.Option("--max-loaded", min=0, help="models in memory at once, others are loaded on demand; 0: all")
    ] = 0,
    policy: Policy = "fcfs",
    swap: Swap = "none",
    prefix_cache: PrefixCache = "none",
    speculator: Speculator = "none",
    verifier: Verifier = "auto",
    device: Annotated[str, typer.Option(help="where to compute; see `edgewise members`")] = "cpu",
    ram_budget: RamBudget = None,
    residency: Residency = "",
    prefetch: Prefetch = "none",
    neurons: Neurons = "",
) -> None:
    """Serves models over HTTP: OpenAI's completions and chat, and a page at /. Ctrl+C or SIGTERM finish what runs."""
    keys = (*_split(api_key), *_keys(api_key_file))
    if host not in LOOPBACK and not keys:
        raise BadInput(
            f"{host} can be reached from outside, so the server needs a key: --api-key-file FILE (made when missing), "
            "or the variable EDGEWISE_API_KEY."
        )
    try:
        from edgewise.serve.http.running import listen, serve
    except ModuleNotFoundError as missing:
        raise BadInput(f"The server needs the package '{missing.name}': pip install {missing.name}.") from None
    from edgewise.embedded import embedded_model
    from edgewise.serve.commands.run import _template as template_of
    from edgewise.serve.http.hosted import Hosted
    from edgewise.serve.http.keeping import RULE, seconds
    from edgewise.serve.http.settings import Settings
    from edgewise.serve.http.shelf import Place, read_card
    from edgewise.serve.llm import LLM

    paths: list[Path | None] = [hub.locate(name) for name in models or ()] or [None]
    if alias is not None and len(alias) != len(paths):
        raise BadInput(f"There are {len(paths)} models but {len(alias)} names (--alias). Give one each.")
    if ram_budget is not None and len(paths) > 1 and max_loaded != 1:
        raise Incompatible("--ram-budget counts the whole process: one model at a time, please (--max-loaded 1).")
    keep_s = seconds(keep_alive)
    if keep_s is None:
        raise BadInput(f"--keep-alive must be {RULE}, but is '{keep_alive}'.")
    sock = listen(host, port)
    sys.setswitchinterval(0.001)  # whoever waits for the interpreter, the engine or the event loop, waits at most this

    def opener(path: Path | None) -> "Callable[[], tuple[LLM, Any]]":
        def load() -> "tuple[LLM, Any]":
            llm = LLM(
                path, threads=threads, ctx_size=context, kv_cache_dtype=kv_cache_dtype or "auto", device=device,
                policy=policy, swap=swap, prefix_cache=prefix_cache, speculator=speculator, verifier=verifier,
                max_num_seqs=max_num_seqs, ram_budget=ram_budget, residency=residency, prefetch=prefetch,
                neurons=neurons,
                seed=int.from_bytes(os.urandom(4), "little"),
            )  # fmt: skip
            return llm, template_of(llm, chat_template, chat_template_file)

        return load

    openers = [opener(path) for path in paths]
    first = len(paths) if max_loaded == 0 else max_loaded
    try:
        loaded = [load() for load in openers[:first]]  # what is wrong with them is said before anybody asks
    except BaseException:
        sock.close()
        raise
    own = None if chat_template is None and chat_template_file is None else True
    cards = [read_card(path or embedded_model(), context, chat=own) for path in paths]
    names = alias or [_name(given, card.name) for given, card in zip(models or [""], cards, strict=True)]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise BadInput(f"Two models would be called '{twice}'. Name them with --alias.")
    settings = Settings(
        host=host, port=port, keys=keys, hosts=frozenset(allow_host or ()), origins=frozenset(allow_origin or ()),
        request_s=request_timeout, drain_s=drain_timeout, queue=max_queue, max_loaded=max_loaded, keep_s=keep_s,
    )  # fmt: skip

    def places() -> "list[Place]":
        found = [Place(name, card, load) for name, card, load in zip(names, cards, openers, strict=True)]
        for place in found[:first]:
            llm, template = loaded.pop(0)  # from here on nobody else holds it
            place.hosted = Hosted(llm, place.name, template, place.tally)
        return found

    shown = f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{sock.getsockname()[1]}"
    for at, (name, card) in enumerate(zip(names, cards, strict=True)):
        note = " (loaded when asked for)"
        if at < first:
            parts = loaded[at][0].parts
            note = f", KV cache {parts.kv_dtype} up to {human(parts.kv_bytes)}"
        print(f"edgewise: {name}, context {card.context} tokens{note}", file=sys.stderr)
    print(f"edgewise: serving on {url} (page: {url}/, OpenAI: {url}/v1)", file=sys.stderr, flush=True)
    asyncio.run(serve(places, settings, sock=sock))


def _name(given: str, own: str) -> str:
    """A repository keeps its name; a file goes by its own, without folder and ending."""
    if not given or (hub.is_repository(given) and not Path(given).exists()):
        return given or own
    path = Path(given)
    return path.stem if path.suffix == ".gguf" else path.resolve().name


def _split(keys: str | None) -> tuple[str, ...]:
    return tuple(key.strip() for key in (keys or "").split(",") if key.strip())


def _keys(file: Path | None) -> tuple[str, ...]:
    if file is None:
        return ()
    file = file.expanduser()
    try:
        if not file.exists():
            handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "w") as out:
                out.write(f"ew-{secrets.token_urlsafe(32)}\n")
            print(f"edgewise: made a random key in {file}", file=sys.stderr)
        if file.stat().st_mode & 0o077:
            raise BadInput(f"{file} can be read by others; set its mode to 0600.")
        keys = tuple(line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as problem:
        raise BadInput(f"The key file {file} cannot be used: {problem}.") from problem
    if not keys:
        raise BadInput(f"The key file {file} is empty.")
    return keys
