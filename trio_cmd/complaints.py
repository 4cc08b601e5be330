"""Lines for the person at the terminal enter; standard error gets them, unless nobody reads there."""

import select
import sys

from trio_cmd.tokens import redact

__all__ = ["say"]

STANDARD_ERROR = 2


def say(*lines: str) -> None:
    """Write lines to standard error; never waits for its reader, and never fails.

    Args:
        lines: safe to show; what looks like a token in them is hidden.
    """
    if sys.stderr is None or not select.select([], [STANDARD_ERROR], [], 0)[1]:
        return
    try:
        print(*map(redact, lines), sep="\n", file=sys.stderr)
    except OSError:  # its reader is gone; what is left in the buffer would change the exit code
        sys.stderr = None
