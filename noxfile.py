"""The checks, each on its own: what CI calls after ``scripts/test``."""

import os
import shutil
import subprocess
from pathlib import Path

import nox

nox.options.sessions = ["lint", "types", "tests", "coverage", "proofs"]
nox.options.error_on_missing_interpreters = False

OLDEST = (3, 11)
# Many tests wait rather than compute.
SIDE_BY_SIDE = ("-n", "auto", "--dist", "worksteal")
PYPROJECT = nox.project.load_toml("pyproject.toml")
# What the benchmark compares with beside libraries; of Debian and Ubuntu, and named like their packages.
PEERS = ("ncat", "openssl", "socat", "xinetd")


def find_pythons() -> list[str]:
    """Find each Python at hand from 3.11: on the path, and those of pyenv, one of each version."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates = [
        *sorted(pyenv.glob("3.*/bin/python3")),
        *(shutil.which(f"python3.{n}") for n in range(11, 20)),
    ]
    found: dict[str, str] = {}
    for candidate in filter(None, [*candidates, shutil.which("python3")]):
        show = "import sys; print('.'.join(map(str, sys.version_info[:2])))"
        run = subprocess.run([str(candidate), "-c", show], capture_output=True, text=True, check=False)
        version = run.stdout.strip()
        if run.returncode == 0 and tuple(map(int, version.split("."))) >= OLDEST:
            found.setdefault(version, str(candidate))
    return list(found.values())


PYTHONS = find_pythons()


def install(session: nox.Session, group: str) -> None:
    """Install the package itself, as a user would, and a dependency group."""
    session.install(".", *nox.project.dependency_groups(PYPROJECT, group))
    # In a flat layout Python would otherwise import the checkout, not what is installed.
    session.env["PYTHONSAFEPATH"] = "1"


def install_programs(session: nox.Session, names: tuple[str, ...]) -> None:
    """Install programs that are missing, where that is possible; elsewhere whoever needs them names them."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
    missing = [name for name in names if shutil.which(name, path=path) is None]
    if missing and os.geteuid() == 0 and shutil.which("apt-get"):
        session.run("apt-get", "update", "-qq", external=True)
        session.run("apt-get", "install", "-qq", "-y", "--no-install-recommends", *missing, external=True)


@nox.session
def lint(session: nox.Session) -> None:
    """Judge style and layers; changes nothing."""
    install(session, "lint")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports", "--no-cache")


@nox.session
def types(session: nox.Session) -> None:
    """Judge types, strictly."""
    install(session, "types")
    session.run("mypy")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the tests on each Python at hand, against the installed package; the first gathers coverage."""
    install(session, "test")
    tests = ("pytest", *SIDE_BY_SIDE, "-m", "not proof", *session.posargs)
    if session.python != PYTHONS[0]:
        session.run(*tests)
        return
    session.env["COVERAGE_FILE"] = str(Path(".nox").resolve() / ".coverage" / "data")
    Path(".nox/.coverage").mkdir(exist_ok=True)
    session.run("coverage", "run", "-m", *tests)
    session.notify("coverage")


@nox.session
def coverage(session: nox.Session) -> None:
    """Judge what the tests have run: every branch."""
    session.install(*nox.project.dependency_groups(PYPROJECT, "test"))
    session.env["COVERAGE_FILE"] = str(Path(".nox").resolve() / ".coverage" / "data")
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report", "--fail-under=100")


@nox.session
def proofs(session: nox.Session) -> None:
    """Run once what takes long or needs a real daemon: side by side what waits, then the rest in peace."""
    install(session, "test")
    session.run("pytest", *SIDE_BY_SIDE, "-m", "proof and waits", *session.posargs)
    session.run("pytest", "-m", "proof and not waits", *session.posargs)


@nox.session(default=False)
def fix(session: nox.Session) -> None:
    """Put right what can be put right by a program."""
    session.install(*nox.project.dependency_groups(PYPROJECT, "lint"))
    session.run("ruff", "check", "--fix", ".")
    session.run("ruff", "format", ".")


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Measure ours beside its peers, and write the page of it; a figure is never a test."""
    install(session, "bench")
    install_programs(session, PEERS)
    # The programs import their neighbours.
    session.env["PYTHONSAFEPATH"] = ""
    session.run("python", "scripts/bench/compare.py", *(session.posargs or ("--write", "docs")))
    if not session.posargs:
        session.run("python", "scripts/bench/sharing.py")
        session.run("python", "scripts/bench/never_read.py")


@nox.session(default=False)
def soak(session: nox.Session) -> None:
    """Let clients of all kinds come for an hour; ``-- --minutes N``, see ``scripts/soak.py``."""
    install(session, "test")
    # The program imports its neighbours.
    session.run("python", "scripts/soak.py", *session.posargs, env={"PYTHONSAFEPATH": ""})


@nox.session(default=False, python=PYTHONS)
def guard(session: nox.Session) -> None:
    """Compare the work of a command with what is stored, on each Python; ``-- --renew`` stores it."""
    install(session, "test")
    session.run("python", "scripts/guard.py", *session.posargs)
