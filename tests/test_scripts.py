"""The two commands on a fresh copy, and what they say where something is missing."""

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

import pytest

from program import Program, wait_until

ROOT = Path(__file__).parent.parent
IGNORED = shutil.ignore_patterns(
    ".git", ".venv", ".nox", "__pycache__", ".*_cache", ".hypothesis", ".coverage*"
)
UNAVAILABLE = 69


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A fresh copy of the project, in a folder whose name has a blank."""
    folder = tmp_path / "fresh clone"
    shutil.copytree(ROOT, folder, ignore=IGNORED)
    return folder


def path_without(*tools: str) -> str:
    """The search path without the folders that hold these tools."""
    folders = os.environ["PATH"].split(os.pathsep)
    return os.pathsep.join(f for f in folders if not any((Path(f) / tool).exists() for tool in tools))


def run(checkout: Path, name: str, *args: str, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    environ = {key: text for key, text in os.environ.items() if key not in ("PYTHON", "PYTHONSAFEPATH")}
    command = ["bash", str(checkout / "scripts" / name), *args]
    return subprocess.run(command, env={**environ, **env}, capture_output=True, text=True, timeout=240)


def interpreter(folder: Path, script: str) -> str:
    """Write a program that stands where an interpreter would be."""
    path = folder / "python3"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("name", ["run", "test"])
def test_a_python_too_old_is_said_in_one_line(checkout: Path, tmp_path: Path, name: str) -> None:
    """Whoever has only an old Python learns it at once, and what to do."""
    old = interpreter(tmp_path, "exit 1")  # what the check of the version makes of it
    done = run(checkout, name, env={"PYTHON": old})
    assert done.returncode == UNAVAILABLE
    assert done.stderr.startswith(f"{name}: no Python 3.11 or later found; install one, or name it: PYTHON=")
    assert done.stderr.count("\n") == 1


def test_a_python_without_venv_is_said_in_one_line(checkout: Path, tmp_path: Path) -> None:
    """Debian leaves the module out; the line names the package."""
    bare = interpreter(tmp_path, f'case "$2" in *ensurepip*) exit 1;; esac; exec "{sys.executable}" "$@"')
    done = run(checkout, "run", env={"PYTHON": bare, "PATH": path_without("uv")})
    assert done.returncode == UNAVAILABLE
    assert "has no venv module; install it (Debian, Ubuntu: apt install python3-venv) or uv" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.waits
@pytest.mark.proof
def test_no_network_is_said_in_one_line(checkout: Path) -> None:
    """Without the registry nothing can be installed, and nothing is left half done."""
    nowhere = {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": "http://127.0.0.1:9/", "PIP_RETRIES": "0"}
    nowhere |= {"PIP_FIND_LINKS": "", "PIP_EXTRA_INDEX_URL": "", "PIP_NO_CACHE_DIR": "1"}
    done = run(checkout, "run", env={**nowhere, "PYTHON": sys.executable, "PATH": path_without("uv")})
    assert done.returncode == UNAVAILABLE
    assert done.stderr.startswith("run: cannot install the dependencies (is there a network?): ")
    assert done.stderr.count("\n") == 1


def pythons() -> list[str]:
    """This one, and the system's own where it is another."""
    system = "/usr/bin/python3"
    has_it = Path(system).exists() and Path(system).resolve() != Path(sys.executable).resolve()
    return [sys.executable, system] if has_it else [sys.executable]


@pytest.mark.waits
@pytest.mark.proof
@pytest.mark.parametrize("python", pythons())
@pytest.mark.parametrize("tools", ["venv", pytest.param("uv", marks=pytest.mark.needs("uv"))])
def test_a_fresh_clone_answers_netcat(checkout: Path, python: str, tools: str) -> None:
    """From a clone to an answer is one command."""
    path = os.environ["PATH"] if tools == "uv" else path_without("uv")
    env = {"PYTHON": python, "PATH": path, "PYTHONSAFEPATH": ""}
    done = run(checkout, "run", "--version", env=env)
    assert (done.returncode, done.stdout) == (0, "trio-cmd 0.1.0\n"), done.stderr
    offline = {**env, "PIP_INDEX_URL": "http://127.0.0.1:9/", "UV_OFFLINE": "1"}
    command = ["bash", str(checkout / "scripts" / "run")]
    with Program(env=offline, command=command) as program:
        assert program.ask(b"test\nping\n") == b"Command not found.\npong\n"
        assert program.stop() == 0


@pytest.mark.waits
@pytest.mark.proof
def test_a_fresh_clone_passes_its_tests(checkout: Path) -> None:
    """Whoever wants to change something can begin at once."""
    done = run(checkout, "test", "-q", "tests/test_escape.py", env={"PYTHON": sys.executable})
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_package_runs_from_a_checkout(checkout: Path) -> None:
    """Where the dependencies are installed nothing else is needed."""
    with Program(cwd=checkout, env={"PYTHONSAFEPATH": ""}) as program:
        wait_until(lambda: program.port > 0, "it listens")
        assert program.ask(b"ping\n") == b"pong\n"


@pytest.mark.waits
@pytest.mark.proof
def test_a_checkout_is_started_from_anywhere_by_any_name(checkout: Path, tmp_path: Path) -> None:
    """No file that lies where it is started is run, a link works, and so does a checkout that was moved."""
    env = {"PYTHON": sys.executable}
    assert run(checkout, "run", "--version", env=env).returncode == 0
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for module in ("trio", "msgspec", "trio_cmd"):
        (elsewhere / f"{module}.py").write_text("raise SystemExit('something else was run')\n")
    moved = checkout.rename(tmp_path / "moved")
    (elsewhere / "start-moved").symlink_to(moved / "scripts" / "run")
    command = [str(elsewhere / "start-moved"), "--version"]
    done = subprocess.run(command, cwd=elsewhere, capture_output=True, text=True, timeout=240)
    assert (done.returncode, done.stdout) == (0, "trio-cmd 0.1.0\n"), done.stderr


def test_the_command_is_there_after_an_installation() -> None:
    """``pip install .`` gives ``trio-cmd``, wherever it went."""
    command = Path(sysconfig.get_path("scripts")) / "trio-cmd"
    done = subprocess.run([str(command), "--version"], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (0, "trio-cmd 0.1.0\n")
