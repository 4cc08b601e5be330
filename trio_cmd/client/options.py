"""What is asked of whom, and how: arguments enter, checked options leave.

Everything is judged before the first host is asked; what is wrong is one line on standard error
that says what to do instead, and exit code 2.
"""

import argparse
import os
import ssl
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from trio_cmd.client.credentials import make_tls_context, read_token
from trio_cmd.client.flags import (
    DEFAULT_AT_ONCE,
    DEFAULT_TIMEOUT_SECONDS,
    PROGRAM,
    USAGE,
    Output,
    make_parser,
    read_flags,
)
from trio_cmd.client.hosts import MAX_HOSTS, Host, expand_hosts, read_hosts
from trio_cmd.client.inventory import read_inventory
from trio_cmd.client.manifest import Expected, read_manifest
from trio_cmd.client.questions import check_question, followed_log, read_questions
from trio_cmd.client.sources import STANDARD_INPUT, read_source
from trio_cmd.complaints import say

__all__ = ["Options", "parse_options"]


_MAX_NAMED = 3  # hosts that are named in a note


@dataclass(frozen=True, slots=True)
class Options:
    """What ``ask`` is told, all of it checked.

    Attributes:
        hosts: each once, at least one.
        commands: the lines to ask, without line endings; none with a manifest or when a log is followed.
        at_once: hosts, at least one.
        timeout_seconds: for connecting, and again for each answer.
        token: ``None``: none is sent.
        tls: ``None``: plain TCP.
        output: how the answers are shown.
        expect_same: whether answers that differ change the exit code.
        manifest: what files should be, else ``None``.
        follow: the log to follow, empty for the default one, else ``None``.
    """

    hosts: tuple[Host, ...]
    commands: tuple[bytes, ...] = ()
    at_once: int = DEFAULT_AT_ONCE
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS
    token: str | None = None
    tls: ssl.SSLContext | None = None
    output: Output = "auto"
    expect_same: bool = False
    manifest: tuple[Expected, ...] | None = None
    follow: str | None = None


def parse_options(arguments: Sequence[str]) -> Options:
    """Read what stands behind ``ask``: options and hosts, then ``--`` and the command.

    Reads the files that are named, and waits for them; notes on standard error which hosts are named
    twice.

    Raises:
        SystemExit: 2, with one line on standard error; 0 after ``--help``.
    """
    parser = make_parser()
    args, command = read_flags(parser, arguments)
    try:
        return _check(args, command)
    except ValueError as error:
        parser.error(str(error))


def _check(args: argparse.Namespace, command: Sequence[str] | None) -> Options:
    """Judge what was read, and read the files.

    Raises:
        ValueError: what is wrong, and what to do instead.
    """
    _check_flags(args, command)
    manifest = None if args.manifest is None else read_manifest(read_source(args.manifest))
    questions = _questions(args, command)
    follow = _followed(questions)
    uses_tls = args.tls or (args.ca, args.cert, args.key) != (None, None, None)
    tls = make_tls_context(args.ca, args.cert, args.key) if uses_tls else None
    token = None if args.token_file is None else read_token(args.token_file)
    options = Options(
        hosts=_hosts(args),
        commands=questions if follow is None else (),
        at_once=args.at_once,
        timeout_seconds=args.timeout,
        token=token,
        tls=tls,
        output=args.output,
        expect_same=args.expect_same,
        manifest=manifest,
        follow=follow,
    )
    _check_output(options)
    _check_token(options)
    return options


def _check_flags(args: argparse.Namespace, command: Sequence[str] | None) -> None:
    """Check that one thing is asked, and standard input read once.

    Raises:
        ValueError: it is not so.
    """
    given = [] if command is None else ["a command"]
    given += [flag for flag in ("--commands", "--manifest") if getattr(args, flag[2:]) is not None]
    if not given:
        raise ValueError(f"no command; put it behind the hosts and two dashes: {USAGE}")
    if len(given) > 1:
        raise ValueError(f"{' and '.join(given)}: give one of them")
    if [*args.hosts_file, args.commands, args.manifest].count(STANDARD_INPUT) > 1:
        raise ValueError("standard input can be read once; name a file in place of one -")
    if args.limit and args.inventory is None:
        raise ValueError("--limit: chooses from an inventory; name that as well: --inventory FILE")


def _check_output(options: Options) -> None:
    """Check that what is asked can be shown as it should be.

    Raises:
        ValueError: it cannot; what can.
    """
    is_list = options.manifest is not None or options.follow is not None
    if options.expect_same and is_list:
        raise ValueError("--expect-same: compares answers, and here are none to compare; leave it out")
    if options.follow is not None and options.output in ("groups", "checksums"):
        raise ValueError(f"--output {options.output}: follow has no end; use text or json")
    if options.output == "checksums":
        _check_checksums(options)


def _check_token(options: Options) -> None:
    """Check that nobody on the way can read the token: servers beyond this machine want TLS for it as well.

    Raises:
        ValueError: somebody could.
    """
    if options.token is None or options.tls is not None:
        return
    for host in options.hosts:
        if not host.is_here:
            raise ValueError(f"--token-file: {host.name} is another machine, ask it with --tls")


def _check_checksums(options: Options) -> None:
    if options.manifest is not None or not all(map(_is_comphash, options.commands)):
        raise ValueError("--output checksums: shows the answers of comphash; ask comphash, or use text")
    if len(options.hosts) > 1:
        raise ValueError("--output checksums: is for one host; use groups to compare many")


def _is_comphash(question: bytes) -> bool:
    return question.split(None, 1)[0] == b"comphash"


def _questions(args: argparse.Namespace, command: Sequence[str] | None) -> tuple[bytes, ...]:
    if command is not None:
        return (check_question(b" ".join(map(os.fsencode, command))),)
    return tuple(read_questions(read_source(args.commands))) if args.commands is not None else ()


def _followed(questions: Sequence[bytes]) -> str | None:
    """Tell which log is followed.

    Raises:
        ValueError: other commands are asked besides.
    """
    logs = [log for question in questions if (log := followed_log(question)) is not None]
    if logs and len(questions) > 1:
        raise ValueError("follow ends only when it is interrupted: ask it alone")
    return logs[0] if logs else None


def _hosts(args: argparse.Namespace) -> tuple[Host, ...]:
    """Gather the hosts of the command line, of files, and of an inventory, each once.

    Raises:
        ValueError: one is wrong, or there is none.
    """
    hosts = [host for text in args.hosts for host in expand_hosts(text)]
    for path in args.hosts_file:
        hosts += read_hosts(read_source(path))
    if args.inventory is not None:
        hosts += read_inventory(args.inventory, args.limit)
    if not hosts:
        raise ValueError("no host: name some, or --hosts-file FILE, or --inventory FILE")
    if len(hosts) > MAX_HOSTS:
        raise ValueError(f"more than {MAX_HOSTS} hosts; ask in several turns")
    return _each_once(hosts)


def _each_once(hosts: Iterable[Host]) -> tuple[Host, ...]:
    """Leave out what would be asked twice, and say so; two that are called the same are told apart."""
    kept: dict[tuple[str, int | None], Host] = {}
    again: dict[str, None] = {}
    for host in hosts:
        first = kept.setdefault((host.address, host.port), host)
        if first is not host:
            again[host.name if host.name == first.name else f"{host.name} (as {first.name})"] = None
    if again:
        say(f"{PROGRAM}: named more than once, asked once: {_list(list(again))}")
    return tuple(_tell_apart(kept.values()))


def _tell_apart(hosts: Iterable[Host]) -> Iterator[Host]:
    """Name hosts that are called as one before them by where they are: an inventory has names of its own."""
    names: set[str] = set()
    for host in hosts:
        name = host.name
        if name in names:
            name = f"{name} ({host.address} {host.port})"
        names.add(name)
        yield host if name == host.name else replace(host, name=name)


def _list(names: Sequence[str]) -> str:
    more = len(names) - _MAX_NAMED
    return ", ".join(names[:_MAX_NAMED]) + (f" and {more} more" if more > 0 else "")
