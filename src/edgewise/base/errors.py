"""The four errors of the house. Each message says what, where, and what to do next."""


LONGEST = 2000  # characters of a message


class EdgewiseError(Exception):
    """Anything the user can act on. The command line prints it as one sentence and exits with 2."""

    def __str__(self) -> str:
        # Sentences quote what stood in a file: it may be a megabyte, or hold surrogates that no terminal can print.
        text = super().__str__()
        text = text if len(text) <= LONGEST else f"{text[: LONGEST - 200]} ... {text[-190:]}"
        return text.encode("utf-8", "backslashreplace").decode()


class BadInput(EdgewiseError, ValueError):
    """A file, a request or an argument is wrong: broken, contradictory or out of range."""


class Unsupported(EdgewiseError):
    """Well-formed, but nothing here can do it: an unknown architecture, format, operation or name."""


class Incompatible(EdgewiseError):
    """Two choices that work alone do not work together."""


class OutOfRoom(EdgewiseError, MemoryError):
    """It does not fit: memory, KV pages, context length or disk."""
