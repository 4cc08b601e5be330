"""Many hosts and their questions enter; what came of each question leaves, as soon as it is known.

A worker asks one host, then the next: as many workers as connections at once, however many hosts
there are.  Every host gets all its answers, or those it has given and one reason why there are no
more; nothing a host does changes what another one is asked, or what is told of it.
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import trio

from trio_cmd.client.answers import Progress, Reply
from trio_cmd.client.connection import Connection, connect
from trio_cmd.client.errors import AskError, CommandError, OurFault, describe_fault
from trio_cmd.client.hosts import Host
from trio_cmd.client.options import Options

__all__ = ["Outcome", "Together", "Watcher", "ask_fleet", "commands_of"]

# Lines of one host under way; a server takes 64 before it waits with reading (pending_replies).
_UNDER_WAY = 32
# Of one host: sixty of the longest answers that usual settings allow, and no more of a hostile one.
MAX_HOST_BYTES = 1 << 26


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a question: a reply or an error, never both.

    Attributes:
        host: that was asked.
        command: as asked; empty where the error is the host's and not a command's: no command of
            this host that has no outcome has an answer, and this is why.
        reply: the answer.
        error: why there is none.
    """

    host: Host
    command: bytes
    reply: Reply | None = None
    error: AskError | None = None

    @property
    def is_answer(self) -> bool:
        """Whether the host has answered this command, be it with an error."""
        return self.command != b""

    @property
    def is_ok(self) -> bool:
        """Whether the answer is a good one: no error, and of a ``verify`` nothing but a plain yes."""
        reply = self.reply
        return reply is not None and reply.result.get("matches", reply.command != "verify") is True


class Watcher(Protocol):
    """Is told how the asking goes, never waits, and passes over what it does not override."""

    def began(self, host: Host) -> None:
        """A connection to this host is being made."""
        return

    def progressed(self, host: Host, progress: Progress) -> None:
        """A hash of this host is so far."""
        return

    def answered(self, outcome: Outcome) -> None:
        """Something is known; of one host in the order its commands were asked."""
        return

    def ended(self, host: Host) -> None:
        """Nothing more comes of this host."""
        return


class Together(Watcher):
    """Several watchers as one.

    Args:
        watchers: each is told of everything, in this order.
    """

    def __init__(self, *watchers: Watcher) -> None:
        self._watchers = watchers

    def began(self, host: Host) -> None:
        """Tell all."""
        for watcher in self._watchers:
            watcher.began(host)

    def progressed(self, host: Host, progress: Progress) -> None:
        """Tell all."""
        for watcher in self._watchers:
            watcher.progressed(host, progress)

    def answered(self, outcome: Outcome) -> None:
        """Tell all."""
        for watcher in self._watchers:
            watcher.answered(outcome)

    def ended(self, host: Host) -> None:
        """Tell all."""
        for watcher in self._watchers:
            watcher.ended(host)


def commands_of(options: Options) -> Sequence[bytes]:
    """List the lines each host is asked."""
    if options.manifest is None:
        return options.commands
    return [expected.command for expected in options.manifest]


async def ask_fleet(
    options: Options, watcher: Watcher, wait_for_room: Callable[[], Awaitable[None]] | None = None
) -> None:
    """Ask every host every command.

    Args:
        options: the hosts, the commands, and how many hosts at once.
        watcher: is told of each outcome.
        wait_for_room: is waited for before each host, and before each command beyond the first few, so
            that answers nobody takes do not pile up.

    Cancel: all connections are closed at once; hosts without an outcome have none.
    """
    commands = commands_of(options)
    hosts = iter(options.hosts)
    async with trio.open_nursery() as nursery:
        for _ in range(min(options.at_once, len(options.hosts))):
            nursery.start_soon(_take_hosts, hosts, commands, options, watcher, wait_for_room)


async def _take_hosts(
    hosts: Iterator[Host],
    commands: Sequence[bytes],
    options: Options,
    watcher: Watcher,
    wait_for_room: Callable[[], Awaitable[None]] | None,
) -> None:
    for host in hosts:
        if wait_for_room is not None:
            await wait_for_room()
        watcher.began(host)
        error = await _ask_host(host, commands, options, watcher, wait_for_room)
        if error is not None:
            watcher.answered(Outcome(host, b"", error=error))
        watcher.ended(host)


async def _ask_host(
    host: Host,
    commands: Sequence[bytes],
    options: Options,
    watcher: Watcher,
    wait_for_room: Callable[[], Awaitable[None]] | None,
) -> AskError | None:
    """Ask one host; returns why it has not answered everything."""
    error: AskError | None = None
    try:
        error = await _converse(host, commands, options, watcher, wait_for_room)
    except* Exception as faults:  # the net below one host: the others are asked all the same
        error = OurFault(describe_fault(faults))
    return error


async def _converse(
    host: Host,
    commands: Sequence[bytes],
    options: Options,
    watcher: Watcher,
    wait_for_room: Callable[[], Awaitable[None]] | None,
) -> AskError | None:
    try:
        async with connect(
            host,
            tls=options.tls,
            token=options.token,
            connect_seconds=options.timeout_seconds,
            answer_seconds=options.timeout_seconds,
            max_total_bytes=MAX_HOST_BYTES,
        ) as server:
            return await _Questions(host, commands, watcher, wait_for_room).ask(server)
    except AskError as error:
        return error


class _Questions:
    """The commands of one host, several under way; their outcomes are told in the order asked.

    Args:
        host: that is asked.
        commands: to ask.
        watcher: is told.
        wait_for_room: is waited for before each command.
    """

    def __init__(
        self,
        host: Host,
        commands: Sequence[bytes],
        watcher: Watcher,
        wait_for_room: Callable[[], Awaitable[None]] | None,
    ) -> None:
        self._wait_for_room = wait_for_room
        self._host = host
        self._count = len(commands)
        self._commands = enumerate(commands)
        self._watcher = watcher
        self._progressed = partial(watcher.progressed, host)
        self._known: dict[int, Outcome] = {}  # not told yet: one before them is not known
        self._told = 0
        self._failures: dict[int, AskError] = {}

    async def ask(self, server: Connection) -> AskError | None:
        """Ask all; returns why the host has not answered them all."""
        async with trio.open_nursery() as nursery:
            for _ in range(min(_UNDER_WAY, self._count)):
                nursery.start_soon(self._take_commands, server, nursery.cancel_scope)
        if not self._failures:
            return None
        return self._failures[min(self._failures)]  # the later ones only follow from it

    async def _take_commands(self, server: Connection, scope: trio.CancelScope) -> None:
        """Ask one command, then the next: whoever begins first takes the first one."""
        for number, command in self._commands:
            if self._wait_for_room is not None and number >= _UNDER_WAY:
                await self._wait_for_room()
            try:
                reply = await server.ask(command, on_progress=self._progressed)
                self._tell(number, Outcome(self._host, command, reply=reply))
            except CommandError as error:
                self._tell(number, Outcome(self._host, command, error=error))
            except AskError as error:
                self._failures[number] = error
                scope.cancel()
                return

    def _tell(self, number: int, outcome: Outcome) -> None:
        """Tell of an outcome, and of those that only waited for it; tasks wake in no certain order."""
        self._known[number] = outcome
        while (known := self._known.pop(self._told, None)) is not None:
            self._told += 1
            self._watcher.answered(known)
