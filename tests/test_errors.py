"""What can go wrong, by whose fault."""

import errno
import inspect
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_cmd import errors
from trio_cmd.errors import (
    Busy,
    ChangedWhileRead,
    ClientFault,
    CommandFailed,
    DeadlinePassed,
    HostFault,
    Internal,
    LineTooLong,
    NotARegularFile,
    NotFound,
    NotPermitted,
    OurFault,
    PathMissing,
    ProgramFailed,
    SettingsError,
    Stopping,
    Unavailable,
    UnknownCommand,
    from_os_error,
)

# DESIGN.md's words; clients of the JSON form decide by them.
CODES = (
    "unknown-command bad-arguments bad-encoding line-too-long not-found not-permitted not-a-regular-file "
    "outside-roots too-large changed-while-read busy deadline output-too-long program-failed unavailable "
    "not-allowed bad-token stopping internal"
)
FAULTS = (ClientFault, HostFault, OurFault)
KINDS = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, CommandFailed) and kind not in (CommandFailed, *FAULTS)
]


@pytest.mark.parametrize("kind", KINDS)
def test_each_error_has_a_code_of_the_manual_and_somebody_whose_fault_it_is(
    kind: type[CommandFailed],
) -> None:
    """A script that reads `error.code` meets no word it was not told of."""
    assert kind.code in CODES.split()
    assert sum(issubclass(kind, fault) for fault in FAULTS) == 1
    assert kind.__name__ in errors.__all__


def test_no_two_errors_share_a_code() -> None:
    """A code says exactly what went wrong; some errors are special cases of others."""
    codes = [kind.code for kind in KINDS if "code" in vars(kind)]
    assert len(codes) == len(set(codes))


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOENT, NotFound),
        (errno.ENOTDIR, NotFound),
        (errno.ELOOP, NotFound),
        (errno.ENAMETOOLONG, NotFound),
        (errno.EACCES, NotPermitted),
        (errno.EPERM, NotPermitted),
        (errno.EIO, Unavailable),
        (errno.ESTALE, Unavailable),
    ],
)
def test_an_error_of_the_system_is_said_in_pythons_form(number: int, kind: type[HostFault]) -> None:
    """What the operator reads is what any other tool says for the same file."""
    told = from_os_error(OSError(number, "inner", "/proc/self/fd/7"), b"/x")
    assert type(told) is kind
    assert told.message == f"[Errno {number}] {os.strerror(number)}: '/x'"


def test_an_error_without_a_number_is_told_all_the_same() -> None:
    """A library that raises a bare OSError costs no answer."""
    told = from_os_error(OSError("odd"), b"/x")
    assert isinstance(told, Unavailable)
    assert told.message.startswith("[Errno 0] ")


@given(st.binary())
def test_no_path_can_break_out_of_its_message(path: bytes) -> None:
    """An error is one safe line, also for a path of control characters."""
    for failed in (
        from_os_error(FileNotFoundError(errno.ENOENT, "no"), path),
        NotARegularFile(path),
        ChangedWhileRead(path),
    ):
        assert len(failed.message.splitlines()) == 1
        assert (
            failed.message.replace("\t", "").encode().decode().isprintable() or not failed.message.isascii()
        )


def test_messages_say_what_happened_and_what_to_do() -> None:
    """The line alone is enough to go on."""
    assert str(UnknownCommand()) == "Command not found."
    assert str(PathMissing()) == "Please provide a path."
    assert (UnknownCommand.prefix, PathMissing.prefix) == ("", "")
    assert LineTooLong(8192).message == "line longer than 8192 bytes"
    assert ChangedWhileRead(b"/x").message == "changed while it was read: '/x'; ask again"
    assert ProgramFailed("tail", 1).message == "tail exited with status 1"
    assert ProgramFailed("tail", -9).message == "tail was ended by signal 9"
    assert DeadlinePassed("comphash", 600.0).message == "comphash not finished in 600 s"
    assert Stopping().message == "server is stopping; ask again when it is back"
    assert Internal().message == "internal error"
    assert Busy("no thread").message == "no thread; try again later"


def test_faults_of_the_settings_are_kept_one_by_one() -> None:
    """Each fault gets its own line on standard error."""
    error = SettingsError(["a", "b"])
    assert error.faults == ["a", "b"]
    assert str(error) == "a\nb"
