import os
from collections.abc import Callable
from pathlib import Path

import pytest

from test_lastlog import ask, fault, json_of, surroundings_of, text_of
from trio_cmd.commands import lastlog
from trio_cmd.errors import NotFound, NotPermitted
from trio_cmd.settings import Log
from trio_cmd.work import journal, logs
from trio_cmd.work.journal import check_journal, journal_arguments

Journalctl = Callable[[str], None]


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Where the journal is looked for; the first folder is missing, the second empty."""
    run, var = tmp_path / "run", tmp_path / "var"
    var.mkdir()
    monkeypatch.setattr(journal, "FOLDERS", (os.fsencode(run), os.fsencode(var)))
    return run, var


@pytest.fixture
def system_journal(folders: tuple[Path, Path]) -> Path:
    """A file of the journal, as far as its name goes."""
    machine = folders[1] / "0123456789abcdef0123456789abcdef"
    machine.mkdir()
    (machine / "system.journal").touch()
    return machine / "system.journal"


@pytest.fixture
def journalctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Journalctl:
    """Put a script of one's own in the place of ``journalctl``, and no ``tail`` beside it."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setattr(logs, "_DIRECTORIES", str(folder))

    def put(script: str) -> None:
        (folder / "journalctl").write_text(f"#!/bin/sh\n{script}\n")
        (folder / "journalctl").chmod(0o755)

    return put


@pytest.fixture
def journals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logs that are journals, in the place of the system's."""
    units = {"sshd": Log(journal="ssh.service"), "all": Log(journal="*")}
    monkeypatch.setattr(lastlog, "DEFAULT_LOGS", units)


@pytest.mark.usefixtures("journals", "system_journal")
async def test_unit_of_the_journal_is_read_by_its_name(journalctl: Journalctl) -> None:
    """The journal of one service, and nothing that would need a terminal."""
    journalctl('echo "$@"')
    reply = await ask(b"lastlog 50 sshd", {})
    assert reply.lines == ["-q --no-pager -o short-iso -n 50 -u ssh.service"]
    assert json_of(reply)["result"]["log"] == "sshd"
    assert (await ask(b"lastlog all", {})).lines == ["-q --no-pager -o short-iso -n 10"]


@pytest.mark.usefixtures("journals", "system_journal")
async def test_journal_without_entries_is_an_empty_answer(journalctl: Journalctl) -> None:
    """A service that has said nothing is no error."""
    journalctl("exit 0")
    assert text_of(await ask(b"lastlog sshd", {})) == "Begin lastlog\nEnd lastlog\n"


@pytest.mark.usefixtures("journals", "system_journal")
async def test_failure_of_journalctl_is_told_by_its_name(journalctl: Journalctl) -> None:
    """A broken journal is not taken for an empty one."""
    journalctl("exit 3")
    expected = "An error occured : journalctl exited with status 3\n"
    assert text_of(await ask(b"lastlog sshd", {})) == expected


@pytest.mark.usefixtures("journals")
async def test_host_without_a_journal_says_so(journalctl: Journalctl, folders: tuple[Path, Path]) -> None:
    """``journalctl -q`` would say nothing at all, and an empty answer would be believed."""
    journalctl("exit 0")
    error = await fault(b"lastlog sshd", {})
    assert isinstance(error, NotFound)
    where = f"{folders[0]} or {folders[1]}"
    assert error.message == f"no journal on this host: no files in {where}; name a log file instead"


@pytest.mark.usefixtures("journals", "system_journal")
async def test_host_without_journalctl_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A container can have a journal mounted and nothing to read it with."""
    monkeypatch.setattr(logs, "_DIRECTORIES", str(tmp_path))
    error = await fault(b"lastlog sshd", {})
    assert isinstance(error, NotFound)
    assert error.message == "there is no journalctl on this host; name a log file instead"


def deny(monkeypatch: pytest.MonkeyPatch, *paths: Path) -> None:
    closed = set(map(os.fsencode, paths))
    monkeypatch.setattr(os, "access", lambda path, mode, **_: path not in closed)
    monkeypatch.setattr(os, "supports_effective_ids", {os.access})


@pytest.mark.usefixtures("journals")
async def test_journal_that_may_not_be_read_is_an_error(
    system_journal: Path, journalctl: Journalctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``journalctl -q`` shows a user's own empty journal then, as if nothing had happened."""
    journalctl("exit 0")
    (system_journal.parent / "user-1000.journal").touch()
    deny(monkeypatch, system_journal)
    error = await fault(b"lastlog sshd", {})
    assert isinstance(error, NotPermitted)
    assert error.message.startswith(f"[Errno 13] Permission denied: '{system_journal}'")


def test_one_readable_file_of_the_journal_is_enough(
    system_journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An archived file of a former group must not close the journal."""
    deny(monkeypatch, system_journal)
    (system_journal.parent / "system@1.journal").touch()
    check_journal()


@pytest.mark.parametrize("depth", [0, 1])
def test_closed_folder_of_the_journal_is_an_error(
    depth: int, system_journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then nobody can say whether there is a journal, and it is not told as missing."""
    closed = system_journal.parent if depth else system_journal.parent.parent
    listdir = os.listdir

    def deny_listing(path: bytes) -> list[bytes]:
        if path == os.fsencode(closed):
            raise PermissionError(13, "")
        return listdir(path)

    monkeypatch.setattr(os, "listdir", deny_listing)
    deny(monkeypatch, closed)
    with pytest.raises(NotPermitted) as caught:
        check_journal()
    assert caught.value.message.startswith(f"[Errno 13] Permission denied: '{closed}'")


async def test_without_files_the_system_log_is_the_journal(
    journalctl: Journalctl, system_journal: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Debian 12 has no /var/log/syslog any more; ``lastlog`` works there out of the box."""
    journalctl("echo from the journal")
    defaults = {"syslog": Log(file=str(tmp_path / "nope")), "journal": Log(journal="*")}
    monkeypatch.setattr(lastlog, "DEFAULT_LOGS", defaults)
    assert (await ask(b"lastlog", {})).lines == ["from the journal"]
    system_journal.unlink()
    error = await fault(b"lastlog", {})
    assert error.message == (
        f"no system log: tried {tmp_path}/nope, journalctl; "
        "name one with --log NAME=PATH, or in the settings under [logs]"
    )


def test_newest_entry_count_and_unit_are_arguments_of_their_own() -> None:
    """A unit's name can begin with a dash."""
    assert journal_arguments("-.mount", 3)[-4:] == ["-n", "3", "-u", "-.mount"]


def test_logs_are_listed_by_help() -> None:
    """Nobody has to guess a name to read the error that lists them."""
    rows = lastlog.list_logs(surroundings_of({"a": Path("/a"), "b": Path("/b")}))
    assert rows == ("the logs are: a, b; the first is the default",)
