"""The rows of the comparison: what is asked, by how many, of whom, and what is aimed at."""

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from load import PING, Crowd, Question, Work, come_and_go
from servers import Server

FILES = 500
FILE_BYTES = range(200, 8192)
LOG_LINES = 1000
SHOWN_LINES = 10
BEST = "the best"
"""Stands for the peer that costs least."""


@dataclass(frozen=True)
class Material:
    """What the servers are asked about.

    Attributes:
        syslog: the log of ``lastlog``.
        lastlog: the question, with its answer.
        comphash: a question for each of the small files.
    """

    syslog: Path
    lastlog: Question
    comphash: list[Question]


def make_material(folder: Path) -> Material:
    """Write a log and small files."""
    lines = [f"Nov 20 15:02:{n % 60:02} lab CRON[{n}]: (root) CMD (a job)\n" for n in range(LOG_LINES)]
    syslog = folder / "syslog"
    syslog.write_text("".join(lines))
    shown = "".join(["Begin lastlog\n", *lines[-SHOWN_LINES:], "End lastlog\n"])
    files = folder / "files"
    files.mkdir()
    chosen = random.Random(7)  # the same each time
    questions = []
    for number in range(FILES):
        path = files / f"file-{number}"
        path.write_bytes(chosen.randbytes(chosen.choice(FILE_BYTES)))
        digest = hashlib.sha1(path.read_bytes()).hexdigest()
        questions.append(Question(f"comphash {path}\n".encode(), f"File hash is : {digest}\n".encode()))
    return Material(syslog, Question(b"lastlog\n", shown.encode()), questions)


def join(questions: Sequence[Question]) -> Question:
    """Ask several at once."""
    asked, answered = (
        b"".join(parts) for parts in zip(*((q.asked, q.answered) for q in questions), strict=True)
    )
    return Question(asked, answered, len(questions))


@dataclass(frozen=True)
class Row:
    """A workload.

    Attributes:
        name: on the command line.
        title: in tables.
        clients: at once; 0: one that comes and goes.
        questions: what each asks, one after the other.
        targets: peer -> what ours may cost, divided by what the peer costs.
        is_for_shells: also for what starts a shell for each client.
        seconds: of a round of one server.
    """

    name: str
    title: str
    clients: int
    questions: Callable[[Material], Sequence[Question]]
    targets: dict[str, float] = field(default_factory=dict)
    is_for_shells: bool = False
    seconds: float = 0.25

    def measure(self, server: Server, material: Material, seconds: float) -> "Figure":
        """Ask a server for so long.

        Raises:
            Void: a record is missing, or one too many.
        """
        if self.clients == 0:
            return self._measure_visits(server, seconds)
        if server.kind.is_shell:
            return self._measure_shells(server, material, seconds)
        with self._connected(server, material) as crowd:
            before = server.cpu_seconds()
            work = ask(server, crowd, seconds)
            return Figure.of(work, server.cpu_seconds() - before)

    def _measure_shells(self, server: Server, material: Material, seconds: float) -> "Figure":
        # The time of a shell's children is known to a clock tick, too coarse for each of fifty; when
        # the shells have ended it is exact, in one number.  So they end, and what connecting and
        # leaving costs is taken off.
        costs = []
        for asking in (0.0, seconds):
            before = server.cpu_seconds()
            with self._connected(server, material) as crowd:
                work = ask(server, crowd, asking) if asking else None
            server.settle()
            costs.append(server.cpu_seconds() - before)
        assert work is not None
        return Figure.of(work, costs[1] - costs[0])

    @contextmanager
    def _connected(self, server: Server, material: Material) -> Iterator[Crowd]:
        """Have the clients connected, as recorded; then they leave, as recorded too."""
        crowd = Crowd(server.port, self.clients, self.questions(material))
        try:
            server.record.take(connected=self.clients)
            yield crowd
        finally:
            crowd.close()
        server.record.take(lost=self.clients)

    def _measure_visits(self, server: Server, seconds: float) -> "Figure":
        before = server.cpu_seconds()
        work = come_and_go(server.port, seconds)
        visits, commands = work.commands, 2 * work.commands
        server.record.take(connected=visits, received=commands, completed=commands, lost=visits)
        server.settle()
        return Figure.of(work, server.cpu_seconds() - before)


@dataclass(frozen=True)
class Figure:
    """What a round of one server gave.

    Attributes:
        cpu: microseconds of the server's CPU time for each operation.
        rate: operations a second.
        load: the load generator's CPU time, as a share of the time it took.
    """

    cpu: float
    rate: float
    load: float

    @classmethod
    def of(cls, work: Work, cpu_seconds: float) -> "Figure":
        """Divide."""
        return cls(
            cpu_seconds / work.commands * 1e6, work.commands / work.seconds, work.cpu_seconds / work.seconds
        )


def ask(server: Server, crowd: Crowd, seconds: float) -> Work:
    """Let clients ask, and wait until all is recorded."""
    work = crowd.ask(seconds)
    server.record.take(received=work.commands, completed=work.commands)
    return work


def targets(twisted: float, asyncio: float, uvloop: float) -> dict[str, float]:
    """Name the peers of three targets."""
    return {"Twisted": twisted, "asyncio": asyncio, "uvloop": uvloop}


SLOW_SECONDS = 0.4  # a child's time is known to a clock tick of 10 ms

ROWS = {
    row.name: row
    for row in (
        Row("one", "one client in turn", 1, lambda _: [PING], targets(0.60, 0.85, 0.90)),
        Row("fifty", "50 clients in turn", 50, lambda _: [PING], targets(0.60, 0.85, 0.90)),
        Row("pipelined", "10 clients, 100 at once", 10, lambda _: [PING.times(100)], targets(0.2, 0.2, 0.2)),
        Row(
            "visit", "connect, ask, leave", 0, lambda _: [PING], targets(1.15, 1.20, 1.90), is_for_shells=True
        ),
        Row(
            "lastlog-1",
            "`lastlog`, 1 client",
            1,
            lambda m: [m.lastlog],
            {BEST: 1.15},
            is_for_shells=True,
            seconds=SLOW_SECONDS,
        ),
        Row(
            "lastlog-4",
            "`lastlog`, 4 clients",
            4,
            lambda m: [m.lastlog],
            {BEST: 0.75},
            is_for_shells=True,
            seconds=SLOW_SECONDS,
        ),
        Row(
            "lastlog-50",
            "`lastlog`, 50 clients",
            50,
            lambda m: [m.lastlog],
            {BEST: 0.12},
            is_for_shells=True,
            seconds=SLOW_SECONDS,
        ),
        Row(
            "comphash-1",
            "`comphash`, one small file, 4 clients",
            4,
            lambda m: m.comphash[:1],
            targets(0.40, 0.40, 0.45),
            is_for_shells=True,
            seconds=SLOW_SECONDS,
        ),
        Row(
            "comphash-500",
            "`comphash`, 500 small files, 4 clients",
            4,
            lambda m: m.comphash,
            targets(0.35, 0.35, 0.45),
            is_for_shells=True,
            seconds=SLOW_SECONDS,
        ),
        Row(
            "comphash-pipelined",
            "`comphash`, 500 at once by one client",
            1,
            lambda m: [join(m.comphash)],
            {BEST: 0.50},
            is_for_shells=True,
            seconds=SLOW_SECONDS,
        ),
    )
}
"""Name -> workload."""
