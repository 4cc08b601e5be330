"""``trio-cmd ask``: arguments enter, answers are written, an exit code leaves."""

import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace

import trio

from trio_cmd.client.checking import CheckedGroups, CheckedLines
from trio_cmd.client.descriptors import fit_connections
from trio_cmd.client.errors import describe_fault
from trio_cmd.client.flags import PROGRAM
from trio_cmd.client.fleet import Together, Watcher, ask_fleet, commands_of
from trio_cmd.client.following import follow_fleet
from trio_cmd.client.live import LiveWatcher, watch_live
from trio_cmd.client.options import Options, parse_options
from trio_cmd.client.output import Checksums, Groups, JsonLines, Output, TextLines, Write
from trio_cmd.client.verdict import EXIT_OK, Verdict
from trio_cmd.client.writing import Writer
from trio_cmd.complaints import say

__all__ = ["main"]

STANDARD_OUTPUT = 1
EXIT_USAGE = 2
EXIT_CRASHED = 70  # of sysexits.h, like the next
EXIT_CANNOT_WRITE = 74
EXIT_BY_SIGNAL = 128  # and its number: what a shell makes of a program that a signal has ended
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def main(arguments: Sequence[str]) -> int:
    """Ask.

    Args:
        arguments: those behind ``ask``.

    Returns:
        The exit code: 0 all have answered, and well; 1 something failed; 3 nobody has answered;
        4 all have answered, but not the same; 130 ended by Ctrl-C; 143 by SIGTERM; 141 nobody reads
        standard output; 74 it cannot be written; 70 crashed.

    Raises:
        SystemExit: 2 for bad arguments, 0 for their description.
    """
    try:
        options = parse_options(arguments)
        return _follow(options) if options.follow is not None else _ask(options)
    except Exception as fault:  # the last net: one line, and a code of its own
        return _complain(describe_fault(fault), EXIT_CRASHED)


def _ask(options: Options) -> int:
    """Ask all hosts; returns the exit code."""
    options = replace(options, at_once=_bound(min(options.at_once, len(options.hosts))))
    is_terminal = os.isatty(STANDARD_OUTPUT)
    form = ("groups" if is_terminal else "text") if options.output == "auto" else options.output
    writer = Writer(STANDARD_OUTPUT)
    verdict = Verdict(expect_same=options.expect_same)
    output = _make_output(form, options, writer.put)
    watchers: list[Watcher] = [verdict, output]

    async def ask() -> None:
        with ExitStack() as stack:
            if form == "groups" and is_terminal:  # elsewhere its lines would stand among the answers
                live = watch_live(LiveWatcher(len(options.hosts)), sys.stderr)
                watchers.append(stack.enter_context(live))
            await _ask_and_write(options, Together(*watchers), writer)

    number = trio.run(_run_until_signal, ask)
    output.finish()
    writer.flush()
    if number is not None:
        _complain(f"interrupted: {verdict.hosts_ended} of {len(options.hosts)} hosts are done")
    return _exit_code(verdict.exit_code, number, writer.error)


def _bound(wanted: int) -> int:
    """Tell how many connections there may be at once, and say when they are fewer than wanted."""
    possible = fit_connections(wanted)
    if possible < wanted:
        _complain(f"only {possible} hosts at once: for more, raise the limit of descriptors (ulimit -n)")
    return possible


def _make_output(form: str, options: Options, write: Write) -> Output:
    """Choose what writes the answers.

    Args:
        form: every one but ``auto``.
        options: whether there is a manifest, and what is asked.
        write: takes whole lines.
    """
    if form == "json":
        return JsonLines(write)
    if form == "checksums":
        return Checksums(write, _complain)
    if options.manifest is not None:
        make = CheckedGroups if form == "groups" else CheckedLines
        return make(write, options.hosts, len(options.manifest))
    if form == "groups":
        return Groups(write, commands_of(options), options.hosts)
    return TextLines(write)


async def _ask_and_write(options: Options, watcher: Watcher, writer: Writer) -> None:
    """Ask all hosts, unless nobody can be told any more."""
    async with trio.open_nursery() as nursery:

        async def write() -> None:
            await writer.run()
            nursery.cancel_scope.cancel()

        nursery.start_soon(write)
        await ask_fleet(options, watcher, writer.wait_for_room)
        nursery.cancel_scope.cancel()


def _follow(options: Options) -> int:
    """Follow a log on all hosts; returns the exit code."""
    if fit_connections(len(options.hosts)) < len(options.hosts):
        return _complain("too many hosts to follow: raise the limit of descriptors (ulimit -n)", EXIT_USAGE)
    code = EXIT_OK
    error: OSError | None = None

    async def follow() -> None:
        nonlocal code, error
        try:
            code = await follow_fleet(options)
        except OSError as caught:  # standard output takes nothing more
            error = caught

    number = trio.run(_run_until_signal, follow)
    return _exit_code(code, number, error)


async def _run_until_signal(work: Callable[[], Awaitable[None]]) -> int | None:
    """Work until the end, or until told to stop; returns the number of the signal that has told it.

    The second signal ends the program wherever it is, also where it waits for who reads its output.
    What was ignored when it began stays so: that is how a shell starts what is not to hear Ctrl-C.
    """
    number = None
    heard = [each for each in _SIGNALS if signal.getsignal(each) is not signal.SIG_IGN]
    if not heard:
        await work()
        return None
    with trio.open_signal_receiver(*heard) as signals:
        async with trio.open_nursery() as nursery:

            async def wait_for_signal() -> None:
                nonlocal number
                number = await anext(signals)
                for each in heard:
                    signal.signal(each, signal.SIG_DFL)
                nursery.cancel_scope.cancel()

            nursery.start_soon(wait_for_signal)
            await work()
            nursery.cancel_scope.cancel()
    return number


def _exit_code(code: int, number: int | None, error: OSError | None) -> int:
    """Judge how it ended, and say what must be said.

    Args:
        code: of the answers.
        number: of the signal that has ended the asking.
        error: of standard output.
    """
    is_read = not isinstance(error, ConnectionError)  # `| head` has read enough: nothing is wrong
    if error is not None and is_read:
        return _complain(f"the answers cannot be written: {error.strerror}", EXIT_CANNOT_WRITE)
    if number is not None:
        return EXIT_BY_SIGNAL + number
    return code if is_read else EXIT_BY_SIGNAL + signal.SIGPIPE


def _complain(line: str, code: int = EXIT_OK) -> int:
    """Say something on standard error; returns the exit code."""
    say(f"{PROGRAM}: {line}")
    return code
