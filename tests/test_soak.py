"""The soak, and that it finds what is wrong: doctored records, sums, answers and samples."""

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from soaking.accounts import compare_marks, compare_refusals, compare_sums
from soaking.growth import Sample, find_growth, find_memory_growth
from soaking.questions import Answer, Question, failure, find_answer
from soaking.records import RecordChecker

ROOT = Path(__file__).parent.parent
FULL = os.environ.get("TRIO_CMD_FULL") == "1"
Record = dict[str, Any]
QUIET = Sample(10.0, descriptors=20, threads=2, children=0, tasks=15, pss_bytes=30_000_000)


def record(action: str, connection: int = 0, **fields: Any) -> Record:
    return {"action": action, "connection": connection, "client": "127.0.0.1", **fields}


def visit(connection: int = 0, requests: int = 2, **lost: Any) -> list[Record]:
    """The records of a client that has asked for ``ping``."""
    records = [record("client-connected", connection)]
    for request in range(1, requests + 1):
        asked = {"request": request, "command": "ping", "arguments": f"{connection}-{request}"}
        records += [record("command-received", connection, **asked)]
        records += [record("command-completed", connection, **asked, outcome="ok")]
    return [*records, record("client-lost", connection, reason="exit", requests=requests, **lost)]


def check(records: list[Record]) -> RecordChecker:
    checker = RecordChecker()
    for one in records:
        checker.feed(json.dumps(one).encode())
    checker.settle()
    return checker


def test_a_record_where_all_is_well_has_no_faults() -> None:
    """What is found is wrong, not the finder."""
    checker = check([*visit(0), *visit(1, 3)])
    assert checker.faults == []
    assert (checker.connections, checker.admitted, checker.outcomes["ok"]) == (2, 2, 5)
    assert checker.is_settled(2)
    assert not checker.is_settled(3)


@pytest.mark.parametrize("missing", range(len(visit())))
def test_each_lost_record_is_found(missing: int) -> None:
    """A record that a rotation swallows is what nobody would notice for years."""
    records = [*visit(0), *visit(1)]
    del records[missing]
    assert check(records).faults


@pytest.mark.parametrize("doubled", range(len(visit())))
def test_each_doubled_record_is_found(doubled: int) -> None:
    """A record that comes twice makes every count of a shipper wrong."""
    records = [*visit(0), *visit(1)]
    records.insert(doubled, records[doubled])
    assert check(records).faults


def test_a_connection_of_which_every_record_is_missing_is_found() -> None:
    """A file that is lost whole between two rotations leaves a gap in the numbers."""
    assert check([*visit(0), *visit(2)]).faults == [
        "record 12: 3 connections, but 2 recorded and 0 summed up"
    ]


def test_what_is_summed_up_is_not_missing() -> None:
    """Floods are counted, and the count must be right."""
    refused = record("events-summed", of="client-refused", count=3)
    unknown = record("events-summed", of="command-received", count=2)
    few = visit(4, 2)
    few[-1]["requests"] = 4  # two more than were recorded
    checker = check([*visit(0), refused, *few, unknown])
    assert checker.faults == []
    assert checker.connections == 5
    assert len(check([*visit(0), *few]).faults) == 2


@pytest.mark.parametrize(
    "bad",
    [
        record("handler-crashed", exception="ZeroDivisionError"),
        record("events-lost", lost=3),
        record("message", level="error", event="what"),
        record("message", level="warning", exception="Traceback"),
        {"event": "no action"},
        record("message", level="info", event="x" * 4096),
    ],
)
def test_each_bad_record_is_found(bad: Record) -> None:
    """Tracebacks, losses and lines that no shipper takes fail the soak."""
    assert len(check([*visit(), bad]).faults) == 1


def test_what_is_no_record_is_found() -> None:
    """A line that was torn by a rotation is no JSON."""
    checker = RecordChecker()
    for line in (b'{"action":"mess', b"", b"[]", '{"action":"ü"}'.encode()):
        checker.feed(line)
    assert len(checker.faults) == 4


@pytest.mark.parametrize(
    ("client", "lost", "admitted"),
    [
        ("127.0.0.1", {"tls": "TLSv1.3"}, 1),
        ("127.0.0.1", {"tls_error": "the client has left"}, 0),
        ("127.0.0.1", {}, 0),
        ("unix", {}, 1),
        ("unknown", {}, 0),
    ],
)
def test_with_tls_nobody_is_admitted_without_a_handshake(
    client: str, lost: dict[str, Any], admitted: int
) -> None:
    """Who dies in the handshake has met nobody."""
    checker = RecordChecker(is_secured=True)
    records = [record("client-connected"), record("client-lost", requests=0, reason="reset", **lost)]
    for one in records:
        checker.feed(json.dumps({**one, "client": client}).encode())
    assert checker.admitted == admitted


def test_an_internal_error_is_found() -> None:
    """Our own faults are no outcome to be content with."""
    records = visit()
    records[2]["outcome"] = "internal"
    assert check(records).faults == ["record 3: request 1 of connection 0 met an internal error"]


STATUS = {
    "admitted": 2,
    "refused": 0,
    "refused_too-many-clients": 0,
    "commands_ok": 2,
    "commands_shared": 5,
    "records_written": 8,
    "records_queued": 0,
    "records_lost": 0,
}
"""As the second client is told that asks ``status quiet``, after another has asked twice."""


def settled() -> RecordChecker:
    asking = visit(1, 1)
    for row in asking[1:3]:
        row.update(command="status", arguments="quiet")
    return check([*visit(0), *asking])


def test_sums_that_agree_have_no_faults() -> None:
    """The counts are compared as they are at one moment."""
    assert compare_sums(2, settled(), STATUS, "quiet") == []


@pytest.mark.parametrize(
    "key", ["admitted", "refused", "commands_ok", "commands_busy", "records_written", "records_lost"]
)
def test_each_sum_that_differs_is_found(key: str) -> None:
    """What status says is what happened."""
    wrong = {**STATUS, key: STATUS.get(key, 0) + 1}
    assert len(compare_sums(2, settled(), wrong, "quiet")) == 1


def test_a_connection_that_only_a_client_knows_of_is_found() -> None:
    """No client is served unrecorded."""
    assert compare_sums(3, settled(), STATUS, "quiet") == ["connections: 3 by the clients, 2 in the record"]


def test_an_answer_without_its_record_is_found() -> None:
    """What a client was told is in the record, once."""
    assert compare_marks(Counter(a=1, b=1), Counter(a=1, b=1, c=1)) == []
    assert len(compare_marks(Counter(a=1, b=1), Counter(a=2))) == 2


def test_a_client_that_was_cut_without_a_refusal_is_found() -> None:
    """Being closed without a word is only for one refusal too many."""
    refused = {**STATUS, "refused_too-many-clients": 2}
    met = {"too-many-clients": 1, "closed without a word": 1}
    assert compare_refusals(met, refused) == compare_refusals(met, STATUS, unshaken=2) == []
    assert compare_refusals(met, STATUS) == ["2 clients were sent away, but 0 refused"]


@pytest.mark.parametrize(
    ("got", "is_right"),
    [
        (["pong"], True),
        (["pong", "pong"], False),
        (["Command not found."], False),
        ({"id": 1, "ok": True, "result": {"pong": True}}, True),
        ({"id": 1, "ok": True, "result": {"pong": False}}, False),
        ({"id": 1, "ok": False, "result": {"pong": True}}, False),
        ({"id": 1, "ok": False, "error": {"code": "busy", "message": "wait"}}, True),
        ({"id": 1, "ok": False, "error": {"code": "busy", "message": "other"}}, False),
    ],
)
def test_a_wrong_answer_is_none_of_the_right_ones(got: Any, is_right: bool) -> None:
    """An answer is compared whole, in either form."""
    question = Question(b"ping", (Answer(("pong",), {"pong": True}), failure("busy", "wait")))
    assert (find_answer(question, got) is not None) == is_right


@pytest.mark.parametrize("name", ["descriptors", "threads", "children", "tasks"])
def test_one_more_at_a_quiet_point_is_found(name: str) -> None:
    """One descriptor a minute ends a server within a day."""
    later = replace(QUIET, seconds=70.0, **{name: getattr(QUIET, name) + 1})
    assert len(find_growth(QUIET, later)) == 1
    assert find_growth(QUIET, replace(later, **{name: getattr(QUIET, name)})) == []


def test_what_has_leaked_is_named() -> None:
    """Whoever reads the report knows where to look."""
    before = replace(QUIET, open_files=("/srv", "socket:"))
    later = replace(before, descriptors=21, open_files=("/srv", "/srv", "socket:"))
    assert find_growth(before, later)[1] == "more are open: {'/srv': 1}"


def hours(*megabytes: float) -> list[Sample]:
    """Samples each minute, with a peak in each hour, of memory that has these minima."""
    return [
        replace(QUIET, seconds=hour * 3600.0 + minute * 60, pss_bytes=int(size * 1e6) + (minute % 7) * 10**6)
        for hour, size in enumerate(megabytes)
        for minute in range(60)
    ] + [replace(QUIET, seconds=len(megabytes) * 3600.0)]


@pytest.mark.parametrize(
    ("minima", "is_found"),
    [((30, 35), False), ((30, 31.9, 33.9), False), ((30, 33, 34.5), True), ((30, 34, 30, 31), False)],
)
def test_memory_is_judged_by_its_hourly_minimum(minima: tuple[float, ...], is_found: bool) -> None:
    """A slow leak is found, warming up is not taken for one."""
    assert bool(find_memory_growth(hours(*minima))) == is_found


def test_memory_of_no_samples_is_not_judged() -> None:
    """A soak of a minute has nothing to say about an hour."""
    assert find_memory_growth([]) == find_memory_growth(hours(1, 900)) == []


@pytest.mark.proof
@pytest.mark.waits
def test_a_short_soak_finds_nothing_wrong() -> None:
    """Clients of all kinds, reloads and rotations: a minute of them before anything lands."""
    options = ["--minutes", "10"] if FULL else ["--minutes", "0.75", "--quiet-minutes", "1", "--rate", "8"]
    command = [sys.executable, str(ROOT / "scripts" / "soak.py"), *options]
    env = {**os.environ, "PYTHONSAFEPATH": ""}  # the program imports its neighbours
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("nothing was wrong") == 2
