import errno
import grp
import os
from pathlib import Path

import pytest

from conftest import StartProgram
from trio_cmd.errors import NotPermitted, from_os_error
from trio_cmd.work.permission import name_group

# uid 0 without these gets EACCES as everybody else does.
WITHOUT_POWERS = (
    "setpriv",
    "--bounding-set=-dac_override,-dac_read_search",
    "--inh-caps=-dac_override,-dac_read_search",
)
ADM = 4


@pytest.fixture
def closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A log that looks closed to us, and open to a group that we are not in."""
    path = tmp_path / "log"
    path.touch()
    path.chmod(0o640)
    monkeypatch.setattr(os, "access", lambda name, mode, **_: os.fsencode(name) != os.fsencode(path))
    monkeypatch.setattr(os, "supports_effective_ids", {os.access})
    monkeypatch.setattr(os, "getgroups", list)
    monkeypatch.setattr(os, "getegid", lambda: 12345)
    give_group(monkeypatch, path, ADM)
    return path


def give_group(monkeypatch: pytest.MonkeyPatch, path: Path, gid: int) -> None:
    """Let it look as if a path had a group."""
    look = os.stat

    def stat(name: bytes) -> os.stat_result:
        values = list(look(name))
        values[5] = gid
        return os.stat_result(values)

    monkeypatch.setattr(os, "stat", stat)


def told(path: Path) -> str:
    denied = from_os_error(PermissionError(errno.EACCES, ""), os.fsencode(path))
    assert isinstance(denied, NotPermitted)
    message = name_group(denied, os.fsencode(path)).message
    assert message.startswith(denied.message)
    return message.removeprefix(denied.message)


def test_group_that_may_read_a_log_is_named(closed: Path) -> None:
    """The operator reads the remedy where he reads the error."""
    assert told(closed) == f"; add the server's user to the group '{grp.getgrgid(ADM).gr_name}'"


def test_group_without_a_name_is_told_by_its_number(closed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container the host's groups have no names."""
    give_group(monkeypatch, closed, 54321)
    assert told(closed) == "; add the server's user to the group '54321'"


@pytest.mark.parametrize("gid", [0, 12345])
def test_group_that_does_not_help_is_not_named(
    gid: int, closed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is told to join the group of root, or one he is in."""
    give_group(monkeypatch, closed, gid)
    assert told(closed) == ""


def test_group_that_may_not_read_either_is_not_named(closed: Path) -> None:
    """A remedy that does not help is worse than none."""
    closed.chmod(0o600)
    assert told(closed) == ""


def test_group_of_a_closed_folder_is_named(closed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Often it is the folder that is closed, as Debian's /var/log/mysql."""
    folder = closed.parent
    monkeypatch.setattr(os, "access", lambda name, mode, **_: name != os.fsencode(folder) + b"/")
    folder.chmod(0o750)
    assert told(closed) == f"; add the server's user to the group '{grp.getgrgid(ADM).gr_name}'"
    folder.chmod(0o700)
    assert told(closed) == ""


def test_nothing_is_told_of_what_cannot_be_looked_at(closed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that is gone meanwhile, or behind a link into a closed folder, keeps its plain error."""
    monkeypatch.setattr(os, "access", lambda name, mode, **_: False)
    monkeypatch.setattr(os, "stat", lambda name: os.lstat("/nope"))
    assert told(closed) == ""


def test_nothing_is_added_where_nothing_is_closed(closed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link of somebody else is refused by us, not by the system: no group helps."""
    monkeypatch.setattr(os, "access", lambda name, mode, **_: True)
    assert told(closed) == ""


@pytest.mark.needs("setpriv")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file to a group it is not in")
@pytest.mark.parametrize("command", ["lastlog", "follow"])
def test_program_says_which_group_to_join(
    command: str, start: StartProgram, log_file: Path, tmp_path: Path
) -> None:
    """The first thing that goes wrong on a new host is told with its remedy."""
    os.chown(log_file, 65534, 65533)
    log_file.chmod(0o640)
    program = start("--log", f"app={log_file}", prefix=WITHOUT_POWERS)
    expected = f"An error occured : [Errno 13] Permission denied: '{log_file}'"
    group = "; add the server's user to the group '65533'\n"
    assert program.ask(command.encode() + b"\n").decode() == expected + group
    log_file.chmod(0o600)
    assert program.ask(command.encode() + b"\n").decode() == expected + "\n"
