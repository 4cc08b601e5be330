"""What can be asked, and what is said to do instead."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_cmd.client.questions import check_question, followed_log, read_questions
from trio_cmd.client.sources import Source
from trio_cmd.escape import escape
from trio_cmd.wire.messages import parse_request

TOKEN = "tcmd_" + "S3cret_-" * 5 + "abc"


def complaint_of(line: bytes) -> str:
    with pytest.raises(ValueError, match=r"\A.+\Z") as caught:
        check_question(line)
    return str(caught.value)


@pytest.mark.parametrize(
    "line", [b"ping", b"comphash sha256 /tmp/a  b", b"comphash /tmp/\xff\xfe", b"comphash /a\tb", b"x" * 9000]
)
def test_a_command_is_asked_as_it_is(line: bytes) -> None:
    """A path is bytes; which commands there are, each server knows itself."""
    assert check_question(line) == line
    assert check_question(b" \t" + line + b"  ") == line


CLOSES = "is not asked: the connection is closed when all is answered; leave it out"


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (b"", "the command is empty; ping asks whether a server is there"),
        (b" \t ", "the command is empty; ping asks whether a server is there"),
        (b"ping\nping", "a command is one line; put several into a file: --commands FILE"),
        (b"ping\n", "a command is one line; put several into a file: --commands FILE"),
        (b"ping\r", "a command has no control characters; such a file cannot be asked for"),
        (b"comphash /\0", "a command has no control characters; such a file cannot be asked for"),
        (b"format text", "format is not asked: the form is chosen here, by --output FORMAT"),
        (b"exit", f"exit {CLOSES}"),
        (b"quit now", f"quit {CLOSES}"),
    ],
)
def test_what_is_no_question_is_told_with_what_to_do_instead(line: bytes, complaint: str) -> None:
    """A question that ends or confuses the conversation is not sent to a thousand hosts."""
    assert complaint_of(line) == complaint


@pytest.mark.parametrize("line", [f"auth {TOKEN}", "auth", f"\x01Auth: {TOKEN}", f"AUTH\n{TOKEN}"])
def test_a_token_is_not_given_as_a_command(line: str) -> None:
    """Everybody on the host can read a command line; and the complaint shows no token."""
    expected = "auth is said by itself: give the token in a file, --token-file FILE"
    assert complaint_of(line.encode()) == expected


@given(st.binary() | st.text().map(str.encode))
def test_any_line_is_asked_or_refused_in_one_line(line: bytes) -> None:
    """What is asked is a line of the wire, whatever was typed."""
    try:
        question = check_question(line)
        log = followed_log(question)
    except ValueError as error:
        complaint = str(error)
        assert complaint == escape(complaint)
        return
    request = parse_request(question)
    assert request is not None
    assert (log is None) == (request.name != b"follow")
    assert b"\n" not in question


@pytest.mark.parametrize(
    ("question", "log"),
    [(b"follow", ""), (b"follow syslog", "syslog"), (b"followed", None), (b"lastlog syslog", None)],
)
def test_following_is_told_from_asking(question: bytes, log: str | None) -> None:
    """It has no end, so it goes another way."""
    assert followed_log(question) == log


@pytest.mark.parametrize("name", [b"/var/log/syslog", b"10 syslog", b"\xff", b"Syslog"])
def test_what_is_followed_is_the_name_of_a_log(name: bytes) -> None:
    """A path is refused here, once, and not by each host."""
    with pytest.raises(ValueError, match=r"\Afollow takes the name of a log, of a-z, 0-9 and -: "):
        followed_log(b"follow " + name)


# Files of commands


def test_a_file_has_a_command_in_each_line() -> None:
    """Comments and empty lines are for people; a ``#`` further on is part of a path."""
    data = b"# front\n\nping\r\n  comphash /tmp/#1 #2 \n \t# back\nlastlog"
    assert read_questions(Source("file", data)) == [b"ping", b"comphash /tmp/#1 #2", b"lastlog"]


def test_a_fault_in_a_file_is_told_with_its_line() -> None:
    """Of a hundred commands the one to mend is named."""
    with pytest.raises(ValueError, match=rf"\Afile:2: exit {CLOSES}\Z"):
        read_questions(Source("file", b"ping\nexit\n"))


@pytest.mark.parametrize("data", [b"", b"\n#\n"])
def test_a_file_without_a_command_is_refused(data: bytes) -> None:
    """Nothing asked would be all answered."""
    with pytest.raises(ValueError, match=r"\Afile: no command in it; write one in each line\Z"):
        read_questions(Source("file", data))
