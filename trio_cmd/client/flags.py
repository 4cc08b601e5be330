"""The flags of ``ask``: arguments enter, what they say leaves, not judged yet."""

import argparse
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NoReturn, get_args

from trio_cmd.client.hosts import MAX_HOSTS
from trio_cmd.escape import escape

__all__ = [
    "DEFAULT_AT_ONCE",
    "DEFAULT_TIMEOUT_SECONDS",
    "PROGRAM",
    "USAGE",
    "Output",
    "make_parser",
    "read_flags",
]

Output = Literal["auto", "text", "json", "groups", "checksums"]

PROGRAM = "trio-cmd ask"
USAGE = f"{PROGRAM} [OPTION ...] HOST ... -- COMMAND"
DEFAULT_AT_ONCE = 64
DEFAULT_TIMEOUT_SECONDS = 10.0
_MAX_TIMEOUT_SECONDS = 86_400  # a day
_COUNT = re.compile(r"[1-9][0-9]{0,3}|10000")  # up to MAX_HOSTS


def read_flags(
    parser: argparse.ArgumentParser, arguments: Sequence[str]
) -> tuple[argparse.Namespace, Sequence[str] | None]:
    """Read options and hosts, then ``--`` and the command.

    Returns:
        The flags, and the words of the command; ``None``: there is no ``--``.

    Raises:
        SystemExit: 2, with one line on standard error; 0 after ``--help``.
    """
    words = list(arguments)
    end = words.index("--") if "--" in words else len(words)
    args, unknown = parser.parse_known_intermixed_args(words[:end])
    if unknown:
        parser.error(f"unknown option {unknown[0]}; {PROGRAM} --help lists them")
    return args, words[end + 1 :] if end < len(words) else None


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line and safe to show: what was typed wrongly may be a token."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{PROGRAM}: {escape(message)}\n")


def make_parser() -> argparse.ArgumentParser:
    """Make what reads the flags, and complains."""
    parser = _Parser(
        prog=PROGRAM,
        usage=USAGE,
        description="Ask one server or a thousand.\nHOST: web1, web1:9998, [::1]:99, unix:PATH, 'web[01-20]'",
        epilog="exit code: 0 all is well, 1 some failed, 2 usage, 3 none answered, 4 they differ",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("hosts", nargs="*", help=argparse.SUPPRESS)
    for flag, (metavar, text) in _HELP.items():
        kind = dict(_KINDS.get(flag, {}))
        if metavar is not None:
            kind["metavar"] = metavar
        parser.add_argument(flag, help=text, **kind)
    return parser


def _words(text: str) -> list[str]:
    words = text.split(",")
    if not all(words):
        raise argparse.ArgumentTypeError("expected groups or hosts, with commas between them")
    return words


def _count(text: str) -> int:
    if not _COUNT.fullmatch(text):
        raise argparse.ArgumentTypeError(f"expected a number from 1 to {MAX_HOSTS}")
    return int(text)


def _seconds(text: str) -> float:
    expected = f"expected seconds, more than 0 and at most {_MAX_TIMEOUT_SECONDS}"
    try:
        seconds = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(expected) from None
    if not 0 < seconds <= _MAX_TIMEOUT_SECONDS:
        raise argparse.ArgumentTypeError(expected)
    return seconds


# Flag -> its value's name, and what it does: each in one line of a terminal of 80 columns.
_HELP: Mapping[str, tuple[str | None, str]] = {
    "--hosts-file": ("FILE", "hosts, one in a line (-: standard input); may be repeated"),
    "--inventory": ("FILE", "hosts of an inventory of Ansible"),
    "--limit": ("GROUP,...", "only these groups and hosts of the inventory"),
    "-j": ("N", "hosts at once (64)"),
    "--timeout": ("SECONDS", "for connecting, and again for each answer (10)"),
    "--token-file": ("FILE", "say who asks; nobody else may read the file"),
    "--tls": (None, "speak TLS; the next three imply it"),
    "--ca": ("FILE", "believe these authorities, not those of the system"),
    "--cert": ("FILE", "show this certificate"),
    "--key": ("FILE", "the key of the certificate, if it is not in its file"),
    "--commands": ("FILE", "ask these, one in a line (-: standard input)"),
    "--manifest": ("FILE", "check files by lines of sha256sum (-: standard input)"),
    "--output": ("FORMAT", "auto, text, json, groups or checksums (auto)"),
    "--expect-same": (None, "exit code 4 when the hosts' answers differ"),
}
# How those are read that are no single text.
_KINDS: Mapping[str, Mapping[str, Any]] = {
    "--hosts-file": {"action": "append", "default": []},
    "--limit": {"action": "extend", "type": _words, "default": []},
    "-j": {"dest": "at_once", "type": _count, "default": DEFAULT_AT_ONCE},
    "--timeout": {"type": _seconds, "default": DEFAULT_TIMEOUT_SECONDS},
    "--tls": {"action": "store_true"},
    "--output": {"choices": get_args(Output), "default": "auto"},
    "--expect-same": {"action": "store_true"},
}
