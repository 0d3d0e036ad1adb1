"""The four errors of the house. Each message says what, where, and what to do next."""


class EdgewiseError(Exception):
    """Anything the user can act on. The command line prints it as one sentence and exits with 2."""


class BadInput(EdgewiseError, ValueError):
    """A file, a request or an argument is wrong: broken, contradictory or out of range."""


class Unsupported(EdgewiseError):
    """Well-formed, but nothing here can do it: an unknown architecture, format, operation or name."""


class Incompatible(EdgewiseError):
    """Two choices that work alone do not work together."""


class OutOfRoom(EdgewiseError, MemoryError):
    """It does not fit: memory, KV pages, context length or disk."""
