"""What an answer costs who asks: many hosts, a kept connection to each, some questions one after the other.

    python scripts/bench/ask.py [--hosts 1000] [--questions 10] [--servers 10] [--pipelined]

The hosts are addresses of the loopback network, shared among a few server processes.  The figures
are CPU time of this process per answer, all in: connecting, asking, closing; what connecting is of
that; and the most memory this process had.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import trio

from trio_cmd.client import Connection, Host, connect

HOSTS_PER_NETWORK = 250
SECONDS = 60.0
SPARE_DESCRIPTORS = 64


@dataclass(frozen=True)
class Cost:
    """What was spent.

    Attributes:
        answers: how many there were.
        connecting_seconds: of CPU time, until all hosts were connected.
        seconds: of CPU time, all in.
        resident_bytes: the most memory this process had.
    """

    answers: int
    connecting_seconds: float
    seconds: float
    resident_bytes: int


def start_servers(stack: ExitStack, count: int, clients: int) -> list[int]:
    """Start servers on all addresses of this host; they end with the stack.

    Returns:
        Their ports.
    """
    root = stack.enter_context(tempfile.TemporaryDirectory())
    logs = [Path(root, f"{number}.log") for number in range(count)]
    for log in logs:
        # No port is chosen here: somebody else could have it meanwhile.
        options = {"--host": "*", "--port": 0, "--max-clients": clients, "--allow": "127.0.0.0/8"}
        options |= {"--root": root, "--log-format": "json", "--log-file": log}
        words = [str(word) for option in options.items() for word in option]
        process = subprocess.Popen([sys.executable, "-m", "trio_cmd", "--allow-root", *words])
        stack.callback(process.wait)
        stack.callback(process.terminate)
    return [wait_for_port(log) for log in logs]


def wait_for_port(log: Path) -> int:
    """Wait until a server listens; gives the port it has for IPv4."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        whole, _, _ = log.read_text().rpartition("\n") if log.exists() else ("", "", "")
        for line in whole.splitlines():
            record = json.loads(line)
            if record["action"] == "listening" and record["host"] == "0.0.0.0":
                return int(record["port"])
        time.sleep(0.02)
    raise SystemExit(f"a server does not listen; its record is {log}")


def list_hosts(count: int, ports: list[int]) -> list[Host]:
    """Give each host an address of its own, and one of the servers."""
    hosts = []
    for number in range(count):
        network, place = divmod(number, HOSTS_PER_NETWORK)
        address = f"127.0.{network + 1}.{place + 1}"
        hosts.append(Host(address, address, ports[number % len(ports)]))
    return hosts


async def ask_all(hosts: list[Host], questions: int, *, is_pipelined: bool = False) -> Cost:
    """Connect to all hosts, then ask each, then close."""
    answers = 0
    connections: list[Connection] = []
    ready = trio.Event()

    async def ask(connection: Connection) -> None:
        nonlocal answers
        reply = await connection.ask("ping")
        answers += reply.result["pong"]

    async def ask_one(host: Host) -> None:
        async with connect(host, connect_seconds=SECONDS, answer_seconds=SECONDS) as connection:
            connections.append(connection)
            if len(connections) == len(hosts):
                ready.set()
            await ready.wait()
            async with trio.open_nursery() as nursery:
                for _ in range(questions):
                    if is_pipelined:
                        nursery.start_soon(ask, connection)
                    else:
                        await ask(connection)

    begin = time.process_time()
    async with trio.open_nursery() as nursery:
        for host in hosts:
            nursery.start_soon(ask_one, host)
        await ready.wait()
        connected = time.process_time()
    seconds = time.process_time() - begin
    return Cost(answers, connected - begin, seconds, most_resident_bytes())


def most_resident_bytes() -> int:
    """Ask the kernel; what ``getrusage`` gives may be that of the program that started this one."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--hosts", type=int, default=1000)
    parser.add_argument("--questions", type=int, default=10, help="for each host")
    parser.add_argument("--servers", type=int, default=10, help="processes")
    parser.add_argument("--pipelined", action="store_true", help="ask all questions at once")
    args = parser.parse_args()
    needed = args.hosts + SPARE_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, max(hard, needed)))
    with ExitStack() as stack:
        ports = start_servers(stack, args.servers, args.hosts + 10)
        begin = time.monotonic()
        cost = trio.run(
            lambda: ask_all(list_hosts(args.hosts, ports), args.questions, is_pipelined=args.pipelined)
        )
        wall = time.monotonic() - begin
    all_in, connecting = (1000 * spent / cost.answers for spent in (cost.seconds, cost.connecting_seconds))
    print(f"{cost.answers} answers of {args.hosts} hosts in {wall:.1f} s")
    print(f"client CPU {all_in:.3f} ms an answer, {connecting:.3f} ms of that for connecting")
    print(f"memory {cost.resident_bytes / 1024**2:.0f} MiB at most")


if __name__ == "__main__":
    main()
