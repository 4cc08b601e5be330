"""Resolving below a folder: by the kernel, and by the walk that does the same."""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from program import count_descriptors, wait_until
from trio_cmd.work import beneath
from trio_cmd.work.beneath import look_beneath

Answer = tuple[int, int] | str
"""Device and inode of what was found, or the name of the error."""

NAMES = [
    *(b"dir", b"file", b"nope", b"..", b".", b"", b"up", b"loop", b"sub", b"fifo", b"dangling"),
    *(b"to_dir", b"to_file", b"to_sub_file", b"to_slash", b"out", b"out_missing", b"back", b"absolute"),
    *(b"deep_up", b"n" * 256),
]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with links of all kinds, and what lies beside it."""
    top = tmp_path_factory.mktemp("beneath")
    (top / "secret").write_text("outside")
    root = top / "root"
    (root / "dir" / "sub").mkdir(parents=True)
    for folder in (root, root / "dir", root / "dir" / "sub"):
        (folder / "file").write_text(str(folder))
    os.mkfifo(root / "fifo")
    links = {
        "loop": "loop",
        "to_dir": "dir",
        "to_file": "file",
        "to_sub_file": "to_dir/./sub//file",
        "to_slash": "file/",
        "dangling": "nope",
        "out": "../secret",
        "out_missing": "../nope",
        "back": "../root/file",
        "absolute": str(root / "file"),
        "dir/up": "../to_dir/../file",
        "dir/sub/deep_up": "../../to_dir/sub/../file",
        "dir/sub/up": "../../../secret",
    }
    for name, target in links.items():
        (root / name).symlink_to(target)
    return root


@pytest.fixture
def root(tree: Path) -> Iterator[int]:
    fd = os.open(tree, os.O_PATH)
    yield fd
    os.close(fd)


def without_openat2(monkeypatch: pytest.MonkeyPatch, number: int = errno.ENOSYS) -> None:
    """Let the kernel not know openat2, or a filter forbid it."""

    def answer(folder: int, path: bytes, resolve: int) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(beneath, "_openat2", answer)


@pytest.fixture(params=["openat2", "ENOSYS", "EPERM"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each way there is to resolve."""
    if request.param != "openat2":
        without_openat2(monkeypatch, getattr(errno, request.param))


def look(root: int, path: bytes, *, may_leave: bool = False) -> Answer:
    """Resolve a path; what is found must not have been opened."""
    try:
        fd = look_beneath(root, path, may_leave=may_leave)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    try:
        status = os.fstat(fd)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.read(fd, 1)
        assert not os.get_inheritable(fd)
        assert not stat.S_ISLNK(status.st_mode)
        return status.st_dev, status.st_ino
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (b".", "."),
        (b"file", "file"),
        (b"dir//sub/./file", "dir/sub/file"),
        (b"to_dir/sub/", "dir/sub"),
        (b"to_file", "file"),
        (b"to_sub_file", "dir/sub/file"),
        (b"dir/up", "file"),
        (b"dir/sub/deep_up", "dir/file"),
        (b"fifo", "fifo"),
    ],
)
def test_what_lies_below_is_found_also_through_relative_links(
    path: bytes, found: str, way: None, root: int, tree: Path
) -> None:
    """A site that arranges its files with links can use them."""
    status = (tree / found).stat()
    assert look(root, path) == (status.st_dev, status.st_ino)


@pytest.mark.parametrize(
    "path",
    [b"out", b"out_missing", b"back", b"absolute", b"..", b"../secret", b"dir/sub/up", b"dir/../../nope"],
)
def test_what_leads_out_is_one_error_whether_it_is_there_or_not(path: bytes, way: None, root: int) -> None:
    """Nobody outside of the settings' folders learns or gives anything, not even for a moment."""
    assert look(root, path) == "EXDEV"


@pytest.mark.parametrize("path", [b"/etc/passwd", b"//etc/passwd", b"/"])
def test_an_absolute_path_leads_out(path: bytes, root: int) -> None:
    """The kernel takes no other beginning than the folder."""
    assert look(root, path) == "EXDEV"


@pytest.mark.parametrize(
    ("path", "error"),
    [
        (b"nope", "ENOENT"),
        (b"dangling", "ENOENT"),
        (b"file\0x", "ENOENT"),
        (b"file/", "ENOTDIR"),
        (b"file/.", "ENOTDIR"),
        (b"file/..", "ENOTDIR"),
        (b"file/x", "ENOTDIR"),
        (b"to_slash", "ENOTDIR"),
        (b"loop", "ELOOP"),
        (b"n" * 256, "ENAMETOOLONG"),
        (b"./" * 2047 + b".", "ENAMETOOLONG"),
        (b"./" * 4096 + b"file", "ENAMETOOLONG"),
    ],
)
def test_errors_are_those_of_the_kernel(path: bytes, error: str, way: None, root: int) -> None:
    """What the operator reads does not depend on the age of the kernel."""
    if path == b"./" * 2047 + b".":  # the longest there is
        assert look(root, path) == look(root, b".")
    else:
        assert look(root, path) == error


def test_as_many_links_are_followed_as_the_kernel_follows(way: None, tmp_path: Path) -> None:
    """A chain that other programs can follow can be asked for, and no chain holds a thread for ever."""
    (tmp_path / "0").touch()
    for n in range(41):
        (tmp_path / str(n + 1)).symlink_to(str(n))
    fd = os.open(tmp_path, os.O_PATH)
    try:
        assert look(fd, b"40") == look(fd, b"0")
        assert look(fd, b"41") == "ELOOP"
    finally:
        os.close(fd)


@pytest.mark.parametrize("path", [b"/proc/self/root/etc/passwd", b"/proc/self/cwd", b"/proc/self/exe"])
def test_links_that_the_kernel_makes_up_are_refused(path: bytes, way: None) -> None:
    """They lead to other processes' files, to which no path leads."""
    fd = os.open("/", os.O_PATH)
    try:
        assert look(fd, path, may_leave=True) == "ELOOP"
    finally:
        os.close(fd)


@pytest.mark.parametrize("path", [b"%s/absolute", b"%s/back", b"%s/../root/file", b"/../%s/file"])
def test_below_the_top_of_all_nothing_leads_out(path: bytes, way: None, tree: Path) -> None:
    """With the root ``/`` absolute links and ``..`` are followed as everywhere else."""
    fd = os.open("/", os.O_PATH)
    try:
        status = (tree / "file").stat()
        asked = path % os.fsencode(tree)
        assert look(fd, asked, may_leave=True) == (status.st_dev, status.st_ino)
    finally:
        os.close(fd)


@hypothesis_settings(
    max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(names=st.lists(st.sampled_from(NAMES), min_size=1, max_size=7), may_leave=st.booleans())
def test_the_walk_gives_the_same_answers_as_the_kernel(
    names: list[bytes], may_leave: bool, tree: Path
) -> None:
    """Two ways to resolve are safe only if they never disagree; and neither leaves a descriptor open."""
    path = b"/".join(names)
    if may_leave:
        path = os.path.join(os.fsencode(tree), path)
    elif path.startswith(b"/") or not path:
        path = b"." + path
    before = count_descriptors()
    fd = os.open("/" if may_leave else tree, os.O_PATH)
    try:
        by_kernel = look(fd, path, may_leave=may_leave)
        with pytest.MonkeyPatch.context() as monkeypatch:
            without_openat2(monkeypatch)
            assert look(fd, path, may_leave=may_leave) == by_kernel
    finally:
        os.close(fd)
    wait_until(lambda: count_descriptors() <= before, "descriptors closed")


# While others exchange the parts of a path


def test_a_folder_moved_out_while_it_is_walked_through_is_not_a_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever may rename below a root must not choose what lies above the walk."""
    without_openat2(monkeypatch)
    root, trap = tmp_path / "root", tmp_path / "trap"
    (root / "dir").mkdir(parents=True)
    trap.mkdir()
    (root / "file").write_text("inside")
    (trap / "file").write_text("outside")
    (root / "dir" / "up").symlink_to("../file")
    read_link: Callable[..., bytes] = os.readlink

    def move_and_read(path: bytes, *, dir_fd: int) -> bytes:
        (root / "dir").rename(trap / "dir")
        return read_link(path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "readlink", move_and_read)
    before = count_descriptors()
    fd = os.open(root, os.O_PATH)
    assert look(fd, b"dir/up") == "ENOENT"  # it tried again, and dir has gone
    assert (trap / "dir").exists()
    os.close(fd)
    wait_until(lambda: count_descriptors() <= before, "descriptors closed")


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EINTR])
def test_a_rename_at_the_wrong_moment_is_tried_again_but_not_for_ever(
    number: int, root: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A busy host gives its answers, and an attacker who renames all the time gets an error."""
    openat2 = beneath._openat2
    failures = 0

    def fail(folder: int, path: bytes, resolve: int) -> int:
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise OSError(number, os.strerror(number))
        return openat2(folder, path, resolve)

    monkeypatch.setattr(beneath, "_openat2", fail)
    failures = 31
    assert isinstance(look(root, b"file"), tuple)
    failures = 32
    assert look(root, b"file") == "EAGAIN"
    assert failures == 0


def test_other_errors_of_the_kernel_are_final(root: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a missing system call is a reason for the slower way."""
    without_openat2(monkeypatch, errno.EIO)
    monkeypatch.setattr(beneath, "_walk", lambda *_, **__: pytest.fail("walked"))
    assert look(root, b"file") == "EIO"
