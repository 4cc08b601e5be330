"""The server, its bytecode counted: signals enter, the count so far leaves on standard output.

The first SIGRTMIN begins to count, in the thread of the event loop only: what the writer of the
record does depends on the time it has.  Each one more has the count written, a number on a line.
"""

import os
import signal
import sys
from types import FrameType
from typing import Any

# Before anything is counted, so that no import is.
import trio_cmd.cli
import trio_cmd.serving

_count = 0


def _trace(frame: FrameType, event: str, _: Any) -> Any:
    """Count each instruction of each frame."""
    global _count  # noqa: PLW0603 - a tracing function is called for each instruction: nothing is cheaper
    if event == "opcode":
        _count += 1
    elif event == "call":
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
    return _trace


def _tell(*_: object) -> None:
    """Write the count; begin to count."""
    os.write(1, b"%d\n" % _count)
    sys.settrace(_trace)


if __name__ == "__main__":
    signal.signal(signal.SIGRTMIN, _tell)
    sys.exit(trio_cmd.cli.main())
