"""The command line: arguments enter, settings are made of them, the right thing is run."""

import argparse
import contextlib
import gc
import os
import select
import sys
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from functools import partial
from typing import NoReturn

import trio

from trio_cmd import __version__
from trio_cmd.commands import COMMANDS
from trio_cmd.errors import ListenError, SettingsError
from trio_cmd.escape import escape
from trio_cmd.records import EventLogger, Sink, events, open_records
from trio_cmd.records.events import record_fault
from trio_cmd.records.stdlib import route_stdlib
from trio_cmd.server.descriptors import hold_standard_descriptors
from trio_cmd.server.epoch import Prepared
from trio_cmd.server.inherited import Inherited, inherited_sockets, settings_of
from trio_cmd.server.server import Server
from trio_cmd.server.signals import EXIT_CRASHED, LAST_SECONDS, note_signals, obey_signals
from trio_cmd.server.systemd import Notifier, take_variables
from trio_cmd.server.tls import read_certificate
from trio_cmd.settings import (
    DEFAULT_PATH,
    FLAGS,
    Layer,
    Settings,
    find_origins,
    from_allow_flags,
    from_environment,
    from_flags,
    from_log_flags,
    is_exposed,
    keep_listeners,
    load,
    read_file,
    write_toml,
)
from trio_cmd.settings.values import NAME
from trio_cmd.tokens import digest_token, make_token, redact
from trio_cmd.work.roots import Roots

__all__ = ["main"]

# Of sysexits.h, but 2, which is argparse's.
EXIT_OK, EXIT_USAGE, EXIT_CANNOT_LISTEN, EXIT_SETTINGS = 0, 2, 71, 78
# Why it stopped, where no signal told it to.
_NO_SIGNAL = {EXIT_CRASHED: "crashed", EXIT_CANNOT_LISTEN: "cannot-listen"}
STANDARD_OUTPUT, STANDARD_ERROR = 1, 2

# Each in one line of a terminal of 80 columns: the whole help fits a screen.
_HELP = {
    "host": ("ADDRESS", 'listen here (127.0.0.1); "*": everywhere, "": no TCP'),
    "port": ("PORT", "listen there (9999); 0: any free port"),
    "unix-socket": ("PATH", "also listen at this path"),
    "max-clients": ("N", "this many clients at once (100)"),
    "log-format": ("FORMAT", "json, twisted, or auto: text on a terminal, else JSON"),
    "log-file": ("PATH", "record there instead of on standard output"),
    "root": ("DIR", "files below it may be hashed (/); may be repeated"),
}
_REPEATED = ("root",)
# Names that no program can have.
_TAKEN = [name.decode() for name in COMMANDS]

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
    """Run the program.

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
        return _show_new_token(_token_parser().parse_args(arguments[1:]).name)
    args = _parser().parse_args(arguments)
    try:
        sockets = inherited_sockets(variables)
        if args.print_config:
            return _print(_describe_settings(args, environ, sockets))
        prepared = _prepare(args, environ, sockets)
        if args.check_config:
            with prepared.roots:
                return _print(b"the settings are good\n")
        if STANDARD_OUTPUT in closed and not prepared.settings.logging.file:
            _complain(EXIT_OK, "standard output is closed: nothing is recorded")
        log, sink = open_records(
            prepared.settings.logging,
            STANDARD_OUTPUT,
            journal_stream=environ.get("JOURNAL_STREAM", ""),
            complain=partial(_complain, EXIT_OK),
        )
    except SettingsError as error:
        return _say(EXIT_SETTINGS, *error.faults)
    except ListenError as error:
        return _complain(EXIT_CANNOT_LISTEN, str(error))
    with Notifier(variables, log) as notifier:
        make_server = partial(
            Server,
            *(prepared.settings, log, sink, __version__, prepared.roots, prepared.tls),
            inherited=sockets,
            notifier=notifier,
            read=partial(_prepare, args, environ, sockets),
        )
        return _serve(make_server, log, sink, is_process=argv is None)


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are safe to show: what was typed wrongly may be a token."""

    def error(self, message: str) -> NoReturn:
        super().error(escape(message))


def _parser() -> _Parser:
    parser = _Parser(
        prog="trio-cmd",
        usage="trio-cmd [OPTION ...]\n       trio-cmd token NAME",
        description="A small, read-only, auditable window into a host, over a socket.",
        epilog="token NAME makes a token, and prints it with the grant for the settings.",
        allow_abbrev=False,
    )
    for flag, (metavar, text) in _HELP.items():
        action = "append" if flag in _REPEATED else "store"
        parser.add_argument(f"--{flag}", metavar=metavar, help=text, action=action)
    parser.add_argument("--config", metavar="FILE", help=f"settings ($TRIO_CMD_CONFIG, else {DEFAULT_PATH})")
    parser.add_argument(
        "--log", metavar="NAME=PATH", action="append", default=[], help="a log to offer; may be repeated"
    )
    parser.add_argument(
        "--allow",
        metavar="NETWORK",
        action="append",
        default=[],
        help="its clients may run all commands; may be repeated",
    )
    parser.add_argument(
        "--allow-root", action="store_true", help="let other hosts in though the server runs as root"
    )
    parser.add_argument("--check-config", action="store_true", help="check the settings and leave")
    parser.add_argument(
        "--print-config", action="store_true", help="print the settings and where each came from, and leave"
    )
    parser.add_argument("--version", action="version", version=f"trio-cmd {__version__}")
    return parser


def _token_parser() -> _Parser:
    parser = _Parser(
        prog="trio-cmd token",
        description="Make a token; print it, and the grant for the settings that holds its digest.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "name", metavar="NAME", type=_grant_name, help="of the grant: a-z, 0-9 and -, at most 32"
    )
    return parser


def _grant_name(text: str) -> str:
    if not NAME.fullmatch(text):
        raise argparse.ArgumentTypeError("expected a-z, 0-9 and -, beginning with a letter, at most 32")
    return text


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


def _prepare(
    args: argparse.Namespace,
    environ: Mapping[str, str],
    sockets: Sequence[Inherited] = (),
    in_force: Settings | None = None,
) -> Prepared:
    """Collect the settings, and read and open what they name; it may wait for a disk.

    Args:
        args: the flags.
        environ: the environment.
        sockets: to listen on instead of those of the settings.
        in_force: the settings of a server that runs.

    Raises:
        SettingsError: what is wrong.
    """
    settings, _ = _load_settings(args, environ, sockets, in_force)
    tls = read_certificate(settings.tls)
    return Prepared(settings, Roots(settings.comphash.roots), tls)


def _load_settings(
    args: argparse.Namespace,
    environ: Mapping[str, str],
    sockets: Sequence[Inherited] = (),
    in_force: Settings | None = None,
) -> tuple[Settings, list[Layer]]:
    """Collect the settings; returns also the layers they are made of.

    Raises:
        SettingsError: with the faults of all places, also when the file cannot be read.
    """
    layers, faults = _collect_layers(args, environ, sockets)
    try:
        settings = load(layers, _TAKEN, in_force)
        _check_user(settings, is_root_allowed=args.allow_root)
        if in_force is not None:
            _check_user(keep_listeners(settings, in_force), is_root_allowed=args.allow_root)
    except SettingsError as error:
        faults += error.faults
    if faults:
        raise SettingsError(faults)
    return settings, layers


def _collect_layers(
    args: argparse.Namespace, environ: Mapping[str, str], sockets: Sequence[Inherited]
) -> tuple[list[Layer], list[str]]:
    """Read the settings of all places, the strongest last; returns also why the file cannot be read."""
    given = {flag: vars(args)[flag.replace("-", "_")] for flag in FLAGS}
    flags = {flag: text for flag, text in given.items() if text is not None}
    path = (
        args.config
        or environ.get("TRIO_CMD_CONFIG")
        or (DEFAULT_PATH if os.path.exists(DEFAULT_PATH) else None)
    )
    layers: list[Layer] = []
    faults: list[str] = []
    try:
        layers += [read_file(path)] if path else []
    except SettingsError as error:
        faults += error.faults
    repeated = from_log_flags(args.log), from_allow_flags(args.allow)
    strongest = [settings_of(sockets)] if sockets else []
    return [*layers, from_environment(environ), from_flags(flags), *repeated, *strongest], faults


def _describe_settings(
    args: argparse.Namespace, environ: Mapping[str, str], sockets: Sequence[Inherited]
) -> bytes:
    """Write the settings down, each with where it came from.

    Raises:
        SettingsError: what is wrong with them.
    """
    settings, layers = _load_settings(args, environ, sockets)
    return write_toml(settings, find_origins(layers))


def _check_user(settings: Settings, *, is_root_allowed: bool) -> None:
    """Do not let other hosts ask a server that may read everything, unless that is wanted.

    Raises:
        SettingsError: it is not.
    """
    if os.geteuid() == 0 and is_exposed(settings) and not is_root_allowed:
        where = f"server.host: {settings.server.host} can be reached from other hosts, and this is root"
        raise SettingsError([f"{where}; start as another user, or say --allow-root"])


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
    return _say(code, f"trio-cmd: {line}")


def _say(code: int, *lines: str) -> int:
    """Write to standard error, unless nobody reads there; returns the exit code."""
    if sys.stderr is not None and select.select([], [STANDARD_ERROR], [], 0)[1]:
        try:
            print(*map(redact, lines), sep="\n", file=sys.stderr)
        except OSError:  # its reader is gone; what is left in the buffer would change the exit code
            sys.stderr = None
    return code
