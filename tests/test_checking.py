"""The report of a manifest: what is listed, what is counted, and the exit code."""

import pytest

from trio_cmd.client.answers import Reply
from trio_cmd.client.checking import CheckedGroups, CheckedLines
from trio_cmd.client.errors import AskError, CommandError, ConnectionLost, Unreachable
from trio_cmd.client.fleet import Outcome
from trio_cmd.client.hosts import Host

WEB = [Host(f"web{n}", f"127.0.1.{n}") for n in range(1, 5)]
MISSING = CommandError("not-found", "[Errno 2] No such file or directory: '/b c'")


def verified(host: Host, path: str, *, matches: object = True) -> Outcome:
    reply = Reply("verify", {"matches": matches}, 0.1)
    return Outcome(host, b"verify sha256:00 " + path.encode(), reply=reply)


def failed(host: Host, path: str, error: AskError) -> Outcome:
    return Outcome(host, b"verify sha256:00 " + path.encode(), error=error)


def tell(report: CheckedLines | CheckedGroups, host: Host, *outcomes: Outcome) -> None:
    """Ask a host, as the fleet does."""
    report.began(host)
    for outcome in outcomes:
        report.answered(outcome)
    report.ended(host)


def finish(report: CheckedLines | CheckedGroups, written: list[bytes]) -> list[str]:
    """Give all lines of a report."""
    report.finish()
    return b"".join(written).decode().splitlines()


def test_what_does_not_match_is_listed_in_the_words_of_sha256sum() -> None:
    """Scripts that look for FAILED find it, and people read why."""
    written: list[bytes] = []
    report = CheckedLines(written.append, WEB[:1], 3)
    outcomes = [
        verified(WEB[0], "/a"),
        failed(WEB[0], "/b c", MISSING),
        verified(WEB[0], "/d", matches=False),
    ]
    tell(report, WEB[0], *outcomes)
    assert finish(report, written) == [
        "web1: /b c: FAILED open or read: [Errno 2] No such file or directory: '/b c' (not-found)",
        "web1: /d: FAILED",
        "3 files checked on 1 host: 1 OK, 1 FAILED, 1 FAILED open or read",
    ]


def test_when_everything_matches_one_line_says_so() -> None:
    """No news is good news, but a silent report could also be one that checked nothing."""
    written: list[bytes] = []
    report = CheckedLines(written.append, WEB[:2], 1)
    for host in WEB[:2]:
        tell(report, host, verified(host, "/a"))
    assert finish(report, written) == ["2 files checked on 2 hosts: 2 OK"]


def test_a_host_that_cannot_be_asked_is_one_line() -> None:
    """What was not checked is not taken for what is well."""
    written: list[bytes] = []
    report = CheckedLines(written.append, WEB[:2], 2)
    tell(report, WEB[0], Outcome(WEB[0], b"", error=Unreachable("nobody listens there")))
    lost = Outcome(WEB[1], b"", error=ConnectionLost("the connection was lost"))
    tell(report, WEB[1], verified(WEB[1], "/a"), lost)
    assert finish(report, written) == [
        "web1: 2 of 2 files not checked: nobody listens there (unreachable)",
        "web2: 1 of 2 files not checked: the connection was lost (connection-lost)",
        "1 file checked on 2 hosts: 1 OK, 2 hosts not wholly checked",
    ]


@pytest.mark.parametrize("matches", [None, "true", 1, False])
def test_only_a_plain_yes_is_a_match(matches: object) -> None:
    """Whatever else a host answers, its file is not known to be good."""
    written: list[bytes] = []
    report = CheckedLines(written.append, WEB[:1], 1)
    outcome = verified(WEB[0], "/a", matches=matches)
    tell(report, WEB[0], outcome)
    assert not outcome.is_ok
    assert not Outcome(WEB[0], outcome.command, reply=Reply("verify", {}, 0.0)).is_ok
    assert finish(report, written)[0] == "web1: /a: FAILED"


def test_paths_are_shown_safely() -> None:
    """A name in a manifest moves no cursor."""
    written: list[bytes] = []
    report = CheckedLines(written.append, WEB[:1], 1)
    tell(report, WEB[0], Outcome(WEB[0], b"verify sha256:00 /\xff\xc2\x9b", reply=Reply("verify", {}, 0.0)))
    assert finish(report, written)[0] == r"web1: /\xff\x9b: FAILED"


def test_hosts_of_which_the_same_is_to_be_said_stand_together() -> None:
    """Of a thousand hosts the one that is different stands out."""
    written: list[bytes] = []
    report = CheckedGroups(written.append, WEB[:4], 2)
    tell(report, WEB[3], verified(WEB[3], "/a", matches=False), failed(WEB[3], "/b c", MISSING))
    for host in WEB[:3]:
        tell(report, host, verified(host, "/a"), verified(host, "/b c"))
    assert finish(report, written) == [
        "3 hosts: web[1-3]",
        "  2 files OK",
        "",
        "1 host: web4",
        "  /a: FAILED",
        "  /b c: FAILED open or read: [Errno 2] No such file or directory: '/b c' (not-found)",
        "",
        "8 files checked on 4 hosts: 6 OK, 1 FAILED, 1 FAILED open or read",
    ]


def test_what_an_interrupted_host_has_said_is_shown() -> None:
    """Ctrl-C takes nothing away that is known already, and makes nothing good that is not."""
    written: list[bytes] = []
    report = CheckedGroups(written.append, WEB[:2], 2)
    report.began(WEB[0])
    report.answered(verified(WEB[0], "/a"))
    report.began(WEB[1])
    report.answered(verified(WEB[1], "/a", matches=False))
    assert finish(report, written) == [
        "1 host: web2",
        "  /a: FAILED",
        "",
        "2 files checked on 2 hosts: 1 OK, 1 FAILED, 2 hosts not wholly checked",
    ]
