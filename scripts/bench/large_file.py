"""A file of 4 GiB: the time of its SHA-1 beside that of openssl, its memory, and the pings beside it.

    python scripts/bench/large_file.py [--gib 4] [--rounds 3] [--folder DIR]

Server and ``openssl dgst -sha1`` hash the same file in turns, after both have read it once; the
figure is the median over the rounds.  While the server hashes, another client pings it every 5 ms.
On a machine that does other things too, the CPU times are the ones to compare.
"""

import argparse
import os
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Self

BLOCK_BYTES = 1 << 26
PING_SECONDS = 0.005
START_SECONDS = 10.0
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def make_file(folder: str, gib: float) -> Path:
    """Write a file of random blocks."""
    path = Path(folder) / "large"
    with path.open("wb") as file:
        for _ in range(int(gib * (1 << 30)) // BLOCK_BYTES):
            file.write(os.urandom(BLOCK_BYTES))
    return path


def start_server(folder: str) -> tuple[subprocess.Popen[bytes], int]:
    """Start it on a free port; returns the process and the port."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = int(sock.getsockname()[1])
    command = [sys.executable, "-m", "trio_cmd", "--port", str(port), "--root", folder]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            time.sleep(0.02)
        else:
            return process, port
    raise SystemExit(f"nobody listens on port {port}")


def ask(port: int, line: str) -> tuple[float, str]:
    """Ask one thing; returns the seconds and the answer."""
    with socket.create_connection(("127.0.0.1", port)) as client, client.makefile("r") as lines:
        began = time.perf_counter()
        client.sendall(line.encode() + b"\n")
        answer = lines.readline()
        return time.perf_counter() - began, answer.strip()


def ask_openssl(path: Path) -> tuple[float, str]:
    """Let openssl do it; returns the seconds and what it printed."""
    began = time.perf_counter()
    run = subprocess.run(["openssl", "dgst", "-sha1", path], capture_output=True, text=True, check=True)
    return time.perf_counter() - began, run.stdout.strip()


def server_cpu_seconds(pid: int) -> float:
    """CPU time of the server, with all its threads."""
    return time.clock_gettime((~pid << 3) | 2)  # the number clock_getcpuclockid(3) would compute


def children_cpu_seconds() -> float:
    """CPU time of the programs that have ended: only openssl."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


class Beside:
    """Pings the server and looks at its memory, in a thread, while this lasts."""

    def __init__(self, port: int, pid: int) -> None:
        self.seconds: list[float] = []
        self.resident: list[int] = []
        self._port, self._pid = port, pid
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _run(self) -> None:
        with socket.create_connection(("127.0.0.1", self._port)) as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while not self._is_over.wait(PING_SECONDS):
                began = time.perf_counter()
                client.sendall(b"ping\n")
                client.recv(16)
                self.seconds.append(time.perf_counter() - began)
                pages = Path(f"/proc/{self._pid}/statm").read_text().split()[1]
                self.resident.append(int(pages) * PAGE_BYTES)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--gib", type=float, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", help="where the file is written (the temporary folder)")
    args = parser.parse_args()
    folder = tempfile.mkdtemp(dir=args.folder)
    try:
        measure(folder, args.gib, args.rounds)
    finally:
        shutil.rmtree(folder)


def measure(folder: str, gib: float, rounds: int) -> None:
    """Hash the file in turns."""
    path = make_file(folder, gib)
    server, port = start_server(folder)
    ours, theirs, pings, resident = [], [], list[float](), list[int]()
    cpu = [0.0, 0.0]
    try:
        ask(port, f"comphash {path}")
        ask_openssl(path)
        for _ in range(rounds):
            cpu[0] -= server_cpu_seconds(server.pid)
            with Beside(port, server.pid) as beside:
                seconds, answer = ask(port, f"comphash {path}")
            cpu[0] += server_cpu_seconds(server.pid)
            ours.append(seconds)
            pings += beside.seconds
            resident += beside.resident
            cpu[1] -= children_cpu_seconds()
            seconds, printed = ask_openssl(path)
            cpu[1] += children_cpu_seconds()
            theirs.append(seconds)
            if answer.split()[-1] != printed.split()[-1]:
                raise SystemExit(f"the digests differ: {answer}; {printed}")
    finally:
        server.terminate()
        server.wait()
    mine, other = statistics.median(ours), statistics.median(theirs)
    p99 = statistics.quantiles(pings, n=100)[98]
    mib = 1 << 20
    print(f"{gib:g} GiB: comphash {mine:.2f} s, openssl {other:.2f} s: {mine / other:.2f} of its time")
    print(f"CPU time {cpu[0] / rounds:.2f} s, pings included, and {cpu[1] / rounds:.2f} s")
    print(f"resident memory {min(resident) / mib:.1f} to {max(resident) / mib:.1f} MiB")
    median = statistics.median(pings) * 1000
    print(f"{len(pings)} pings: 99 of 100 within {p99 * 1000:.1f} ms, median {median:.2f} ms")


if __name__ == "__main__":
    main()
