"""There are enough descriptors, and the first three are nobody's socket."""

import os
import resource
import subprocess
import sys

import pytest

from trio_cmd.server.descriptors import fit_descriptors, needed_descriptors
from trio_cmd.settings import ServerSettings, Settings


class Limit:
    """RLIMIT_NOFILE as a kernel keeps it."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, *, is_root: bool = False
    ) -> None:
        self.value = (soft, hard)
        self.is_root = is_root
        monkeypatch.setattr(resource, "getrlimit", lambda _: self.value)
        monkeypatch.setattr(resource, "setrlimit", self.set)

    def set(self, _: int, value: tuple[int, int]) -> None:
        if value[1] > self.value[1] >= 0 and not self.is_root:
            raise ValueError("not allowed to raise maximum limit")
        self.value = value


def settings(max_clients: int) -> Settings:
    return Settings(server=ServerSettings(max_clients=max_clients))


def test_what_is_needed_is_counted() -> None:
    """64 of our own, one a client, 64 refusals, 4 for each piece of work."""
    assert needed_descriptors(100, 8) == 64 + 100 + 64 + 32


def test_a_sufficient_limit_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is changed without need."""
    limit = Limit(monkeypatch, 1024, 4096)
    assert fit_descriptors(settings(100), 8) == 100
    assert limit.value == (1024, 4096)


def test_the_soft_limit_is_raised_to_what_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The usual 1024 do not limit a server that may have more."""
    limit = Limit(monkeypatch, 1024, 1 << 20)
    assert fit_descriptors(settings(2000), 8) == 2000
    assert limit.value == (2160, 1 << 20)


def test_root_raises_the_hard_limit_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who may have more takes it."""
    limit = Limit(monkeypatch, 1024, 1024, is_root=True)
    assert fit_descriptors(settings(2000), 8) == 2000
    assert limit.value == (2160, 2160)


def test_clients_are_fewer_where_descriptors_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients can never bring the server to its limit."""
    limit = Limit(monkeypatch, 256, 512)
    assert fit_descriptors(settings(2000), 8) == 512 - 160
    assert limit.value == (512, 512)


def test_there_is_always_one_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server for nobody would be no server."""
    Limit(monkeypatch, 64, 64)
    assert fit_descriptors(settings(2000), 8) == 1


def test_a_limit_that_cannot_be_changed_is_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sandbox that forbids to ask does not stop the start."""
    limit = Limit(monkeypatch, 256, 1024)

    def forbid(_: int, value: tuple[int, int]) -> None:
        raise OSError("forbidden")

    monkeypatch.setattr(resource, "setrlimit", forbid)
    assert fit_descriptors(settings(2000), 8) == 256 - 160
    assert limit.value == (256, 1024)


@pytest.mark.parametrize("hard", [1024, resource.RLIM_INFINITY])
def test_no_limit_is_enough(monkeypatch: pytest.MonkeyPatch, hard: int) -> None:
    """Some platforms have none."""
    limit = Limit(monkeypatch, resource.RLIM_INFINITY if hard < 0 else 64, hard)
    assert fit_descriptors(settings(500), 8) == 500
    assert limit.value[0] in (resource.RLIM_INFINITY, 660) or limit.value == (660, 1024)


def test_an_infinite_hard_limit_lets_the_soft_one_be_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some platforms have such a pair."""
    limit = Limit(monkeypatch, 64, resource.RLIM_INFINITY)
    assert fit_descriptors(settings(500), 8) == 500
    assert limit.value == (660, resource.RLIM_INFINITY)


@pytest.mark.parametrize("closed", [[0], [1], [2], [0, 1, 2]])
def test_closed_standard_descriptors_become_the_null_device(closed: list[int]) -> None:
    """A client's socket never becomes standard output."""
    show = (
        "import os; from trio_cmd.server.descriptors import hold_standard_descriptors as hold;"
        "held = hold(); names = [os.readlink(f'/proc/self/fd/{fd}') for fd in held];"
        "os.write(3, repr((held, set(names))).encode())"
    )
    read, write = os.pipe()
    close = " ".join(f"{fd}<&-" for fd in closed)
    script = f'exec "$0" -c "$1" 3>&{write} {close}'
    subprocess.run(["bash", "-c", script, sys.executable, show], pass_fds=[write], timeout=30, check=True)
    os.close(write)
    with os.fdopen(read) as answer:
        assert answer.read() == repr((closed, {"/dev/null"}))
