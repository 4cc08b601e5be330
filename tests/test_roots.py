"""Which files may be named: decided on the bytes asked, below roots that are opened once."""

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from trio_cmd.errors import CommandFailed, NotARegularFile, NotFound, OutsideRoots, SettingsError, Unavailable
from trio_cmd.work import beneath, roots
from trio_cmd.work.roots import Roots


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """Two folders that may be roots, a file in each, and one beside them."""
    for name in ("srv", "srv/www", "srv-other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    (tmp_path / "secret").write_text("secret")
    return tmp_path


@pytest.fixture
def with_roots() -> Iterator[Callable[..., Roots]]:
    """Open roots; they are closed with the test, and nothing else is left open."""
    opened: list[Roots] = []
    before = len(os.listdir("/proc/self/fd"))

    def open_roots(*paths: object) -> Roots:
        opened.append(Roots([str(path) for path in paths]))
        return opened[-1]

    yield open_roots
    for each in opened:
        each.close()
    assert len(os.listdir("/proc/self/fd")) == before


WithRoots = Callable[..., Roots]


def read(of: Roots, path: object) -> str:
    with open(of.open_regular(os.fsencode(str(path))), encoding="utf-8") as file:
        return file.read()


def refusal(of: Roots, path: object) -> CommandFailed:
    with pytest.raises(CommandFailed) as caught:
        read(of, path)
    return caught.value


def test_a_file_below_a_root_is_opened_and_no_other(top: Path, with_roots: WithRoots) -> None:
    """The operator names a folder once, and nothing beside it can be asked for."""
    of = with_roots(top / "srv")
    assert read(of, top / "srv/file") == "srv"
    assert read(of, f"{top}/srv//www/./file") == "srv/www"
    for path in ("secret", "srv-other/file", "srv/../secret", "srv/../srv/file", "srv/www/../file", "srv/.."):
        error = refusal(of, f"{top}/{path}")
        assert isinstance(error, OutsideRoots)
        assert error.message == f"outside the roots: '{top}/{path}'; ask below '{top}/srv'"
    assert isinstance(refusal(of, f"/{top}/srv/file"), OutsideRoots)  # two slashes: other bytes
    assert isinstance(refusal(of, f"/./{top}/srv/file"), OutsideRoots)
    assert isinstance(refusal(of, "/"), OutsideRoots)


def test_outside_nothing_tells_whether_a_file_is_there(top: Path, with_roots: WithRoots) -> None:
    """A client must not map the host by its refusals, neither by paths nor by links."""
    of = with_roots(top / "srv")
    (top / "srv/there").symlink_to("../secret")
    (top / "srv/not-there").symlink_to("../nope")
    (top / "srv/absolute-there").symlink_to(top / "secret")
    (top / "srv/absolute-not-there").symlink_to(top / "nope")
    names = ("srv/there", "srv/not-there", "srv/absolute-there", "srv/absolute-not-there", "secret", "nope")
    answers = {refusal(of, top / name).message.replace(f"'{top / name}'", "PATH") for name in names}
    assert answers == {f"outside the roots: PATH; ask below '{top}/srv'"}


def test_the_longest_root_wins(top: Path, with_roots: WithRoots) -> None:
    """The narrower root is the narrower promise, in whatever order they are named."""
    (top / "srv/www/up").symlink_to("../file")
    for paths in (("srv", "srv/www"), ("srv/www", "srv")):
        of = with_roots(*(top / path for path in paths))
        assert read(of, top / "srv/file") == "srv"
        assert isinstance(refusal(of, top / "srv/www/up"), OutsideRoots)
    assert read(with_roots(top / "srv"), top / "srv/www/up") == "srv"


def test_a_root_is_opened_once(top: Path, with_roots: WithRoots) -> None:
    """Whoever may rename the root's folder must not choose another for us."""
    of = with_roots(top / "srv")
    (top / "srv").rename(top / "moved")
    (top / "srv").symlink_to("srv-other")
    assert read(of, top / "srv/file") == "srv"


def test_a_slash_at_the_end_of_a_root_means_nothing(top: Path, with_roots: WithRoots) -> None:
    """The shell puts one there when it completes a name."""
    of = with_roots(f"{top}/srv//")
    assert read(of, top / "srv/file") == "srv"
    assert isinstance(refusal(of, top / "srv-other/file"), OutsideRoots)


def test_everywhere_only_what_is_no_file_is_refused(top: Path, with_roots: WithRoots) -> None:
    """The default looks at the whole host: links lead where they lead, ``..`` goes up."""
    of = with_roots("/")
    (top / "srv/absolute").symlink_to(top / "secret")
    assert read(of, top / "srv/absolute") == "secret"
    assert read(of, f"{top}/srv/../secret") == "secret"
    assert isinstance(refusal(of, "/proc/version"), NotARegularFile)
    assert isinstance(refusal(of, "/proc/self/cwd/secret"), NotFound)
    assert isinstance(refusal(of, "/"), NotARegularFile)


def test_a_root_beside_everywhere_is_still_a_fence(top: Path, with_roots: WithRoots) -> None:
    """Files of others can be kept from leading out of their folder while all else can be asked for."""
    of = with_roots("/", top / "srv")
    (top / "srv/out").symlink_to(top / "secret")
    assert read(of, top / "secret") == "secret"
    assert isinstance(refusal(of, top / "srv/out"), OutsideRoots)


def test_what_is_no_regular_file_below_a_root_is_refused(top: Path, with_roots: WithRoots) -> None:
    """A root opens no FIFOs and no folders either."""
    of = with_roots(top / "srv")
    os.mkfifo(top / "srv/fifo")
    for path in ("srv/fifo", "srv/www", "srv", "srv/"):
        error = refusal(of, f"{top}/{path}")
        assert isinstance(error, NotARegularFile)
        assert error.message == f"not a regular file: '{top}/{path}'"
    missing = refusal(of, top / "srv/nope")
    assert missing.message == f"[Errno 2] No such file or directory: '{top}/srv/nope'"


def test_relative_paths_are_taken_from_the_folder_of_the_start(
    top: Path, with_roots: WithRoots, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They too must lie below a root."""
    of, everywhere = with_roots(top / "srv"), with_roots("/")
    monkeypatch.chdir(top / "srv/www")
    assert read(of, "file") == read(everywhere, "file") == "srv/www"
    assert isinstance(refusal(of, "../file"), OutsideRoots)
    assert read(everywhere, "../file") == "srv"
    monkeypatch.chdir(top)
    assert isinstance(refusal(of, "secret"), OutsideRoots)
    assert read(of, "srv/file") == "srv"


def test_in_a_folder_that_was_removed_nothing_is_found(
    top: Path, with_roots: WithRoots, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server started in a temporary folder still answers for absolute paths."""
    of = with_roots("/")
    (top / "gone").mkdir()
    monkeypatch.chdir(top / "gone")
    (top / "gone").rmdir()
    assert refusal(of, "file").message == "[Errno 2] No such file or directory: 'file'"
    assert read(of, top / "secret") == "secret"


def test_a_path_that_moves_all_the_time_is_unavailable(
    top: Path, with_roots: WithRoots, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the host's fault, and asking again may help."""

    def move(*_: object) -> int:
        raise BlockingIOError(errno.EAGAIN, "moved")

    monkeypatch.setattr(beneath, "_openat2", move)
    assert isinstance(refusal(with_roots(top / "srv"), top / "srv/file"), Unavailable)


def test_roots_that_cannot_be_opened_are_all_told(top: Path) -> None:
    """The operator repairs the settings in one go, and nothing stays open."""
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(SettingsError) as caught:
        Roots([str(top / "nope"), str(top / "srv"), str(top / "secret")])
    assert caught.value.faults == [
        f"comphash.roots: '{top}/nope': No such file or directory; name a folder that is there",
        f"comphash.roots: '{top}/secret': Not a directory; name a folder that is there",
    ]
    assert len(os.listdir("/proc/self/fd")) == before


def test_closed_roots_open_nothing(top: Path) -> None:
    """What comes after the end is refused, not opened somewhere else."""
    with Roots(["/"]) as of:
        assert read(of, top / "secret") == "secret"
    assert isinstance(refusal(of, top / "secret"), OutsideRoots)


def test_elsewhere_than_on_linux_there_is_only_everywhere(
    top: Path, with_roots: WithRoots, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A root that would not hold is refused at the start."""
    monkeypatch.setattr(roots, "HAS_O_PATH", False)
    of = with_roots("/")
    assert read(of, top / "secret") == "secret"
    with pytest.raises(SettingsError) as caught:
        Roots([str(top)])
    assert caught.value.faults[0].startswith(f"comphash.roots: '{top}': Function not implemented")


def test_the_folders_are_closed_with_the_last_who_can_ask_for_them(top: Path) -> None:
    """After a reload the old folders go when nobody works below them, so that a disk can be unmounted."""
    roots = Roots((str(top),))
    ours = roots.take()
    (fd,) = [root.fd for root in ours._roots]
    roots.close()  # has nothing left
    with pytest.raises(OutsideRoots):
        roots.open_regular(os.fsencode(top / "file"))
    work = ours.open_regular
    del ours
    os.fstat(fd)
    del work
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
