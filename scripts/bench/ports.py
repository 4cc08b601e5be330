"""Ports of this host: free ones, and whether somebody listens there, without connecting."""

import socket
import time
from pathlib import Path

START_SECONDS = 10.0
LOOK_SECONDS = 0.002


def free_port() -> int:
    """Find a port nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def is_listening(port: int) -> bool:
    """Look into the kernel's table whether somebody listens on a port."""
    sign = f":{port:04X} 00000000:0000 0A"
    return sign in Path("/proc/net/tcp").read_text()


def wait_for_port(port: int) -> None:
    """Wait until somebody listens."""
    deadline = time.monotonic() + START_SECONDS
    while not is_listening(port):
        if time.monotonic() > deadline:
            raise SystemExit(f"nobody listens on port {port}")
        time.sleep(LOOK_SECONDS)
