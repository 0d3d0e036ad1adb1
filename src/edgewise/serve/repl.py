"""The interactive prompt of `edgewise run`. Commands are Ollama's: /set /show /clear /help /bye, \"\"\" for lines.

Ctrl+C stops an answer and keeps what it said; Ctrl+D leaves.
"""

import sys
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

from edgewise.base import BadInput, EdgewiseError, SamplingParams
from edgewise.base.catalog import nearest
from edgewise.serve.options import human
from edgewise.serve.session import Answer, Session

HELP = """\
/set NAME VALUE   a setting: temperature, top_k, top_p, min_p, seed, max_tokens, stop, ...; also: system TEXT
/show             the model and the settings
/clear            forget the conversation
/bye              leave (so does Ctrl+D); Ctrl+C stops an answer
\"\"\"               starts and ends a prompt of several lines"""
SHORT = {"temp": "temperature", "num_predict": "max_tokens", "repeat_penalty": "repetition_penalty"}


class Repl:
    """session: the loaded model. read, write: a line in (raising EOFError at the end), text out."""

    def __init__(
        self,
        session: Session,
        *,
        verbose: bool = False,
        read: Callable[[str], str] = input,
        write: Callable[[str], Any] | None = None,
    ) -> None:
        self.session = session
        self.verbose = verbose
        self.history: list[dict[str, str]] = []
        self._read = read
        self._write = write or _stdout

    def loop(self) -> None:
        """Reads and answers until /bye or the end of input."""
        if self._read is input:
            _line_editing()
        llm = self.session.llm
        how = "chat" if self.session.chat else "it completes text; it was not made to chat"
        self._write(f"{llm.name} ({how}), context {llm.context} tokens. /help lists commands, /bye leaves.\n")
        while True:
            try:
                text = self._prompt()
            except KeyboardInterrupt:
                self._write("\n(Ctrl+D or /bye leaves)\n")
                continue
            except EOFError:
                self._write("\n")
                return
            if text.strip() in ("/bye", "/exit", "/quit"):
                return
            try:
                self._handle(text)
            except EdgewiseError as error:
                self._write(f"{error}\n")

    def _prompt(self) -> str:
        line = self._read(">>> ")
        if not line.lstrip().startswith('"""'):
            return line
        lines = [line.lstrip()[3:]]
        while not lines[-1].rstrip().endswith('"""'):
            lines.append(self._read("... "))
        lines[-1] = lines[-1].rstrip()[:-3]
        return "\n".join(lines).strip("\n")

    def _handle(self, text: str) -> None:
        word, _, rest = text.strip().partition(" ")
        if not word:
            return
        if not word.startswith("/") or word[1:2] in ("/", "*", ""):  # `// comment` is a prompt like any other
            self._answer(text)
            return
        verbs: dict[str, Callable[[str], None]] = {
            "/set": self._set, "/show": self._show, "/clear": self._clear, "/help": self._help, "/?": self._help,
        }  # fmt: skip
        if word not in verbs:
            raise BadInput(f"There is no command '{word}'.{nearest(word, [*verbs, '/bye'])}")
        verbs[word](rest.strip())

    def _answer(self, text: str) -> None:
        answer = Answer()
        try:
            for piece in self.session.ask(text, answer, self.history):
                self._write(piece)
        except KeyboardInterrupt:
            answer.finish_reason = "stopped"
        self._write("" if answer.text.endswith("\n") else "\n")
        if self.session.chat:
            self.history += [{"role": "user", "content": text}, {"role": "assistant", "content": answer.text}]
        if self.session.chat and answer.finish_reason == "length":
            self._write("(the answer reached its limit; /set max_tokens raises it, /clear frees the context)\n")
        if self.verbose and answer.finish_reason != "stopped":
            from edgewise.serve.commands.run import timing

            self._write(timing(answer) + "\n")

    def _set(self, rest: str) -> None:
        name, _, value = rest.partition(" ")
        name, value = SHORT.get(name.replace("-", "_"), name.replace("-", "_")), value.strip()
        if name == "parameter":  # Ollama's spelling: /set parameter temperature 0.5
            self._set(value)
        elif name == "system":
            if not self.session.chat:
                raise BadInput("A system prompt needs a chat; this model completes plain text.")
            self.session.system = value or None
        elif name == "verbose":
            self.verbose = value.lower() not in ("off", "0", "false")
        else:
            self.session.params = with_setting(self.session.params, name, value)

    def _show(self, _: str) -> None:
        parts, params = self.session.llm.parts, self.session.params
        plain = SamplingParams()
        self._write(
            f"{parts.header.name}: {parts.header.architecture}, {parts.spec.layers} layers, context {parts.context}, "
            f"KV cache {parts.kv_dtype} up to {human(parts.kv_bytes)}, {parts.device.info.isa} on "
            f"{parts.device.info.threads} threads\n"
        )
        for field in fields(params):
            value = getattr(params, field.name)
            if value != getattr(plain, field.name) or field.name in ("temperature", "max_tokens"):
                self._write(f"  {field.name} {value}\n")
        if self.session.system:
            self._write(f"  system {self.session.system}\n")
        self._write(f"  {len(self.history) // 2} exchanges in the conversation\n")

    def _clear(self, _: str) -> None:
        self.history.clear()

    def _help(self, _: str) -> None:
        self._write(HELP + "\n")


def with_setting(params: SamplingParams, name: str, value: str) -> SamplingParams:
    """`params` with one setting read from text. Raises BadInput naming the nearest setting, or what the value lacks."""
    kinds: dict[str, Callable[[str], Any]] = {
        "temperature": float, "top_p": float, "min_p": float, "repetition_penalty": float, "presence_penalty": float,
        "frequency_penalty": float, "top_k": int, "seed": int, "min_tokens": int, "ignore_eos": _truth,
        "max_tokens": lambda text: None if int(text) < 0 else int(text),
        "stop": lambda text: (text.encode().decode("unicode_escape"),) if text else (),
    }  # fmt: skip
    if name not in kinds:
        raise BadInput(f"There is no setting '{name}'.{nearest(name, [*kinds, 'system', 'verbose'])}")
    try:
        return replace(params, **{name: kinds[name](value)})
    except ValueError as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(f"'{value}' is not a value for {name}.") from None


def _truth(text: str) -> bool:
    return text.lower() in ("1", "on", "true", "yes", "enabled")


def _stdout(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _line_editing() -> None:
    try:
        import readline  # noqa: F401  (editing and history for input())
    except ImportError:
        return
