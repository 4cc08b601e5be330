"""The unix socket's path: who may connect, what is replaced, who wins, what is left."""

import os
import re
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from program import PATIENCE_SECONDS
from trio_cmd.errors import ListenError
from trio_cmd.server import unix_socket
from trio_cmd.server.unix_socket import Credentials, peer_credentials, unix_listener

# uid 0 without these is told EACCES as everybody else is.
WITHOUT_POWERS = (
    "setpriv",
    "--bounding-set=-dac_override,-dac_read_search,-fowner",
    "--inh-caps=-dac_override,-dac_read_search,-fowner",
)
NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act for another user")


@pytest.fixture
def path(socket_path: str) -> str:
    return socket_path


def leave_socket(path: str) -> None:
    """Leave what a server that was killed leaves."""
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(path)
        killed.listen()


def reach(path: str) -> int:
    """Try to connect; returns the number of the error."""
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(path)


@contextmanager
def umask(mask: int) -> Iterator[None]:
    old = os.umask(mask)
    try:
        yield
    finally:
        os.umask(old)


def refusal(path: str) -> str:
    """Why a path cannot be listened on: one line, with what to do instead."""
    before = os.lstat(path) if os.path.lexists(path) else None
    with pytest.raises(ListenError) as caught, unix_listener(path):
        pass
    after = os.lstat(path) if os.path.lexists(path) else None
    assert (before and (before.st_ino, before.st_mode)) == (after and (after.st_ino, after.st_mode))
    head, remedy = f"cannot listen on '{path}': ", ", or choose another path with --unix-socket"
    text = str(caught.value)
    assert text.startswith(head)
    assert text.endswith(remedy)
    assert "\n" not in text
    return text.removeprefix(head).removesuffix(remedy).replace(path, "PATH")


# The mode


@pytest.mark.parametrize("mask", [0, 0o022, 0o077, 0o777])
async def test_socket_is_for_its_owner_and_group_whatever_the_umask(path: str, mask: int) -> None:
    """Who may connect is decided here, not by how the server was started."""
    with umask(mask):
        with unix_listener(path):
            found = os.lstat(path)
            assert stat.S_ISSOCK(found.st_mode)
            assert stat.S_IMODE(found.st_mode) == 0o660
        assert os.umask(mask) == mask


def test_umask_is_given_back_when_the_path_cannot_be_bound(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failed start in a program that goes on leaves no strange modes behind."""
    with umask(0o027):
        monkeypatch.setattr(unix_socket, "_clear", leave_socket)
        with pytest.raises(ListenError, match="socket': Address already in use; "), unix_listener(path):
            pass
        assert os.umask(0o027) == 0o027


@pytest.mark.needs("strace")
def test_socket_is_at_no_moment_wider(path: str, tmp_path: Path) -> None:
    """Not even for a microsecond can somebody connect who may not."""
    trace = tmp_path / "trace"
    calls = "umask,bind,listen,/chmod"
    code = (
        "import sys, trio\nfrom trio_cmd.server.unix_socket import unix_listener\n"
        "async def main():\n    with unix_listener(sys.argv[1]): pass\n"
        "trio.run(main)"
    )
    environ = {name: text for name, text in os.environ.items() if not name.startswith("COVERAGE")}
    subprocess.run(
        ["strace", "-f", "-qq", "-e", f"trace={calls}", "-o", str(trace), sys.executable, "-c", code, path],
        check=True,
        timeout=PATIENCE_SECONDS,
        env=environ,
    )
    seen = re.findall(r"^\d+ +(\w+)\((\d*).* = (\d+)$", trace.read_text(), re.MULTILINE)
    assert [name for name, _, _ in seen] == ["umask", "bind", "umask", "listen"]
    (_, narrow, wide), _, (_, given_back, _), _ = seen
    assert (int(narrow, 8), int(given_back, 8)) == (0o117, int(wide, 8))


@as_root
@pytest.mark.needs("setpriv", "nc.openbsd")
@pytest.mark.parametrize(
    ("group", "complaint"),
    [
        pytest.param(os.getegid(), "", id="in its group"),
        pytest.param(NOBODY, "denied", id="of another group"),
    ],
)
async def test_other_users_need_the_group_of_the_socket(path: str, group: int, complaint: str) -> None:
    """The operator lets people in by putting them into a group, and nobody else gets in."""
    become = ["setpriv", f"--reuid={NOBODY}", f"--regid={group}", "--clear-groups", "--"]
    with unix_listener(path):
        done = await trio.run_process(
            [*become, "nc.openbsd", "-z", "-U", path], capture_stderr=True, check=False
        )
    assert done.stderr.decode().strip().endswith(complaint)
    assert done.returncode == (1 if complaint else 0)


# What is there already


async def test_what_a_killed_server_left_is_replaced(path: str) -> None:
    """A power cut is followed by a start, not by an operator."""
    leave_socket(path)
    with unix_listener(path):
        assert reach(path) == 0


def occupy_with_file(path: str) -> None:
    Path(path).write_text("precious")


def occupy_with_link(path: str) -> None:
    leave_socket(f"{path}.real")
    os.symlink(f"{path}.real", path)


@pytest.mark.parametrize("occupy", [occupy_with_file, occupy_with_link, os.mkfifo, os.mkdir])
def test_what_is_not_a_socket_is_never_removed(path: str, occupy: Callable[[str], None]) -> None:
    """A slip of the pen in the path costs nobody a file; a link is not followed to anything."""
    occupy(path)
    assert refusal(path) == "'PATH' is not a socket; remove it"


@as_root
def test_socket_of_another_user_is_never_removed(path: str) -> None:
    """Root's server does not take over what a user has put there."""
    leave_socket(path)
    os.chown(path, NOBODY, NOBODY)
    expected = f"'PATH' belongs to another user (uid {NOBODY}); remove it when no server uses it"
    assert refusal(path) == expected


@pytest.mark.parametrize("backlog", [0, 5])
@pytest.mark.parametrize("waiting", [0, 1])
def test_socket_somebody_answers_at_is_never_removed(path: str, backlog: int, waiting: int) -> None:
    """A server that lives keeps its path, also one so busy that nobody more can connect."""
    with socket.socket(socket.AF_UNIX) as other, socket.socket(socket.AF_UNIX) as first:
        other.bind(path)
        other.listen(backlog)
        if waiting:
            first.connect(path)
        socket.setdefaulttimeout(PATIENCE_SECONDS)  # who would wait for room waits no longer than this
        began = time.monotonic()
        try:
            assert refusal(path) == "another server answers there; stop that one"
        finally:
            socket.setdefaulttimeout(None)
        assert time.monotonic() - began < PATIENCE_SECONDS / 2


def test_socket_of_another_kind_in_use_is_never_removed(path: str) -> None:
    """A log daemon that takes datagrams there keeps its path."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(path)
        assert refusal(path) == "another server answers there; stop that one"


@pytest.mark.parametrize(
    "make", [lambda folder: None, lambda folder: Path(folder).touch()], ids=["none", "file"]
)
def test_a_folder_that_is_missing_is_named(path: str, make: Callable[[str], None]) -> None:
    """The operator reads which folder to make."""
    make(path)
    match = f"there is no folder '{path}'; create it, or choose another"
    with pytest.raises(ListenError, match=match), unix_listener(f"{path}/socket"):
        pass


def start_without_powers(path: str) -> str:
    """Try to listen as a user whom the system refuses something; returns why it failed."""
    code = (
        "import sys\nfrom trio_cmd.errors import ListenError\n"
        "from trio_cmd.server.unix_socket import unix_listener\n"
        "try: unix_listener(sys.argv[1]).__enter__()\n"
        "except ListenError as error: print(error)"
    )
    prefix = WITHOUT_POWERS if os.geteuid() == 0 else ()
    done = subprocess.run(
        [*prefix, sys.executable, "-c", code, path], capture_output=True, timeout=PATIENCE_SECONDS, text=True
    )
    assert done.stderr == ""
    return done.stdout


@pytest.mark.needs("setpriv")
def test_a_folder_that_may_not_be_written_is_named(path: str) -> None:
    """The operator reads who needs to write where."""
    folder = os.path.dirname(path)
    os.chmod(folder, 0o555)
    expected = f"uid {os.geteuid()} may not write in the folder '{folder}'; let it, or choose another path"
    assert expected in start_without_powers(path)
    os.chmod(folder, 0o755)
    os.close(os.open(f"{path}.lock", os.O_CREAT, 0))  # a lock that cannot be opened
    expected = f"'{path}.lock': Permission denied; remove it when no server uses it"
    assert expected in start_without_powers(path)


# The lock


async def test_a_second_server_is_told_who_has_the_path(path: str) -> None:
    """Two services with one path are told apart at the start."""
    with unix_listener(path):
        assert refusal(path) == "another server holds 'PATH.lock'; stop that one"
        assert reach(path) == 0
    with unix_listener(path):
        assert reach(path) == 0


async def test_lock_stays_and_is_nobody_elses_to_hold(path: str) -> None:
    """A lock that is removed would let two servers win; one that others can open, anybody could hold."""
    lock = f"{path}.lock"
    with umask(0), unix_listener(path):
        assert stat.S_IMODE(os.lstat(lock).st_mode) == 0o600
    assert os.path.exists(lock)
    assert not os.path.lexists(path)


def lock_by_link(lock: str) -> None:
    os.symlink(f"{lock}.real", lock)


def lock_by_user(lock: str) -> None:
    Path(lock).touch()
    os.chown(lock, NOBODY, NOBODY)


@pytest.mark.parametrize(
    ("occupy", "reason"),
    [
        (lock_by_link, "'PATH.lock' is a symbolic link; remove it"),
        (os.mkfifo, "'PATH.lock' is not a regular file; remove it"),
        (os.mkdir, "'PATH.lock': Is a directory; remove it when no server uses it"),
        pytest.param(
            lock_by_user,
            f"'PATH.lock' belongs to another user (uid {NOBODY}); remove it when no server uses it",
            marks=as_root,
        ),
    ],
)
def test_lock_that_is_not_ours_is_refused(path: str, occupy: Callable[[str], None], reason: str) -> None:
    """Nobody can make the server open, create or wait for something by what he puts there."""
    occupy(f"{path}.lock")
    assert refusal(path) == reason
    assert not os.path.exists(f"{path}.lock.real")


async def test_of_many_starts_at_once_one_wins(path: str) -> None:
    """A supervisor gone wild ends with one server that works, not with two that think they do."""
    leave_socket(path)
    starts = 10
    together, told = threading.Barrier(starts), threading.Barrier(starts)
    won: list[int] = []

    def start() -> None:
        async def listen() -> None:
            together.wait(PATIENCE_SECONDS)
            try:
                with unix_listener(path) as listener:
                    won.append(listener.socket.fileno())
                    told.wait(PATIENCE_SECONDS)
                    assert reach(path) == 0
            except ListenError:
                told.wait(PATIENCE_SECONDS)

        trio.run(listen)

    for _ in range(5):
        won.clear()
        threads = [threading.Thread(target=start) for _ in range(starts)]
        for thread in threads:
            thread.start()
        for thread in threads:
            await trio.to_thread.run_sync(thread.join, PATIENCE_SECONDS)
        assert len(won) == 1
        leave_socket(path)


# The end


def leave_nothing(path: str) -> None:
    """Nothing has happened to the path meanwhile."""


def remove(path: str) -> None:
    os.unlink(path)


@pytest.mark.parametrize("meanwhile", [leave_nothing, remove])
async def test_path_is_removed_at_the_end(path: str, meanwhile: Callable[[str], None]) -> None:
    """Clients of a stopped server are told that nothing is there."""
    with unix_listener(path):
        meanwhile(path)
    assert not os.path.lexists(path)


@pytest.mark.parametrize("occupy", [occupy_with_file, leave_socket])
async def test_what_took_the_place_of_the_socket_is_not_removed(
    path: str, occupy: Callable[[str], None]
) -> None:
    """Whoever has put something else there finds it untouched, also where it looks the same."""
    with unix_listener(path) as listener:
        os.unlink(path)
        occupy(path)
        there = os.lstat(path)
        await listener.aclose()
    assert os.path.samestat(os.lstat(path), there)


async def test_path_is_removed_when_the_start_fails_later(path: str) -> None:
    """What a start that failed has made does not stay."""
    with pytest.raises(ZeroDivisionError), unix_listener(path) as listener:
        assert 1 / 0
    assert listener.socket.fileno() == -1
    assert not os.path.lexists(path)


# Who is there


@pytest.mark.skipif(not hasattr(socket, "SO_PEERCRED"), reason="only Linux tells")
async def test_the_kernel_tells_who_connected(path: str) -> None:
    """The record names the user and the process, whatever the client says of itself."""
    with unix_listener(path) as listener, socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        async with await listener.accept() as stream:
            assert peer_credentials(stream.socket) == Credentials(os.geteuid(), os.getpid())


async def test_where_the_kernel_does_not_tell_nothing_is_said(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server runs where only part of it can."""
    with unix_listener(path) as listener, socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        async with await listener.accept() as stream:
            monkeypatch.delattr(socket, "SO_PEERCRED", raising=False)
            assert peer_credentials(stream.socket) is None
