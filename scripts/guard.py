"""What a command costs on any machine: system calls and bytecode instructions, beside what is stored.

    python scripts/guard.py [--renew]

Three fixed conversations: a client that asks in turn, one that pipelines, clients that connect, ask
and leave.  Counted is what the thread of the event loop does.  Of the system calls (strace) futex and
epoll_wait are left out: how often threads meet, and how much comes at once, is chance.  The figures
are in ``guard.json``, those of each Python by themselves; ``--renew`` stores what was measured.  The
exit code is 1 when one is more than a tenth above what is stored; half a system call more is too
much in any case.
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

HERE = Path(__file__).parent
FIGURES = HERE / "guard.json"
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
PATIENCE_SECONDS = 60.0
RATIO = 1.1
MAX_MORE_CALLS = 0.5
CHANCE_CALLS = 0.1  # of five hundred pipelined commands a piece may come in two
UNCOUNTED = ("futex(", "epoll_wait(", "<... ", "+++", "---")

Costs = Mapping[str, Mapping[str, float]]
"""Conversation -> ``calls`` and ``instructions`` -> how many for each command or visit."""


class Server:
    """A server that is counted.

    Args:
        command: that starts it; the usual arguments are added.
        folder: for its record.
    """

    def __init__(self, command: Sequence[str], folder: Path) -> None:
        self._record = folder / "record"
        options = ["--port", "0", "--log-format", "json", "--log-file", str(self._record)]
        # What counts the lines that tests run would count here as well.
        environ = {k: v for k, v in os.environ.items() if not k.startswith(("TRIO_CMD_", "COV"))}
        self.process = subprocess.Popen(
            [*command, *options], env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        )
        self.pid, self.port = self._listening()

    def stop(self) -> None:
        """End it, and whatever watches it."""
        if self.process.poll() is None:
            os.kill(self.pid, signal.SIGTERM)
        self.process.wait(PATIENCE_SECONDS)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def _listening(self) -> tuple[int, int]:
        """Wait until it listens; returns its number and its port."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            text = self._record.read_text() if self._record.exists() else ""
            records = {record["action"]: record for record in map(json.loads, text.splitlines())}
            if "server-started" in records:
                return records["log-opened"]["pid"], records["listening"]["port"]
            time.sleep(0.01)
        raise SystemExit("the server does not listen")


def ask_in_turn(port: int) -> int:
    """Ask a hundred times, each time after the answer; returns how many commands it were."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS) as client:
        for _ in range(100):
            exchange(client, 1)
    return 100


def ask_pipelined(port: int) -> int:
    """Ask five times a hundred at once; returns how many commands it were."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS) as client:
        for _ in range(5):
            exchange(client, 100)
    return 500


def connect_ask_leave(port: int) -> int:
    """Connect, ask, leave; returns how many visits it were."""
    for _ in range(40):
        with socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS) as client:
            client.sendall(b"ping\nexit\n")
            while client.recv(100):
                pass
    return 40


CONVERSATIONS: Mapping[str, Callable[[int], int]] = {
    "in turn": ask_in_turn,
    "pipelined": ask_pipelined,
    "connect, ask, leave": connect_ask_leave,
}


def exchange(client: socket.socket, count: int, question: bytes = b"ping\n") -> None:
    """Ask so many times at once, and take all answers."""
    client.sendall(question * count)
    missing = len(b"pong\n") * count
    while missing:
        missing -= len(client.recv(1 << 16)) or sys.exit("the connection ended")


def count_calls(command: Sequence[str]) -> dict[str, float]:
    """Count system calls: conversation -> how many for each command or visit."""
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace"
        watch = ["strace", "-ff", "-qq", "-s", "16", "-o", str(trace)]
        server = Server([*watch, *command], Path(folder))
        try:
            done = _talk_marked(server.port)
        finally:
            server.stop()
        lines = trace.with_name(f"trace.{server.pid}").read_text(errors="replace").splitlines()
    return {
        name: _count_between(lines, f'"ping mark-{number}\\n"', f'"ping mark-{number + 1}\\n"') / done[name]
        for number, name in enumerate(CONVERSATIONS)
    }


def _talk_marked(port: int) -> dict[str, int]:
    """Hold the conversations, each between two marks on another connection."""
    done = {}
    with socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS) as control:
        exchange(control, 1, b"ping mark-0\n")
        for number, (name, talk) in enumerate(CONVERSATIONS.items()):
            done[name] = talk(port)
            exchange(control, 1, b"ping mark-%d\n" % (number + 1))
    return done


def _count_between(lines: Sequence[str], first: str, last: str) -> int:
    begin, end = (next(n for n, line in enumerate(lines) if mark in line) for mark in (first, last))
    return sum(not line.startswith(UNCOUNTED) for line in lines[begin:end])


def count_instructions(command: Sequence[str]) -> dict[str, float]:
    """Count bytecode instructions: conversation -> how many for each command or visit."""
    with tempfile.TemporaryDirectory() as folder:
        server = Server(command, Path(folder))
        try:
            _tell(server)
            ask_in_turn(server.port)  # Python 3.12 counts only what begins after the first frames are traced
            costs = {}
            for name, talk in CONVERSATIONS.items():
                before = _tell(server)
                done = talk(server.port)
                costs[name] = (_tell(server) - before) / done
        finally:
            server.stop()
    return costs


def _tell(server: Server) -> int:
    """Have the server tell how many instructions it was so far."""
    assert server.process.stdout is not None
    server.process.send_signal(signal.SIGRTMIN)
    return int(server.process.stdout.readline())


def measure(burden: Sequence[str] = ()) -> Costs:
    """Measure all.

    Args:
        burden: of the server under test: a program for ``python -c`` that begins with more work.
    """
    calls = count_calls([sys.executable, *(burden or ("-P", "-m", "trio_cmd"))])
    instructions = count_instructions([sys.executable, *(burden or (str(HERE / "guarded_server.py"),))])
    return {
        name: {"calls": round(calls[name], 2), "instructions": round(instructions[name])}
        for name in CONVERSATIONS
    }


def least(*measured: Costs) -> Costs:
    """Give the least of each of several measurements: what else the machine did only adds."""
    return {
        name: {unit: min(one[name][unit] for one in measured) for unit in costs}
        for name, costs in measured[0].items()
    }


def judge(stored: Costs, burden: Sequence[str] = ()) -> list[str]:
    """Measure, once more if it is too much, and say what costs more than is stored."""
    first = measure(burden)
    return compare(stored, first) and compare(stored, least(first, measure(burden)))


def compare(stored: Costs, measured: Costs) -> list[str]:
    """Say what costs more than is stored, one line each."""
    return [
        f"{name}: {cost:g} {unit} each, {stored[name][unit]:g} are stored"
        for name, costs in measured.items()
        for unit, cost in costs.items()
        if cost > _allowed(unit, stored[name][unit])
    ]


def _allowed(unit: str, stored: float) -> float:
    if unit == "calls":
        return stored + min(max(stored * (RATIO - 1), CHANCE_CALLS), MAX_MORE_CALLS)
    return stored * RATIO


def load() -> dict[str, Costs]:
    """Read what is stored: Python -> costs."""
    figures: dict[str, Costs] = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    return figures


def main(argv: list[str] | None = None) -> int:
    """Measure and compare, or store; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--renew", action="store_true", help="store what is measured")
    args = parser.parse_args(argv)
    stored = load()
    if args.renew:
        measured = least(measure(), measure())
        FIGURES.write_text(json.dumps({**stored, PYTHON: measured}, indent=1, sort_keys=True) + "\n")
        print(f"Python {PYTHON}: {stored.get(PYTHON)} is now {measured}")
        return 0
    if PYTHON not in stored:
        print(f"nothing is stored for Python {PYTHON}: --renew")
        return 1
    faults = judge(stored[PYTHON])
    print(*faults or [f"Python {PYTHON}: nothing costs more than is stored"], sep="\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
