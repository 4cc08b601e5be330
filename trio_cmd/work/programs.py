"""An argv enters, what the program printed and how it ended leaves."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from trio_cmd.errors import CommandFailed, DeadlinePassed, OutputTooLong, ProgramFailed, Unavailable
from trio_cmd.work.limiter import FairLimiter, Limit
from trio_cmd.work.output import Output
from trio_cmd.work.processes import GroupReaper, run_program
from trio_cmd.work.runs import Begun

__all__ = ["Programs", "Run"]


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a program.

    Attributes:
        lines: what it printed, safe to show.
        exit_status: negative: the signal that ended it; ``None``: the server did.
        error: why it did not end well.
    """

    lines: list[str]
    exit_status: int | None = None
    error: CommandFailed | None = None


class Programs:
    """The running of programs, so many at once.

    Args:
        places: for children; other work may share them.
        reaper: sees to what a program leaves behind.
        limit: keeps the deadline of each run.
    """

    def __init__(self, places: FairLimiter, reaper: GroupReaper, limit: Limit) -> None:
        self._places = places
        self._reaper = reaper
        self._limit = limit

    async def run(
        self,
        name: str,
        argv: Sequence[bytes],
        seconds: float,
        max_output_bytes: int,
        client: Hashable,
        begun: Begun = lambda: None,
    ) -> Run:
        """Run a program to its end, its deadline or the end of its room.

        Args:
            name: what it is offered as.
            argv: the absolute path of the program, and its arguments.
            seconds: how long it may run; the wait for a place does not count.
            max_output_bytes: how much it may print.
            client: whose turn it takes.
            begun: called when it has its place.

        Raises:
            Busy: too much waits already.
            Unavailable: it cannot be started.

        Cancel: nobody of the program's group is left, also of those that left the group.
        """
        # The place is held until the output is in its last form: to make it takes longer than to print
        # it, and without a bound all that was printed meanwhile would wait in memory.
        async with self._places.place(client):
            begun()
            output = Output(name, max_output_bytes)
            try:
                with self._limit(name, seconds):
                    exit_status = await run_program(argv, output.add, self._reaper)
            except (DeadlinePassed, OutputTooLong) as error:
                return Run(await output.lines(is_whole=False), error=error)
            except OSError as error:
                raise Unavailable(f"{name} cannot be started: {error.strerror}") from error
            failed = ProgramFailed(name, exit_status) if exit_status else None
            return Run(await output.lines(is_whole=True), exit_status, failed)
