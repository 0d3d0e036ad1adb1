"""The verbs of the command line, one file each. A file defines `command`, a function with typer annotations.

serve/cli.py lists them by name and imports a file only when its verb is used, so that `--help` stays fast.
"""
