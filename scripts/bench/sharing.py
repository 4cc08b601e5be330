"""What sharing brings: clients that ask ``lastlog`` in a loop, with and without it, in one run.

    python scripts/bench/sharing.py [--rounds 5] [--seconds 2] [--clients 50] [--running-programs 4]

The same server is started twice, once so that it shares nothing (``sharing_server.py``), and both
are asked in turns; the figures are answers per second, the server's CPU time per answer, and
their medians over the rounds.  Each answer is compared with what the log holds.  It fails when
sharing does not bring what is promised, or when more children ran at once than may.
"""

import argparse
import os
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ports import START_SECONDS, free_port, wait_for_port

PROMISED_RATIO = 4.0
QUESTION = b"lastlog\n"


class Server:
    """The server as a process, sharing or not: its port, its CPU time, its children."""

    def __init__(self, kind: str, folder: Path, running_programs: int) -> None:
        self.kind = kind
        self.port = free_port()
        self._counts = folder / f"{kind}.children"
        config = folder / "trio-cmd.toml"
        logs = f'[logs]\nlab = {{ file = "{folder / "log"}" }}\n'
        config.write_text(f"{logs}[limits]\nrunning_programs = {running_programs}\n")
        config.chmod(0o600)
        command = [
            sys.executable,
            str(Path(__file__).with_name("sharing_server.py")),
            kind,
            str(self._counts),
        ]
        options = ["--config", str(config), "--port", str(self.port), "--log-format", "json"]
        with (folder / f"{kind}.record").open("wb") as record:
            self._process = subprocess.Popen([*command, *options], stdout=record, stderr=subprocess.STDOUT)
        wait_for_port(self.port)

    def cpu_seconds(self) -> float:
        """CPU time of the server and of the children it has waited for, up to a clock tick."""
        stat = Path(f"/proc/{self._process.pid}/stat").read_text()
        ticks = map(int, stat.rpartition(") ")[2].split()[11:15])
        return sum(ticks) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> tuple[int, int]:
        """End it; returns how many children it had, and how many at once."""
        self._process.terminate()
        self._process.wait(START_SECONDS)
        started, most = self._counts.read_text().split()
        return int(started), int(most)


def ask_in_a_loop(port: int, clients: int, seconds: float, answer: bytes) -> int:
    """Let each client ask again as soon as it has its answer; returns how many were answered."""
    selector = selectors.DefaultSelector()
    heard: dict[socket.socket, bytes] = {}
    for _ in range(clients):
        client = socket.create_connection(("127.0.0.1", port))
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        selector.register(client, selectors.EVENT_READ)
        heard[client] = b""
        client.send(QUESTION)
    end, answered, waiting = time.monotonic() + seconds, 0, clients
    while waiting:
        for key, _ in selector.select():
            client = key.fileobj  # type: ignore[assignment]  # it is what was registered
            heard[client] += client.recv(1 << 16)
            if len(heard[client]) < len(answer):
                continue
            if heard[client] != answer:
                raise SystemExit(f"a wrong answer: {heard[client]!r}")
            heard[client] = b""
            answered += 1
            if time.monotonic() < end:
                client.send(QUESTION)
            else:
                waiting -= 1
    for client in heard:
        client.close()
    return answered


def measure(server: Server, args: argparse.Namespace, answer: bytes) -> tuple[float, float, int]:
    """Ask one server for one round; returns answers per second, µs of CPU per answer, and answers."""
    cpu, began = server.cpu_seconds(), time.monotonic()
    answered = ask_in_a_loop(server.port, args.clients, args.seconds, answer)
    took = time.monotonic() - began
    return answered / took, (server.cpu_seconds() - cpu) / answered * 1e6, answered


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each round and server")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--running-programs", type=int, default=4, help="children at once")
    parser.add_argument("--ratio", type=float, default=PROMISED_RATIO, help="fail below it")
    return parser.parse_args()


def main() -> int:
    """Measure and print; returns 0 when what is promised was seen."""
    args = parse_arguments()
    with tempfile.TemporaryDirectory(prefix="bench-sharing-") as name:
        folder = Path(name)
        lines = [f"Nov 20 15:02:{n:02} lab CRON[{n}]: (root) CMD (a job)\n" for n in range(20)]
        (folder / "log").write_text("".join(lines))
        answer = "".join(["Begin lastlog\n", *lines[-10:], "End lastlog\n"]).encode()
        servers = [Server(kind, folder, args.running_programs) for kind in ("alone", "shared")]
        return report(servers, args, answer)


def report(servers: list[Server], args: argparse.Namespace, answer: bytes) -> int:
    """Ask the servers in turns and print what was seen."""
    print(f"Python {sys.version.split()[0]}, {args.clients} clients asking lastlog in a loop,", end=" ")
    print(f"{args.rounds} rounds of {args.seconds:g} s; medians")
    rows = [[measure(server, args, answer) for server in servers] for _ in range(args.rounds)]
    print(f"{'server':10}{'answers/s':>11}{'µs of CPU':>11}{'answers':>9}{'children':>10}{'at once':>9}")
    has_failed = False
    for server, column in zip(servers, zip(*rows, strict=True), strict=True):
        started, most = server.stop()
        rate, cpu = (statistics.median(row[index] for row in column) for index in (0, 1))
        answered = sum(row[2] for row in column)
        void = "" if 0 < most <= args.running_programs else f" VOID: not 1 to {args.running_programs}"
        print(f"{server.kind:10}{rate:11.0f}{cpu:11.1f}{answered:9}{started:10}{most:9}{void}")
        has_failed |= bool(void)
    ratios = [shared[0] / alone[0] for alone, shared in rows]
    ratio = statistics.median(ratios)
    void = "" if ratio >= args.ratio else f" VOID: less than {args.ratio:g}"
    print(f"ratio {ratio:.1f} (min {min(ratios):.1f}, max {max(ratios):.1f}){void}")
    return 1 if has_failed or void else 0


if __name__ == "__main__":
    sys.exit(main())
