"""Where the compiled extension is."""


def native_path() -> str | None:
    """The file of the compiled extension; None without one."""
    try:
        from edgewise import _native
    except ImportError:
        return None
    return _native.__file__
