"""The command `edgewise`: a table of verbs, and one place where every error becomes a sentence.

A verb lives in serve/commands/<verb>.py as `command`: a function with typer annotations, a whole `typer.Typer` when the
verb has sub-verbs, or a catalog of functions (its first member runs when the arguments name none). Its file is imported
only when the verb runs, so `edgewise --help` costs milliseconds.
Every flag `--some-flag` (and each of its aliases) can also be given as the environment variable EDGEWISE_SOME_FLAG;
the command line wins. Exit codes: 0 done, 1 our mistake, 2 the user can act on it, 130 interrupted.
"""

import importlib
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

# verb → its one line in --help; the order is the order of the help page
VERBS: dict[str, str] = {
    "run": "complete a prompt or chat; no model: the embedded one",
    "serve": "an OpenAI-compatible server and a page to chat on",
    "show": "what a model is: architecture, sizes, formats, memory",
    "plan": "what a model needs and how fast it will be under a memory budget",
    "ls": "models in the Hugging Face cache and in this folder",
    "pull": "download a model into the Hugging Face cache",
    "rm": "delete a model from the Hugging Face cache",
    "convert": "write a model as GGUF or safetensors, in another format",
    "tune": "find the fastest settings for this machine: `tune kernels`",
    "bench": "measure speed against the machine's roof; `bench NAME`: other questions",
    "score": "perplexity of a text; divergence against a second model",
    "trace": "write down what happens inside: `trace routing`, a mixture's experts",
    "replay": "what a cache of experts would have held, from a trace of routing",
    "check": "prove properties on a model, for example `check invariance`",
    "inflate": "make a trained model larger without changing what it says, for measurements",
    "fabricate": "make a model with random weights in a named real shape",
    "tokenize": "text to token ids and pieces",
    "template": "render a chat template over messages",
    "doctor": "what this machine offers and which kernels were chosen",
    "systems": "the published systems edgewise unites, and their state",
    "members": "every catalog with its members, paper and status",
    "train": "train the family of small models (needs the extra `train`)",
    "version": "versions of edgewise, its extension and Python",
}
ALIASES = {"list": "ls", "generate": "run", "chat": "run", "download": "pull", "info": "show"}

INTERRUPTED = 130
BROKEN_PIPE = 141  # what a shell reports for a program stopped by SIGPIPE


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code. No traceback leaves it unless EDGEWISE_DEBUG=1."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = os.environ.get("EDGEWISE_DEBUG", "") in ("1", "on", "true", "enabled")
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            code = _dispatch(arguments)
            sys.stdout.flush()
            return code
        except KeyboardInterrupt:
            return INTERRUPTED
        except (BrokenPipeError, _ClosedPipeError):
            # Python flushes stdout again at exit: give it somewhere to go, so that it stays quiet.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return BROKEN_PIPE
        except Exception as error:
            if debug:
                raise
            code, sentence = _explain(error)
            print(f"edgewise: {sentence}", file=sys.stderr)
            return code


def _dispatch(arguments: list[str]) -> int:
    first = arguments[0] if arguments else "--help"
    if first == "help" and len(arguments) > 1:
        arguments, first = [arguments[1], "--help"], arguments[1]
    if first in ("--help", "-h", "help"):
        print(_help())
        return 0
    if first in ("--version", "-V"):
        first = "version"
    verb = ALIASES.get(first, first)
    if verb not in VERBS:
        from edgewise.base import BadInput
        from edgewise.base.catalog import nearest

        what = "option" if first.startswith("-") else "command"
        raise BadInput(f"There is no {what} '{first}'.{nearest(first, [*VERBS, *ALIASES])} See 'edgewise --help'.")
    words, rest = _words(verb, arguments[1:])
    result = load(*words).main(args=rest, prog_name=f"edgewise {' '.join(words)}", standalone_mode=False)
    return result if isinstance(result, int) else 0


def _words(verb: str, arguments: list[str]) -> tuple[list[str], list[str]]:
    """The words that name a command, and what is left of the arguments."""
    from edgewise.base import Catalog

    catalog = importlib.import_module(f"edgewise.serve.commands.{verb}").command
    named = isinstance(catalog, Catalog) and arguments[:1] and arguments[0] in catalog
    return ([verb, arguments[0]], arguments[1:]) if named else ([verb], arguments)


def load(verb: str, member: str | None = None) -> Any:
    """The click command of a verb, or of a member of its catalog, its flags bound to their environment variables."""
    import typer

    from edgewise.base import Catalog

    app = importlib.import_module(f"edgewise.serve.commands.{verb}").command
    epilog = None
    if isinstance(app, Catalog):
        others = ", ".join(f"'edgewise {verb} {name}'" for name in app)
        epilog = None if member else f"See also {others}."
        app = app.load(member or next(iter(app)))
    if not isinstance(app, typer.Typer):
        function = app
        app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
        app.command(name=member or verb, help=None if function.__doc__ else VERBS[verb], epilog=epilog)(function)
    command = typer.main.get_command(app)
    _prepare(command)
    return command


class _ClosedPipeError(Exception):
    """BrokenPipeError under a name that click does not know: it would answer with exit code 1."""


def _prepare(command: Any) -> None:
    """Binds flags to their variables, and brings a closed pipe to `main`; the same for sub-verbs."""
    for child in getattr(command, "commands", {}).values():
        _prepare(child)
    if command.callback is not None:
        command.callback = _watched(command.callback)
    for parameter in command.params:
        if parameter.param_type_name == "option" and parameter.envvar is None and parameter.name != "help":
            long = [flag for flag in parameter.opts if flag.startswith("--")]
            parameter.envvar = ["EDGEWISE_" + flag[2:].upper().replace("-", "_") for flag in long] or None
            parameter.show_envvar = False
            for name in parameter.envvar or () if parameter.is_flag else ():
                value = os.environ.get(name, "").lower()
                if value in ("enabled", "disabled"):  # llama.cpp's words, which click does not know
                    os.environ[name] = str(int(value == "enabled"))


def _watched(callback: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            result = callback(*args, **kwargs)
            sys.stdout.flush()
            return result
        except BrokenPipeError as error:
            raise _ClosedPipeError from error

    return call


def _explain(error: Exception) -> tuple[int, str]:
    """(exit code, one sentence) for anything that went wrong."""
    import typer

    from edgewise.base import EdgewiseError

    usage_error = typer.BadParameter.__mro__[2]  # click's own root class, wherever this typer keeps click
    if isinstance(error, usage_error):
        context = getattr(error, "ctx", None)
        path = context.command_path if context else "edgewise"
        message = error.format_message().strip()  # type: ignore[attr-defined]
        return 2, f"{message}{'' if message.endswith(('.', '?')) else '.'} See '{path} --help'."
    if isinstance(error, EdgewiseError):
        return 2, " ".join(str(error).split())
    if isinstance(error, typer.Abort):
        return INTERRUPTED, "stopped."
    if isinstance(error, OSError):
        return 2, f"{error.strerror or type(error).__name__}: {error.filename or error}."
    if isinstance(error, MemoryError):
        return 2, "This machine has not enough memory for that; try a smaller context (-c) or a smaller format."
    return 1, f"Internal error, {type(error).__name__}: {error}. EDGEWISE_DEBUG=1 shows where; please report it."


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"edgewise: warning: {message}", file=sys.stderr)


def _help() -> str:
    width = max(map(len, VERBS))
    lines = [
        "Usage: edgewise COMMAND [ARGUMENTS]",
        "",
        "Runs language models on machines that are too small for them.",
        "",
        "Commands:",
        *(f"  {verb:<{width}}  {line}" for verb, line in VERBS.items()),
        "",
        "'edgewise COMMAND --help' explains one; every --flag is also the variable EDGEWISE_FLAG.",
        "'edgewise --version' prints the version; EDGEWISE_DEBUG=1 shows tracebacks.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
