"""The server as a program: arguments enter, settings are made of them, it is served until told to stop."""

import contextlib
import gc
import os
import sys
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from functools import partial

import trio

from trio_cmd import __version__
from trio_cmd.complaints import say
from trio_cmd.errors import ListenError, SettingsError
from trio_cmd.flags import parse_flags, parse_token_flags
from trio_cmd.preparation import describe_settings, prepare
from trio_cmd.records import EventLogger, Sink, events, open_records
from trio_cmd.records.events import record_fault
from trio_cmd.records.stdlib import route_stdlib
from trio_cmd.server.descriptors import hold_standard_descriptors
from trio_cmd.server.inherited import inherited_sockets
from trio_cmd.server.server import Server
from trio_cmd.server.signals import EXIT_CRASHED, LAST_SECONDS, note_signals, obey_signals
from trio_cmd.server.systemd import Notifier, take_variables
from trio_cmd.settings import DEFAULT_PATH, Settings
from trio_cmd.tokens import digest_token, make_token

__all__ = ["main"]

# Of sysexits.h, but 2, which is argparse's.
EXIT_OK, EXIT_USAGE, EXIT_CANNOT_LISTEN, EXIT_SETTINGS = 0, 2, 71, 78
# Why it stopped, where no signal told it to.
_NO_SIGNAL = {EXIT_CRASHED: "crashed", EXIT_CANNOT_LISTEN: "cannot-listen"}
STANDARD_OUTPUT = 1

# The token stands alone before what is put into a file: added to one whole, it is a fault of TOML at once.
_NEW_GRANT = """\
{token}

# The token above is shown only this once: give it to the client, which sends it behind "auth".
# The grant below holds its digest and belongs into the settings, {path} or the file of --config.
[[grants]]
name = "{name}"
token_sha256 = "{digest}"
# addresses = ["10.0.0.0/8"]  # without them: loopback and the unix socket only
commands = ["ping", "status", "lastlog"]  # or ["*"]: all
"""


def main(argv: Sequence[str] | None = None, environ: MutableMapping[str, str] = os.environ) -> int:
    """Run the server, or what prepares for it.

    Args:
        argv: arguments without the program's name; by default the process' own.
        environ: the environment; what systemd says in it is taken out.

    Returns:
        The exit code: 0 ok, 2 usage, 78 settings, 71 cannot listen, 70 crashed.
    """
    closed = hold_standard_descriptors()
    variables = take_variables(environ)
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["token"]:
        return _show_new_token(parse_token_flags(arguments[1:]))
    args = parse_flags(arguments)
    try:
        sockets = inherited_sockets(variables)
        if args.print_config:
            return _print(describe_settings(args, environ, sockets))
        prepared = prepare(args, environ, sockets)
        if args.check_config:
            with prepared.roots:
                return _print(b"the settings are good\n")
        log, sink = _open_records(prepared.settings, environ, closed)
    except SettingsError as error:
        say(*error.faults)
        return EXIT_SETTINGS
    except ListenError as error:
        return _complain(EXIT_CANNOT_LISTEN, str(error))
    read = partial(prepare, args, environ, sockets)
    with Notifier(variables, log) as notifier:
        make_server = partial(
            Server,
            *(prepared.settings, log, sink, __version__, prepared.roots, prepared.tls),
            inherited=sockets,
            notifier=notifier,
            read=read,
        )
        return _serve(make_server, log, sink, is_process=argv is None)


def _open_records(
    settings: Settings, environ: Mapping[str, str], closed: Sequence[int]
) -> tuple[EventLogger, Sink]:
    """Begin to record, and complain of what is not recorded.

    Args:
        settings: checked.
        environ: the environment; tells of systemd's journal.
        closed: descriptors that were closed when the process began.

    Raises:
        SettingsError: the file of the record cannot be opened.
    """
    if STANDARD_OUTPUT in closed and not settings.logging.file:
        _complain(EXIT_OK, "standard output is closed: nothing is recorded")
    return open_records(
        settings.logging,
        STANDARD_OUTPUT,
        journal_stream=environ.get("JOURNAL_STREAM", ""),
        complain=partial(_complain, EXIT_OK),
    )


def _show_new_token(name: str) -> int:
    """Make a token and print it with its grant; returns the exit code."""
    token = make_token()
    digest = digest_token(token.encode())
    text = _NEW_GRANT.format(token=token, path=DEFAULT_PATH, name=name, digest=digest)
    try:
        os.write(STANDARD_OUTPUT, text.encode())  # not buffered: no copy stays, and a full disk is told
    except OSError as error:
        return _complain(EXIT_CRASHED, f"the token cannot be printed: {error.strerror}; make another")
    return EXIT_OK


def _serve(make_server: Callable[[], Server], log: EventLogger, sink: Sink, *, is_process: bool) -> int:
    """Serve until told to stop, and see the last records out."""
    with note_signals(is_last=is_process) as noted, route_stdlib(log):
        log.record(events.LOG_OPENED, version=__version__, pid=os.getpid())
        server = make_server()
        code = _run(server, log, noted)
        log.record(events.STOPPED, reason=_NO_SIGNAL.get(code) or server.stop_reason)
        if unsaid := sink.close(server.seconds_left(LAST_SECONDS)):
            _complain(code, f"{unsaid} log events could not be written")
    return code


def _run(server: Server, log: EventLogger, noted: Sequence[int]) -> int:
    """Run the event loop; returns the exit code."""
    code = EXIT_OK
    try:
        trio.run(_serve_until_stopped, server, log, noted)
    except* Exception as errors:
        code = _explain_crash(errors, log)
    return code


async def _serve_until_stopped(server: Server, log: EventLogger, noted: Sequence[int]) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(obey_signals, server, log, nursery.cancel_scope, noted)
        async with trio.open_nursery() as serving:
            await serving.start(server.serve)
            gc.collect()
            gc.freeze()  # what is there now stays: no collection need look at it again
        nursery.cancel_scope.cancel()


def _explain_crash(errors: BaseExceptionGroup[BaseException], log: EventLogger) -> int:
    """Say why the server ended by itself."""
    refused, others = errors.split(ListenError)
    if others is not None:
        record_fault(log, others)
        return _complain(EXIT_CRASHED, "the server has crashed; the record says where")
    error: BaseException | None = refused
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return _complain(EXIT_CANNOT_LISTEN, str(error))


def _print(data: bytes) -> int:
    """Write to standard output; returns the exit code."""
    with contextlib.suppress(OSError):  # whoever reads the exit code needs no line
        while data:
            data = data[os.write(STANDARD_OUTPUT, data) :]
    return EXIT_OK


def _complain(code: int, line: str) -> int:
    """Say on standard error what is wrong; returns the exit code."""
    say(f"trio-cmd: {line}")
    return code
