"""What a command costs: our server beside an asyncio Protocol that records the same events, in one run.

    python scripts/bench/hot.py [--rounds 7] [--operations 30000]

Three workloads: 50 clients that each wait for their answer, 10 clients that send 100 commands at
once, and clients that connect, ask and leave.  Both servers are asked in turns; the figure is the
CPU time of the server process, with all its threads, per operation, and its median over the
rounds.  The record of each server goes to a file, and at the end the lines are counted: each
operation must have left its two.
"""

import argparse
import selectors
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent
CLIENTS = 50
PIPELINING_CLIENTS = 10
PIPELINED = 100
START_SECONDS = 10.0


class Server:
    """A server as a process: its port, its CPU time, and the record it leaves in a file."""

    def __init__(self, name: str, command: Callable[[int], list[str]]) -> None:
        self.name = name
        self.port = free_port()
        self.record = tempfile.NamedTemporaryFile(prefix=f"bench-{name}-")  # noqa: SIM115 - lives as long as this
        self.process = subprocess.Popen(command(self.port), stdout=self.record, stderr=subprocess.STDOUT)
        wait_for_port(self.port)

    def cpu_seconds(self) -> float:
        """CPU time of the whole process, also of threads that have ended."""
        # The process' clock, whose number clock_getcpuclockid(3) would compute.
        return time.clock_gettime((~self.process.pid << 3) | 2)

    def stop(self) -> int:
        """End it; returns how many received and completed events it recorded."""
        self.process.send_signal(signal.SIGINT if self.name == "asyncio" else signal.SIGTERM)
        self.process.wait(START_SECONDS)
        text = Path(self.record.name).read_text(errors="replace")
        return text.count("Cmd received from") + text.count("Cmd completed for")


def free_port() -> int:
    """Find a port nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def wait_for_port(port: int) -> None:
    """Wait until somebody listens."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            time.sleep(0.02)
        else:
            return
    raise SystemExit(f"nobody listens on port {port}")


def ask_in_turn(port: int, operations: int, clients: int = CLIENTS, batch: int = 1) -> int:
    """Let clients send so many pings at once and wait for all answers, until enough are answered."""
    question, answer = b"ping\n" * batch, len(b"pong\n") * batch
    selector = selectors.DefaultSelector()
    missing: dict[socket.socket, int] = {}
    for _ in range(clients):
        client = socket.create_connection(("127.0.0.1", port))
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        selector.register(client, selectors.EVENT_READ)
        missing[client] = answer
        client.send(question)
    sent = done = 0
    sent += clients
    while done < sent:
        for key, _ in selector.select():
            client = key.fileobj  # type: ignore[assignment]  # it is what was registered
            missing[client] -= len(client.recv(1 << 16))
            if missing[client] == 0:
                done += 1
                missing[client] = answer
                if sent * batch < operations:
                    sent += 1
                    client.send(question)
    for client in missing:
        client.close()
    return done * batch


def ask_pipelined(port: int, operations: int) -> int:
    """Let ten clients send a hundred at once."""
    return ask_in_turn(port, operations, PIPELINING_CLIENTS, PIPELINED)


def connect_ask_leave(port: int, operations: int) -> int:
    """Connect, ask one thing, leave, again and again."""
    for _ in range(operations // 10):
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"ping\nexit\n")
            while client.recv(4096):
                pass
    return operations // 10


WORKLOADS: dict[str, tuple[Callable[[int, int], int], int]] = {
    "50 clients in turn": (ask_in_turn, 1),
    "10 clients, 100 pipelined": (ask_pipelined, 1),
    "connect, ask, leave": (connect_ask_leave, 2),
}
"""Name -> (what is done, commands in one operation)."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--operations", type=int, default=30_000, help="commands a round")
    args = parser.parse_args()
    servers = [
        Server(
            "trio_cmd",
            lambda port: [sys.executable, "-m", "trio_cmd", "--port", str(port), "--log-format", "json"],
        ),
        Server("asyncio", lambda port: [sys.executable, str(HERE / "asyncio_server.py"), str(port)]),
    ]
    commands = dict.fromkeys((server.name for server in servers), 0)
    python = sys.version.split()[0]
    print(f"Python {python}, {args.rounds} rounds of {args.operations} commands; µs of server CPU each")
    print(f"{'workload':28}{'trio_cmd':>10}{'asyncio':>10}{'ratio':>8}{'min':>7}{'max':>7}")
    for name, (work, commands_each) in WORKLOADS.items():
        rows: list[list[float]] = []
        for _ in range(args.rounds):
            row = []
            for server in servers:
                before = server.cpu_seconds()
                done = work(server.port, args.operations)
                row.append((server.cpu_seconds() - before) / done * 1e6)
                commands[server.name] += done * commands_each
            rows.append(row)
        ours, theirs = (statistics.median(column) for column in zip(*rows, strict=True))
        ratios = [row[0] / row[1] for row in rows]
        ratio = statistics.median(ratios)
        print(f"{name:28}{ours:10.1f}{theirs:10.1f}{ratio:8.2f}{min(ratios):7.2f}{max(ratios):7.2f}")
    for server in servers:
        events, expected = server.stop(), 2 * commands[server.name]
        void = "" if events == expected else ": VOID"
        print(f"{server.name}: {events} of {expected} events recorded{void}")


if __name__ == "__main__":
    main()
