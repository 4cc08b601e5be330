"""What was measured on: the machine, the versions, the commit."""

import os
import platform
import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from kinds import KINDS, program_path

PACKAGES = ("trio", "structlog", "msgspec", "twisted", "uvloop")
PROGRAMS = {
    "socat": "-V",
    "ncat": "--version",
    "xinetd": "-version",
    "openssl": "version",
    "tail": "--version",
}


def describe() -> dict[str, str]:
    """Name what matters, and what it is here."""
    found = {
        "commit": read_commit(),
        "processor": f"{read_processor()}, {len(os.sched_getaffinity(0))} cores",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "kernel": platform.release(),
        "Python": platform.python_version(),
    }
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "missing"
    return found | {program: read_version(program, flag) for program, flag in PROGRAMS.items()}


def missing() -> list[str]:
    """Name the peers that are not here."""
    return [kind.name for kind in KINDS.values() if not kind.is_there]


def read_processor() -> str:
    """Ask the kernel for its name."""
    match = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return match[1] if match else platform.machine()


def read_commit() -> str:
    """Ask git; a checkout with changes is marked."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    return run(command) or "unknown"


def read_version(program: str, flag: str) -> str:
    """Ask a program for its version."""
    match = re.search(r"\d+(\.\d+)+\w*", run([program, flag]))
    return match[0] if match else "missing"


def run(command: list[str]) -> str:
    """Run a program; nothing when it is not there."""
    env = {**os.environ, "PATH": program_path()}
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    except FileNotFoundError:
        return ""
    return (done.stdout + done.stderr).strip()
