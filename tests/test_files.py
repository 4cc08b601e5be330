import contextlib
import errno
import fcntl
import os
import queue
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from program import PATIENCE_SECONDS, count_descriptors, wait_until
from trio_cmd.errors import CommandFailed, NotARegularFile, NotFound, NotPermitted, Unavailable
from trio_cmd.work import files
from trio_cmd.work.files import open_regular

IS_ROOT = os.geteuid() == 0
NOBODY = 65534
WITHOUT_OVERRIDE = (
    "setpriv",
    "--bounding-set=-dac_override,-dac_read_search",
    "--inh-caps=-dac_override,-dac_read_search",
)


def try_to_open(path: bytes, *, only_own_links: bool = False) -> bytes | Exception:
    """Open and read a file, or say what came instead; a call that hangs fails the test."""
    answers: queue.Queue[bytes | Exception] = queue.Queue()

    def work() -> None:
        try:
            fd = open_regular(path, only_own_links=only_own_links)
        except Exception as error:
            answers.put(error)
        else:
            with open(fd, "rb") as file:
                data = file.read()
            answers.put(data)

    threading.Thread(target=work, daemon=True).start()
    try:
        return answers.get(timeout=PATIENCE_SECONDS)
    except queue.Empty:
        raise AssertionError(f"opening {path!r} hangs") from None


def refusal(path: bytes, *, only_own_links: bool = False) -> CommandFailed:
    """Open what must not be opened; returns the error."""
    answer = try_to_open(path, only_own_links=only_own_links)
    assert isinstance(answer, CommandFailed), f"opened: {answer!r}"
    return answer


def file_system_of(path: str) -> str:
    """The type of the file system mounted at a path, as the kernel names it; empty when nothing is."""
    mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    kinds = [words[words.index("-") + 1] for words in mounts if words[4] == path]
    return kinds[-1] if kinds else ""


@pytest.fixture
def short_dir(tmp_path: Path) -> Iterator[bytes]:
    """A folder to make sockets in: their paths have 107 bytes at most."""
    folder = os.open(tmp_path, os.O_RDONLY)
    yield f"/proc/self/fd/{folder}".encode()
    os.close(folder)


@pytest.fixture
def without_o_path(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The module as it is where the system has no O_PATH."""
    files._statfs_function.cache_clear()
    monkeypatch.setattr(files, "_O_PATH", 0)
    yield
    files._statfs_function.cache_clear()


def test_regular_file_is_opened_for_reading_only(tmp_path: Path) -> None:
    """The window into the host lets nothing be written, and no child inherits what it opened."""
    path = tmp_path / "file"
    path.write_bytes(b"contents")
    fd = open_regular(os.fsencode(path))
    try:
        assert fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
        assert not os.get_inheritable(fd)
        assert os.read(fd, 100) == b"contents"
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    "name",
    [
        b"with space",
        b"it's",
        b'"both" and \'',
        b"\xff\xfe not UTF-8",
        "ümläut".encode(),
        b"-n",
        b"\\x41",
        b"n" * 255,
    ],
)
def test_any_name_a_file_can_have_is_opened(name: bytes, tmp_path: Path) -> None:
    """An intruder's file with a strange name is the very one an operator wants to look at."""
    path = os.path.join(os.fsencode(tmp_path), name)
    with open(path, "wb") as file:
        file.write(b"contents of " + name)
    assert try_to_open(path) == b"contents of " + name


def test_relative_path_is_taken_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manual says so."""
    (tmp_path / "here").write_bytes(b"contents")
    monkeypatch.chdir(tmp_path)
    assert try_to_open(b"here") == b"contents"
    assert try_to_open(b"./here", only_own_links=True) == b"contents"


def test_path_of_the_greatest_length_is_opened_and_one_byte_more_is_not_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path of 4,096 bytes is an error line, not a crash; all that the kernel allows works."""
    (tmp_path / "f").write_bytes(b"contents")
    monkeypatch.chdir(tmp_path)
    longest = b"./" * 2047 + b"f"
    assert len(longest) == 4095
    assert try_to_open(longest) == b"contents"
    error = refusal(b"." + b"/" + longest[1:])
    assert isinstance(error, NotFound)
    assert error.message.startswith("[Errno 36] File name too long: './/./././")


@pytest.mark.parametrize("path", [b"/nope", b"/nope/deeper", b"/etc/passwd/deeper", b"", b"n" * 256])
@pytest.mark.parametrize("only_own_links", [False, True])
def test_missing_file_is_told_in_the_words_of_the_system(path: bytes, only_own_links: bool) -> None:
    """The operator sees the path as it was typed, never an inner step."""
    error = refusal(path, only_own_links=only_own_links)
    assert isinstance(error, NotFound)
    assert error.message.endswith(f": '{path.decode()}'")
    assert "/proc/self/fd" not in error.message


def test_dangling_link_and_link_to_itself_are_not_found(tmp_path: Path) -> None:
    """Neither is worth more than one line."""
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    for only_own_links in (False, True):
        dangling = refusal(os.fsencode(tmp_path / "dangling"), only_own_links=only_own_links)
        loop = refusal(os.fsencode(tmp_path / "loop"), only_own_links=only_own_links)
        assert isinstance(dangling, NotFound)
        assert isinstance(loop, NotFound)
        assert dangling.message == f"[Errno 2] No such file or directory: '{tmp_path}/dangling'"
        assert loop.message == f"[Errno 40] Too many levels of symbolic links: '{tmp_path}/loop'"


@pytest.mark.parametrize("hidden", ["file", "folder"])
def test_unreadable_file_is_not_permitted(hidden: str, tmp_path: Path) -> None:
    """The server reads what its user may read, and says plainly what it may not."""
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / "file"
    path.write_bytes(b"secret")
    (path if hidden == "file" else folder).chmod(0)
    code = (
        "import sys; from trio_cmd.errors import NotPermitted; from trio_cmd.work.files import open_regular\n"
        "try: open_regular(sys.argv[1].encode())\n"
        "except NotPermitted as error: print(error.message)"
    )
    try:
        command = [sys.executable, "-c", code, str(path)]
        done = subprocess.run(
            [*WITHOUT_OVERRIDE, *command] if IS_ROOT else command,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
        )
    finally:
        folder.chmod(0o700)
    assert done.stdout == f"[Errno 13] Permission denied: '{path}'\n", done.stderr


# What is no regular file


@pytest.mark.parametrize("only_own_links", [False, True])
def test_fifo_with_bytes_in_it_keeps_them(only_own_links: bool, tmp_path: Path) -> None:
    """To look at a host must not take the data out of its programs' pipes."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    try:
        os.write(fd, b"not yours")
        assert isinstance(refusal(os.fsencode(path), only_own_links=only_own_links), NotARegularFile)
        assert os.read(fd, 100) == b"not yours"
    finally:
        os.close(fd)


@pytest.mark.parametrize("only_own_links", [False, True])
def test_fifo_without_a_writer_is_refused_at_once(only_own_links: bool, tmp_path: Path) -> None:
    """Forty hashes of a FIFO stopped the plain server for ever."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    error = refusal(os.fsencode(path), only_own_links=only_own_links)
    assert isinstance(error, NotARegularFile)
    assert error.message == f"not a regular file: '{path}'"


@pytest.mark.parametrize(
    "path",
    [
        b"/dev/zero",
        b"/dev/null",
        b"/dev/tty",
        b"/dev/ptmx",
        b"/dev",
        b"/",
        b"/proc/kmsg",
        b"/proc/version",
        b"/proc/self/mem",
        b"/proc/self/environ",
        b"/proc/self/task",
        b"/sys/kernel/mm/transparent_hugepage/enabled",
        b"/sys/kernel/notes",
    ],
)
@pytest.mark.parametrize("only_own_links", [False, True])
def test_what_the_kernel_makes_up_is_refused(path: bytes, only_own_links: bool) -> None:
    """Reading /dev/zero never ends, and reading /proc/kmsg takes the messages from who needs them."""
    if not os.path.exists(path) and path != b"/dev/tty":
        pytest.skip(f"this kernel has no {path.decode()}")
    assert isinstance(refusal(path, only_own_links=only_own_links), NotARegularFile)


def test_file_of_a_control_group_is_refused() -> None:
    """Version 1 and version 2 are file systems of their own."""
    mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    folders = [words[4] for words in mounts if words[words.index("-") + 1] in ("cgroup", "cgroup2")]
    if not folders:
        pytest.skip("no control groups are mounted here")
    for folder in folders:
        assert isinstance(refusal(f"{folder}/cgroup.procs".encode()), NotARegularFile)


def test_directory_and_socket_are_refused(tmp_path: Path, short_dir: bytes) -> None:
    """Both exist, neither has contents to show."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(short_dir + b"/socket")
        assert isinstance(refusal(os.fsencode(tmp_path / "socket")), NotARegularFile)
    assert isinstance(refusal(os.fsencode(tmp_path)), NotARegularFile)
    assert isinstance(refusal(os.fsencode(tmp_path) + b"/"), NotARegularFile)


@pytest.mark.skipif(not IS_ROOT, reason="only root may make a file in /dev")
@pytest.mark.skipif(file_system_of("/dev") != "devtmpfs", reason="/dev is no devtmpfs here")
def test_regular_file_among_the_devices_is_refused() -> None:
    """The kernel's own folder of devices is told from a folder in memory, though both say tmpfs."""
    path = f"/dev/trio-cmd-test-{os.getpid()}"
    with open(path, "xb"):
        pass
    try:
        assert isinstance(refusal(path.encode()), NotARegularFile)
    finally:
        os.unlink(path)


@pytest.mark.skipif(file_system_of("/dev/shm") != "tmpfs", reason="/dev/shm is no tmpfs here")
def test_regular_file_in_memory_is_opened() -> None:
    """Malware likes to live in /dev/shm: an incident responder must be able to hash it."""
    path = f"/dev/shm/trio-cmd-test-{os.getpid()}"
    with open(path, "xb") as file:
        file.write(b"malware")
    try:
        assert try_to_open(path.encode()) == b"malware"
    finally:
        os.unlink(path)


@pytest.mark.needs("strace")
def test_what_is_refused_was_never_opened(tmp_path: Path, short_dir: bytes) -> None:
    """Opening alone can rewind a tape or arm a watchdog: the path is looked at, not opened."""
    os.mkfifo(tmp_path / "fifo")
    code = (
        "import sys\nfrom trio_cmd.errors import NotARegularFile\n"
        "from trio_cmd.work.files import open_regular\n"
        "for path in sys.argv[1:]:\n"
        "    try: open_regular(path.encode())\n"
        "    except NotARegularFile: print('refused')"
    )
    asked = ["/dev/zero", "/proc/version", str(tmp_path / "fifo")]
    trace = tmp_path / "trace"
    environ = {name: text for name, text in os.environ.items() if not name.startswith("COVERAGE")}
    watch = ["strace", "-f", "-qq", "-e", "trace=open,openat,openat2", "-o", str(trace)]
    done = subprocess.run(
        [*watch, sys.executable, "-c", code, *asked],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        env=environ,
    )
    assert done.stdout == "refused\n" * 3, done.stderr
    opened = [line for line in trace.read_text().splitlines() if any(f'"{path}"' in line for path in asked)]
    assert len(opened) == 3
    assert all("O_PATH" in line for line in opened), opened
    assert "/proc/self/fd/" not in trace.read_text()


def test_file_put_in_the_place_of_the_one_that_was_looked_at_is_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who may rename files in a folder cannot make the server open a FIFO or another's file."""
    path = tmp_path / "file"
    path.write_bytes(b"looked at")
    look = files._is_pseudo

    def replace_then_look(fd: int) -> bool:
        path.rename(tmp_path / "old")
        os.mkfifo(path)
        return look(fd)

    monkeypatch.setattr(files, "_is_pseudo", replace_then_look)
    assert try_to_open(os.fsencode(path)) == b"looked at"
    assert stat.S_ISFIFO(path.stat().st_mode)


def test_lease_on_a_file_is_not_waited_for(tmp_path: Path) -> None:
    """A file server that holds a lease must not make a hash wait for the 45 s it may keep it."""
    path = tmp_path / "file"
    path.write_bytes(b"contents")
    code = (
        "import fcntl, os, signal, sys\n"
        "signal.signal(signal.SIGIO, signal.SIG_IGN)\n"
        "fd = os.open(sys.argv[1], os.O_RDWR)\n"
        "try: fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)\n"
        "except OSError as error: print(error.strerror, flush=True)\n"
        "else: print('held', flush=True)\n"
        "sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        answer = holder.stdout.readline().strip()
        if answer != "held":
            holder.communicate()
            pytest.skip(f"no leases on this file system: {answer}")
        error = refusal(os.fsencode(path))
        assert isinstance(error, Unavailable)
        assert error.message == f"[Errno 11] Resource temporarily unavailable: '{path}'"
        holder.communicate()
    assert try_to_open(os.fsencode(path)) == b"contents"


def test_no_refusal_leaves_a_descriptor_open(tmp_path: Path) -> None:
    """Ten thousand bad paths must not bring the server to the end of its descriptors."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "link").symlink_to("fifo")
    paths = [tmp_path / name for name in ("fifo", "loop", "link", "missing")]
    before = count_descriptors()
    for path in [*paths, Path("/dev/zero"), Path("/proc/version"), tmp_path]:
        for only_own_links in (False, True):
            refusal(os.fsencode(path), only_own_links=only_own_links)
    wait_until(lambda: count_descriptors() <= before, "descriptors closed")


# Symbolic links


def make_chain(folder: Path) -> Path:
    """A link to a link to a relative link in another folder to a file; returns the first."""
    (folder / "sub").mkdir()
    (folder / "sub" / "file").write_bytes(b"at the end")
    (folder / "sub" / "third").symlink_to("file")
    (folder / "second").symlink_to("sub/third")
    (folder / "first").symlink_to(folder / "second")
    return folder / "first"


@pytest.mark.parametrize("only_own_links", [False, True])
def test_own_links_are_followed_to_the_end(only_own_links: bool, tmp_path: Path) -> None:
    """/var/log/syslog may be a link that the administrator made, absolute or relative."""
    assert try_to_open(os.fsencode(make_chain(tmp_path)), only_own_links=only_own_links) == b"at the end"


@pytest.mark.parametrize("only_own_links", [False, True])
def test_as_many_links_are_followed_as_the_kernel_follows(only_own_links: bool, tmp_path: Path) -> None:
    """A chain works or fails, whichever command asks for it."""
    (tmp_path / "0").write_bytes(b"at the end")
    for number in range(1, 42):
        (tmp_path / str(number)).symlink_to(str(number - 1))
    assert try_to_open(os.fsencode(tmp_path / "40"), only_own_links=only_own_links) == b"at the end"
    error = refusal(os.fsencode(tmp_path / "41"), only_own_links=only_own_links)
    assert isinstance(error, NotFound)
    assert error.message.startswith("[Errno 40]")


@pytest.mark.skipif(not IS_ROOT, reason="only root may give a link to another user")
@pytest.mark.parametrize("foreign", ["first", "second", "sub/third"])
def test_link_of_another_user_is_not_followed(foreign: str, tmp_path: Path) -> None:
    """Who may write to a log's folder must not choose which file of ours ``lastlog`` shows."""
    first = make_chain(tmp_path)
    os.chown(tmp_path / foreign, NOBODY, NOBODY, follow_symlinks=False)
    error = refusal(os.fsencode(first), only_own_links=True)
    assert isinstance(error, NotPermitted)
    assert error.message.startswith(f"a symbolic link of another user: '{first}'; only those of root")
    assert try_to_open(os.fsencode(first)) == b"at the end"


@pytest.mark.skipif(not IS_ROOT, reason="only root may become another user")
def test_link_of_root_is_followed_by_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server runs as a user of its own; the links in /var/log are root's."""
    first = make_chain(tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: NOBODY)
    assert try_to_open(os.fsencode(first), only_own_links=True) == b"at the end"
    os.chown(first, NOBODY, NOBODY, follow_symlinks=False)
    assert try_to_open(os.fsencode(first), only_own_links=True) == b"at the end"


def test_link_that_is_exchanged_after_it_was_looked_at_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The owner of the link that is followed is the one that was looked at."""
    (tmp_path / "log").write_bytes(b"the log")
    (tmp_path / "shadow").write_bytes(b"secret")
    link = tmp_path / "link"
    link.symlink_to("log")
    user = os.geteuid()

    def exchange() -> int:  # this is asked between the look at the link and its following
        link.unlink()
        link.symlink_to("shadow")
        return user

    monkeypatch.setattr(os, "geteuid", exchange)
    assert try_to_open(os.fsencode(link), only_own_links=True) == b"the log"
    assert link.readlink() == Path("shadow")


# The table of mounts and the file system's number


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"22 28 0:5 / /dev rw,nosuid shared:2 - devtmpfs udev rw,mode=755", True),
        (b"22 28 0:5 / /dev rw,nosuid - devtmpfs udev rw", True),
        (b"22 28 0:5 / /dev rw shared:2 master:1 propagate_from:3 - devtmpfs - rw", True),
        (b"25 22 0:5 / /dev/shm rw - tmpfs tmpfs rw", False),
        (b"25 22 0:6 / /dev rw - devtmpfs udev rw", False),
    ],
)
def test_devices_are_told_by_the_number_and_name_of_their_mount(line: bytes, expected: bool) -> None:
    """The table has a varying number of fields before the name."""
    assert files._is_devtmpfs_line(line.split(), b"0:5") is expected


def test_without_a_table_of_mounts_memory_is_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a jail without /proc the files in memory can still be asked for."""

    def open_nothing(*args: object) -> None:
        raise FileNotFoundError(errno.ENOENT, "no /proc")

    monkeypatch.setattr(files, "open", open_nothing, raising=False)
    assert not files._is_devtmpfs(tmp_path.stat().st_dev)


def test_file_system_that_cannot_be_asked_is_an_error() -> None:
    """What is not known to be harmless is not read."""
    with pytest.raises(OSError, match="Bad file descriptor"):
        files._file_system_type(-1)


# Where there is no O_PATH


def test_elsewhere_the_same_files_are_opened(without_o_path: None, tmp_path: Path) -> None:
    """A developer on another system can run the server too."""
    first = make_chain(tmp_path)
    before = count_descriptors()
    assert try_to_open(os.fsencode(first)) == b"at the end"
    assert try_to_open(os.fsencode(tmp_path / "sub" / "file"), only_own_links=True) == b"at the end"
    wait_until(lambda: count_descriptors() <= before, "descriptors closed")


def test_elsewhere_the_same_files_are_refused(without_o_path: None, tmp_path: Path) -> None:
    """A FIFO hangs there as well."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "link").symlink_to("file")
    before = count_descriptors()
    refused: list[Callable[[], CommandFailed]] = [
        lambda: refusal(os.fsencode(tmp_path / "fifo")),
        lambda: refusal(os.fsencode(tmp_path / "fifo"), only_own_links=True),
        lambda: refusal(os.fsencode(tmp_path)),
        lambda: refusal(b"/dev/zero"),
        lambda: refusal(os.fsencode(tmp_path / "link"), only_own_links=True),
    ]
    assert [type(ask()) for ask in refused] == [NotARegularFile] * len(refused)
    assert isinstance(refusal(b"/nope"), NotFound)
    wait_until(lambda: count_descriptors() <= before, "descriptors closed")


def test_elsewhere_a_link_put_in_the_place_of_a_log_is_not_followed(
    without_o_path: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There the look and the opening are two steps: the opening refuses a link by itself."""
    log, secret = tmp_path / "log", tmp_path / "secret"
    log.write_bytes(b"log")
    secret.write_bytes(b"secret")
    look = os.stat

    def look_then_exchange(path: bytes, **options: bool) -> os.stat_result:
        status = look(path, **options)
        with contextlib.suppress(FileExistsError):
            os.rename(log, tmp_path / "old")
            os.symlink(secret, log)
        return status

    monkeypatch.setattr(os, "stat", look_then_exchange)
    fault: CommandFailed | None = None
    try:
        os.close(open_regular(os.fsencode(log), only_own_links=True))
    except CommandFailed as error:
        fault = error
    monkeypatch.undo()
    assert isinstance(fault, NotFound)
    assert "[Errno 40]" in fault.message
