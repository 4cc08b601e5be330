"""The command line: arguments enter, the program that they are for is run."""

import os
import signal
import sys
from collections.abc import MutableMapping, Sequence

from trio_cmd.server.descriptors import hold_standard_descriptors

__all__ = ["main"]


def main(argv: Sequence[str] | None = None, environ: MutableMapping[str, str] = os.environ) -> int:
    """Run the program: ``ask`` is the other end, everything else the server.

    Args:
        argv: arguments without the program's name; by default the process' own.
        environ: the environment.

    Returns:
        The exit code; see ``client.ask`` and ``serving``.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    # Each end is imported when it is run: the server would cost whoever asks 0.15 s at each start.
    if arguments[:1] == ["ask"]:
        if argv is None and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while it begins leaves no traceback
        from trio_cmd.client.ask import main as ask  # noqa: PLC0415

        hold_standard_descriptors()
        return ask(arguments[1:])
    from trio_cmd.serving import main as serve  # noqa: PLC0415

    return serve(argv, environ)
