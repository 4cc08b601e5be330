"""What clients that never read cost: the server's memory, and the others' answers.

    python scripts/bench/never_read.py [--clients 100] [--commands 64] [--megabytes 40]

Each client asks at once for 64 different outputs of 1 MiB and reads nothing, while an innocent
one goes on to ask ``ping``.  Printed are by how much the server's memory grew at most, how long a
ping took before and meanwhile, and when the last of the clients was closed.  It fails when the
memory grew by more than is promised, when the slowest hundredth of the pings took longer than
twice what it took before and 5 ms, when a client was not closed by its deadline, or when a child
is left.
"""

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from ports import START_SECONDS, free_port, wait_for_port

ONE_MIB = 1 << 20
TOTAL_PENDING_BYTES = 16 * ONE_MIB
WRITE_SECONDS = 2.0
# A client whose last answer found room in the kernel's buffers is owed nothing: it is only idle.
IDLE_SECONDS = 2.0
# The sweeper's tick, and what a busy machine adds.
LATE_SECONDS = 2.0
PATIENCE_SECONDS = 120.0
IDLE_PINGS = 300
PING_PAUSE_SECONDS = 0.005
PING_RATIO, PING_SLACK_SECONDS = 2.0, 0.005

SETTINGS = """
[server]
max_clients = {max_clients}
[limits]
total_pending_bytes = {pending}
write_seconds = {write}
idle_seconds = {idle}
[programs.print]
argv = ["/bin/sh", "-c", "echo $0; cat {data}", "{{which}}"]
[programs.print.arguments]
which = "[0-9-]+"
"""


class Server:
    """The server as a process: its port, its memory, its children, its record."""

    def __init__(self, folder: Path, args: argparse.Namespace) -> None:
        self._record = folder / "record"
        config = folder / "trio-cmd.toml"
        config.write_text(settings(folder, args))
        config.chmod(0o600)
        self.port = free_port()
        command = [sys.executable, "-m", "trio_cmd", "--port", str(self.port), "--log-format", "json"]
        with self._record.open("wb") as record:
            self.process = subprocess.Popen(
                [*command, "--config", str(config)], stdout=record, stderr=subprocess.STDOUT
            )
        wait_for_port(self.port)

    def peak_bytes(self) -> int:
        """How much memory it has ever taken."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return 1024 * int(status.partition("VmHWM:")[2].split()[0])

    def descriptors(self) -> int:
        """How many descriptors it has open."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def children(self) -> int:
        """How many children it has."""
        lists = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        return sum(len(children.read_text().split()) for children in lists)

    def stop(self) -> list[dict[str, object]]:
        """End it; returns its records."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(START_SECONDS)
        return [json.loads(line) for line in self._record.read_bytes().splitlines()]


def settings(folder: Path, args: argparse.Namespace) -> str:
    """Write the data that is printed, and the settings that offer it."""
    data = folder / "data"
    line = b"=" * (args.line_bytes - 1) + b"\n"
    data.write_bytes((line * (ONE_MIB // len(line)))[: ONE_MIB - 32])
    return SETTINGS.format(
        max_clients=args.clients + 10,
        pending=TOTAL_PENDING_BYTES,
        write=WRITE_SECONDS,
        idle=IDLE_SECONDS,
        data=data,
    )


def ping(client: socket.socket, goes_on: Callable[[int], bool]) -> float:
    """Ask ``ping`` as long as it goes on.

    Args:
        client: connected.
        goes_on: is told how often it was answered.

    Returns:
        The seconds within which 99 of 100 were answered.
    """
    took: list[float] = []
    while goes_on(len(took)):
        began = time.monotonic()
        client.sendall(b"ping\n")
        if (answer := client.recv(100)) != b"pong\n":
            raise SystemExit(f"the innocent client got a wrong answer: {answer!r}")
        took.append(time.monotonic() - began)
        time.sleep(PING_PAUSE_SECONDS)
    return statistics.quantiles(took, n=100)[98]


def ask_and_never_read(port: int, clients: int, commands: int) -> list[socket.socket]:
    """Connect clients that ask for everything at once."""
    connected = []
    for number in range(clients):
        client = socket.create_connection(("127.0.0.1", port))
        client.sendall("".join(f"print {number}-{command}\n" for command in range(commands)).encode())
        connected.append(client)
    return connected


def late_seconds(records: list[dict[str, object]]) -> list[float]:
    """Tell of each client that never read how long after its deadline it was closed."""
    worked: dict[object, float] = {}
    late = []
    for record in records:
        at = datetime.fromisoformat(str(record["timestamp"])).timestamp()
        if record["action"] == "command-completed" and record["outcome"] != "gone":
            worked[record["connection"]] = at
        elif record["action"] == "client-lost" and record["reason"] in {"slow-reader", "idle"}:
            allowed = WRITE_SECONDS if record["reason"] == "slow-reader" else IDLE_SECONDS
            late.append(at - worked[record["connection"]] - allowed)
    return late


def measure(server: Server, args: argparse.Namespace) -> int:
    """Do it and print; returns 0 when what is promised was seen."""
    broken = 0

    def say(what: str, promise: str, *, is_kept: bool) -> None:
        nonlocal broken
        broken += not is_kept
        print(f"{what:60}{promise}{'' if is_kept else ': BROKEN'}")

    with socket.create_connection(("127.0.0.1", server.port), timeout=START_SECONDS) as innocent:
        innocent.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        idle = ping(innocent, lambda answered: answered < IDLE_PINGS)
        descriptors, before = server.descriptors(), server.peak_bytes()
        began = time.monotonic()
        clients = ask_and_never_read(server.port, args.clients, args.commands)

        def goes_on(answered: int) -> bool:
            is_over = server.descriptors() <= descriptors and not server.children()
            return answered < 2 or (not is_over and time.monotonic() - began < PATIENCE_SECONDS)

        meanwhile = ping(innocent, goes_on)
        seconds = time.monotonic() - began
        left = server.descriptors() - descriptors, server.children()
    grown = (server.peak_bytes() - before) / 1e6
    for client in clients:
        client.close()
    records = server.stop()
    allowed = (PING_RATIO * idle + PING_SLACK_SECONDS) * args.ping_factor
    late = late_seconds(records)
    print(f"Python {sys.version.split()[0]}, {args.clients} clients, {args.commands} commands each,", end=" ")
    print(f"lines of {args.line_bytes} bytes; all over after {seconds:.1f} s")
    for key in ("outcome", "reason"):
        counts = Counter(str(r[key]) for r in records if key in r and r.get("command", "print") == "print")
        print(f"{key}s: " + ", ".join(f"{name} {count}" for name, count in counts.most_common()))
    promised = args.megabytes
    say(f"memory grew by {grown:.1f} MB", f"at most {promised:g} MB", is_kept=grown <= promised)
    say(
        f"99 of 100 pings took up to {meanwhile * 1000:.2f} ms ({idle * 1000:.2f} ms before)",
        f"at most {allowed * 1000:.2f} ms",
        is_kept=meanwhile <= allowed,
    )
    say(
        f"{len(late)} clients closed, the latest {max(late, default=0):.2f} s after its deadline",
        f"all {args.clients}, at most {LATE_SECONDS:g} s",
        is_kept=len(late) == args.clients and max(late) <= LATE_SECONDS,
    )
    say(f"{left[0]} descriptors and {left[1]} children left", "none", is_kept=left == (0, 0))
    return 1 if broken else 0


def main() -> int:
    """Measure and print; returns 0 when what is promised was seen."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--commands", type=int, default=64, help="of each client, asked at once")
    parser.add_argument("--line-bytes", type=int, default=80, help="of the output")
    parser.add_argument("--megabytes", type=float, default=40, help="fail when memory grows by more")
    parser.add_argument("--ping-factor", type=float, default=1, help="times what a ping may take")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-never-read-") as name:
        return measure(Server(Path(name), args), args)


if __name__ == "__main__":
    sys.exit(main())
