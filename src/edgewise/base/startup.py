"""Milestones of a start, for bench/first_token.py --phases: EDGEWISE_TRACE_START=1 prints each with the wall clock."""

import os
import sys
import time

_ON = os.environ.get("EDGEWISE_TRACE_START", "") not in ("", "0")


def milestone(what: str) -> None:
    """Prints "start: SECONDS WHAT" on standard error, seconds since 1970; nothing when nobody asked."""
    if _ON:
        print(f"start: {time.time():.6f} {what}", file=sys.stderr)
