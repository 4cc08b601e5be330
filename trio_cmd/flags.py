"""The flags: arguments enter, what they ask for leaves."""

import argparse
from collections.abc import Sequence
from typing import NoReturn

from trio_cmd import __version__
from trio_cmd.escape import escape
from trio_cmd.settings import DEFAULT_PATH
from trio_cmd.settings.values import NAME

__all__ = ["parse_flags", "parse_token_flags"]

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


def parse_flags(arguments: Sequence[str]) -> argparse.Namespace:
    """Read what the server is started with.

    Raises:
        SystemExit: 2, with what is wrong on standard error; 0 after ``--help`` and ``--version``.
    """
    return _parser().parse_args(arguments)


def parse_token_flags(arguments: Sequence[str]) -> str:
    """Read what stands behind ``token``: the name of a grant.

    Raises:
        SystemExit: as above.
    """
    return str(_token_parser().parse_args(arguments).name)


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are safe to show: what was typed wrongly may be a token."""

    def error(self, message: str) -> NoReturn:
        super().error(escape(message))


def _parser() -> _Parser:
    parser = _Parser(
        prog="trio-cmd",
        usage="trio-cmd [OPTION ...] | token NAME\n       trio-cmd ask [OPTION ...] HOST ... -- COMMAND",
        description="A small, read-only, auditable window into a host, over a socket.",
        epilog="token NAME makes a token and its grant; ask --help tells of the other end.",
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
