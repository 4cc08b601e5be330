import os
import resource
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from certificates import Certificates
from program import Program, children_of, wait_until

StartProgram = Callable[..., Program]

# How long an example takes says nothing on a busy machine.  Where nothing is skipped the examples are
# the same each time: what judges a change must not be decided by luck; elsewhere each run looks further.
hypothesis.settings.register_profile(
    "trio_cmd", deadline=None, derandomize=os.environ.get("TRIO_CMD_REQUIRE_TOOLS") == "1"
)
hypothesis.settings.load_profile("trio_cmd")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: many tests wait rather than compute."""
    return len(os.sched_getaffinity(0)) + 1


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip, or fail where nothing may be skipped, what needs a tool that is missing."""
    for marker in item.iter_markers("needs"):
        for tool in marker.args:
            if shutil.which(tool) is not None:
                continue
            if os.environ.get("TRIO_CMD_REQUIRE_TOOLS") == "1":
                pytest.fail(f"{tool} is missing, and TRIO_CMD_REQUIRE_TOOLS=1 forbids to skip")
            pytest.skip(f"needs {tool}")


@pytest.fixture
def start() -> Iterator[StartProgram]:
    """Start the program as a process; it is ended with the test."""
    with ExitStack() as stack:

        def start_program(*args: str, **options: Any) -> Program:
            return stack.enter_context(Program(*args, **options))

        yield start_program


@pytest.fixture
def no_orphans() -> Iterator[None]:
    """Reap what becomes a child of the tests when its parent is killed; nothing may stay."""
    before = children_of(os.getpid())
    yield
    wait_until(lambda: not reap(children_of(os.getpid()) - before), "all that was started has ended")


def reap(pids: set[int]) -> set[int]:
    """Take the exit statuses of those that have ended; returns the others."""
    return {pid for pid in pids if os.waitpid(pid, os.WNOHANG)[0] == 0}


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Certificates, good ones and bad ones, in files."""
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def write_settings(tmp_path: Path) -> Callable[[str], str]:
    """Write a settings file that only its owner may write; returns its path."""

    def write(text: str) -> str:
        path = tmp_path / "trio-cmd.toml"
        path.write_text(text)
        path.chmod(0o600)
        return str(path)

    return write


@pytest.fixture
def socket_path() -> Iterator[str]:
    """A path short enough for a unix socket, in a folder that every user may look into."""
    with tempfile.TemporaryDirectory(prefix="trio-cmd-") as folder:
        os.chmod(folder, 0o755)
        yield f"{folder}/socket"


@pytest.fixture
def log_file(tmp_path: Path) -> Path:
    """A log of twenty lines."""
    path = tmp_path / "syslog"
    path.write_text("".join(f"Nov 20 15:02:{n:02} lab CRON[{n}]: line {n}\n" for n in range(20)))
    return path


@pytest.fixture
def enough_descriptors() -> Iterator[None]:
    """Let this process hold two thousand clients."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 2000)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
