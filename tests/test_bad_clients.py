"""What a bad client can do: each row of the manual's list has its tests, and the worst are done here.

What the sizes of the issue take too long for in CI runs with ``TRIO_CMD_FULL=1``.
"""

import contextlib
import os
import re
import select
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest

from conftest import StartProgram
from program import PATIENCE_SECONDS, read_all, wait_until
from trio_cmd import errors
from trio_cmd.settings import Settings
from trio_cmd.wire.messages import NOTICES

WriteSettings = Callable[[str], str]

FULL = os.environ.get("TRIO_CMD_FULL") == "1"
ROOT = Path(__file__).parent.parent
MANUAL = ROOT / "docs" / "operations.md"
REFUSED = b"Too many connections. bye !\n"
ONE_MIB = 1 << 20

# The manual's list

TESTS = {
    "says nothing": ["test_an_idle_client_is_told_and_closed"],
    "sends a line byte by byte": [
        "test_an_unfinished_line_is_cut_whatever_trickles_in",
        "test_a_byte_now_and_then_is_cut_and_told",
        "test_a_thousand_half_lines_change_nothing_for_the_innocent",
    ],
    "sends a line without end": [
        "test_a_line_one_byte_too_long_is_said_to_be_so",
        "test_two_hundred_megabytes_without_a_newline_are_not_taken",
    ],
    "takes its answers slowly": ["test_a_slow_reader_that_makes_progress_is_left_alone"],
    "never reads its answers": [
        "test_a_slow_reader_is_closed_when_it_makes_no_progress",
        "test_whoever_shuts_its_side_and_never_reads_is_cut",
        "test_clients_that_never_read_cost_what_is_promised",
    ],
    "connects too often": [
        "test_a_client_over_the_limit_is_refused_aloud",
        "test_one_address_gets_only_its_places",
        "test_the_last_three_places_are_for_whoever_is_at_the_host",
    ],
    "connects again and again all the same": [
        "test_refusals_in_a_row_cost_neither_memory_nor_descriptors_and_are_all_counted"
    ],
    "comes from where nobody is named": ["test_whoever_was_not_named_gets_nothing_and_is_told"],
    "asks for what it may not have": ["test_whoever_was_not_named_gets_nothing_and_is_told"],
    "types what is no command": [
        "test_twenty_errors_end_the_conversation",
        "test_unknown_commands_of_one_address_are_summed_up",
    ],
    "guesses tokens": [
        "test_the_third_wrong_token_ends_the_connection",
        "test_after_ten_wrong_tokens_none_is_compared_for_a_minute",
    ],
    "puts a token into any other line": ["test_a_token_leaves_the_server_nowhere"],
    "asks too much at once": [
        "test_more_than_may_wait_is_refused_at_once",
        "test_hundreds_that_fail_at_once_take_turns",
    ],
    "asks while too many answers wait for their readers": [
        "test_slow_commands_are_busy_while_all_clients_owe_too_much",
        "test_a_run_that_waited_for_its_place_asks_the_budget_when_it_begins",
    ],
    "sends as fast as it can": ["test_a_flood_of_questions_loses_no_record_and_delays_nobody"],
    "follows a log it does not read": [
        "test_slow_reader_misses_the_older_lines_and_is_told_how_many",
        "test_reader_that_takes_nothing_is_a_slow_reader_and_its_child_ends",
    ],
    "follows too many logs": ["test_followers_are_limited_in_all_and_from_one_address"],
    "asks for a program that prints, or runs, without end": [
        "test_output_without_end_is_cut_and_the_connection_goes_on",
        "test_program_beyond_its_time_is_ended_with_what_it_printed",
    ],
    "types options, paths or shell into an argument": [
        "test_argument_is_one_element_and_no_shell_sees_it",
        "test_an_argument_cannot_become_an_option",
    ],
    "leaves in the middle": [
        "test_a_client_gone_before_its_answer_leaves_nothing_running",
        "test_thousands_of_resets_in_mid_answer_leave_nothing",
    ],
    "speaks HTTP, SSH or TLS": ["test_another_protocol_is_closed_and_nothing_of_it_run"],
    "speaks plain text, or bad TLS, where TLS is spoken": [
        "test_what_is_not_tls_is_closed_and_recorded",
        "test_a_bad_certificate_is_refused_and_both_sides_know_why",
    ],
    "never finishes its handshake": [
        "test_stalled_handshakes_keep_nobody_out",
        "test_a_stalled_handshake_ends_by_its_deadline",
        "test_the_fifth_of_an_address_ends_its_oldest",
        "test_above_the_limit_of_all_whoever_has_most_loses_its_oldest",
    ],
    "asks for a file outside the roots, or exchanges folders and links below them": [
        "test_a_file_below_a_root_is_opened_and_no_other",
        "test_no_file_outside_a_root_is_read_whatever_is_exchanged_below_it",
    ],
    "asks for files of a dead disk": ["test_a_dead_disk_costs_its_own_files_and_nothing_else"],
    "asks for a FIFO, a device, a file of the kernel": [
        "test_a_bad_line_gets_one_clear_line_and_the_next_its_answer"
    ],
}
"""What a bad client does, in the manual's words -> the tests of its row."""


def rows() -> Iterator[list[str]]:
    """The cells of each row of the manual's list."""
    section = MANUAL.read_text().partition("## What a bad client can do\n")[2].partition("\n## ")[0]
    for line in section.splitlines():
        if line.startswith("| ") and not line.startswith("| what it does"):
            yield [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


ROWS = {row[0]: row[1:] for row in rows()}


def quoted(cell: str) -> list[str]:
    """What is set in the type of code."""
    return re.findall(r"`([^`]+)`", cell)


def test_each_row_of_the_manual_has_tests_that_exist() -> None:
    """What the manual promises of bad clients is shown, row by row."""
    assert [*TESTS] == [*ROWS]
    sources = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    defined = set(re.findall(r"^(?:async )?def (test_\w+)\(", sources, re.MULTILINE))
    for row, tests in TESTS.items():
        assert tests, row
        assert not {*tests} - defined, row


def test_each_reason_and_each_limit_of_the_list_exists() -> None:
    """An operator can search the record and the settings for what the manual names."""
    silent = {"closed", "reset", "slow-reader", "wrong-protocol", "tls-failed"}
    codes = {getattr(kind, "code", "") for kind in vars(errors).values()}
    known = {*NOTICES, *silent, *codes, "gone", "line-too-long", "events-summed"}
    keys = {*msgspec.to_builtins(Settings())["limits"], *msgspec.to_builtins(Settings())["server"]}
    keys |= {"comphash.roots", "max_output_bytes", "seconds", "[[grants]]"}
    for row, (limits, _, reasons) in ROWS.items():
        assert not {*quoted(reasons)} - known, row
        assert not {*quoted(limits)} - keys, row


def test_each_notice_of_the_list_is_what_is_said() -> None:
    """The manual quotes the server, it does not paraphrase it."""
    limits = Settings().limits
    seconds = {"idle": limits.idle_seconds, "slow-line": limits.request_seconds}
    quotes = 0
    for row, (_, told, reasons) in ROWS.items():
        for reason in [] if told.startswith("`An error") else quoted(reasons):
            if text := NOTICES.get(reason):
                notice = text.format(seconds=seconds.get(reason), address="192.0.2.1")
                assert notice in quoted(told), row
                quotes += 1
    assert quotes >= 7


# One client, one promise


def configure(limits: str, more: str = "") -> str:
    return f"[limits]\n{limits}\n{more}"


def test_a_byte_now_and_then_is_cut_and_told(start: StartProgram, write_settings: WriteSettings) -> None:
    """The time for a line runs from its first byte, however alive its sender looks."""
    program = start("--config", write_settings(configure("request_seconds = 0.4")))
    with program.connect() as client:
        began = time.monotonic()
        client.settimeout(0.04)  # a byte each time nothing has come
        heard = b""
        while not heard:
            client.sendall(b"x")
            with contextlib.suppress(TimeoutError):
                heard = client.recv(100)
        assert heard == b"Line not finished in 0.4 s. bye !\n"
        assert 0.4 <= time.monotonic() - began < 4
    lost = program.wait_for("client-lost")
    assert (lost["reason"], lost["requests"]) == ("slow-line", 0)


def test_a_silent_client_is_told_and_closed(start: StartProgram, write_settings: WriteSettings) -> None:
    """A forgotten terminal gives its place back, whether it ever said something or not."""
    program = start("--config", write_settings(configure("idle_seconds = 0.2")))
    with program.connect() as silent, program.connect() as other:
        other.sendall(b"ping\n")
        assert read_all(silent) == b"Idle for 0.2 s. bye !\n"
        assert read_all(other) == b"pong\nIdle for 0.2 s. bye !\n"
    assert program.wait_for("client-lost")["reason"] == "idle"


def test_whoever_shuts_its_side_and_never_reads_is_cut(
    start: StartProgram, write_settings: WriteSettings, tmp_path: Path
) -> None:
    """A peer that is half open holds a place no longer than one that does not read."""
    log = tmp_path / "big"
    log.write_bytes(b"".join(b"%05d %s\n" % (n, b"=" * 90) for n in range(10_000)))
    more = f'[logs]\nbig = {{ file = "{log}" }}\n'
    program = start("--config", write_settings(configure("write_seconds = 0.5", more)))
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", program.port))
        client.sendall(b"lastlog 10000\n" * 20)
        client.shutdown(socket.SHUT_WR)
        lost = program.wait_for("client-lost")
    assert lost["reason"] == "slow-reader"
    assert lost["seconds"] < 10
    assert b"clients: 1\n" in program.ask(b"status\n")


def test_whoever_shuts_its_side_and_stays_is_closed(start: StartProgram) -> None:
    """A peer that forgets to close holds no place once it has its answers."""
    program = start()
    with program.connect() as client:
        client.sendall(b"ping\n")
        client.shutdown(socket.SHUT_WR)
        assert program.wait_for("client-lost")["reason"] == "closed"
        assert read_all(client) == b"pong\n"


def test_twenty_errors_end_the_conversation(start: StartProgram) -> None:
    """A program that does not know what it talks to is stopped, and a person is not."""
    program = start()
    errors_of_form = b"nope\nping\x01\nformat xml\nhelp nope\n" * 5
    missing = b"comphash /nope\n" * 30  # a file that is not there is no error of form
    answer = program.ask(missing + errors_of_form + b"ping\n").splitlines()
    assert len(answer) == 30 + 20 + 1
    assert answer[-1] == b"Too many errors. bye !"
    assert program.wait_for("client-lost")["reason"] == "too-many-errors"
    assert program.ask(b"nope\n" * 19 + b"ping\n").endswith(b"pong\n")


def test_whoever_was_not_named_gets_nothing_and_is_told(
    start: StartProgram, write_settings: WriteSettings
) -> None:
    """Nobody gets in who was not named, and nobody who is in gets what is not granted."""
    named = '[[grants]]\nname = "lab"\naddresses = ["127.0.0.2"]\ncommands = ["ping"]\n'
    program = start("--config", write_settings(named))
    assert program.ask(b"ping\n") == b"Not allowed from 127.0.0.1. bye !\n"
    assert program.wait_for("client-refused")["reason"] == "not-allowed"
    with socket.create_connection(("127.0.0.1", program.port), PATIENCE_SECONDS, ("127.0.0.2", 0)) as client:
        client.sendall(b"status\nping\nexit\n")
        assert read_all(client) == b"An error occured : status is not allowed here\npong\n"
    assert program.wait_for("command-completed", command="status")["outcome"] == "not-allowed"


# All at once


def connect_from(address: str, port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS, (address, 0))


@pytest.mark.proof
def test_refusals_in_a_row_cost_neither_memory_nor_descriptors_and_are_all_counted(
    start: StartProgram,
) -> None:
    """Whoever knocks all day costs nothing, and the record says how often it did."""
    count = 200_000 if FULL else 20_000
    hosts = [f"127.0.0.{n}" for n in range(1, 5)]
    program = start("--max-clients", "1")
    port, told = program.port, 0
    most = 0

    def knock() -> None:
        nonlocal told
        with connect_from(hosts[told % 4], port) as client:
            assert client.recv(100) == REFUSED
        told += 1

    with program.connect() as first, ExitStack() as stack:
        first.sendall(b"ping\n")
        assert first.recv(5) == b"pong\n"
        for _ in range(1000):
            knock()
        descriptors, before = program.descriptors(), program.resident_bytes()
        for number in range(count - 1000):
            if number % 100 == 0:
                if number < 20_000:  # some have sent something, and do not close
                    staying = stack.enter_context(connect_from(hosts[0], port))
                    staying.sendall(b"ping\n")
                    told += 1
                most = max(most, program.descriptors())
            knock()
        assert most <= descriptors + 64 + 8
        wait_until(lambda: program.descriptors() <= descriptors, "all refused clients closed")
        assert program.resident_bytes() - before < 4 * ONE_MIB
        first.sendall(b"status\n")
        counted = read_status(first)
        assert counted["refused"] == counted["refused_too-many-clients"] == str(told)
    assert program.stop() == 0
    program.rest()
    sums = program.actions("events-summed")
    assert {record["of"] for record in sums} == {"client-refused"}
    assert {record["client"] for record in sums} == {*hosts}
    recorded = len(program.actions("client-refused"))
    assert recorded + sum(record["count"] for record in sums) == told
    assert recorded < told / 4
    assert len(program.actions("client-connected")) == len(program.actions("client-lost")) == recorded + 1
    assert not program.actions("handler-crashed")


def read_status(client: socket.socket) -> dict[str, str]:
    """Read one answer of ``status``."""
    data = b""
    while not data.endswith(b"End status\n"):
        data += client.recv(1 << 16)
    return dict(line.split(": ", 1) for line in data.decode().splitlines()[1:-1])


@pytest.mark.proof
def test_a_thousand_half_lines_change_nothing_for_the_innocent(
    start: StartProgram, write_settings: WriteSettings, enough_descriptors: None
) -> None:
    """Clients that begin a thousand lines and finish none are told so, and nobody else feels them."""
    config = write_settings("[server]\nmax_clients = 1100\n[limits]\nrequest_seconds = 2\n")
    program = start("--config", config)
    with ExitStack() as stack:
        innocent = stack.enter_context(program.connect())
        alone = ping(innocent, 200)
        halves = [stack.enter_context(program.connect()) for _ in range(1000)]
        for half in halves:
            half.sendall(b"pin")
        meanwhile = ping(innocent, 200)
        while not has_heard(halves[-1]):
            meanwhile += ping(innocent, 10)
        meanwhile += ping(innocent, 100)
        assert {read_all(half) for half in halves} == {b"Line not finished in 2 s. bye !\n"}
        # Ten times what it should be: other programs run here as well.
        assert statistics.median(meanwhile) < 10 * statistics.median(alone) + 0.01
        assert max(meanwhile) < 2
    assert program.stop() == 0
    program.rest()
    reasons = [record["reason"] for record in program.actions("client-lost")]
    assert reasons.count("slow-line") == 1000


@pytest.mark.proof
def test_clients_that_never_read_cost_what_is_promised() -> None:
    """Whoever asks for gigabytes and reads nothing takes neither the memory nor the time of others."""
    options = [] if FULL else ["--clients", "10", "--megabytes", "100", "--ping-factor", "20"]
    command = [sys.executable, str(ROOT / "scripts" / "bench" / "never_read.py"), *options]
    env = {**os.environ, "PYTHONSAFEPATH": ""}  # the program imports its neighbour
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "BROKEN" not in done.stdout


def has_heard(client: socket.socket) -> bool:
    """Whether something waits to be read."""
    return bool(select.select([client], [], [], 0.01)[0])


def ping(client: socket.socket, count: int) -> list[float]:
    """Ask so many times; returns how long each answer took."""
    took = []
    for _ in range(count):
        began = time.monotonic()
        client.sendall(b"ping\n")
        assert client.recv(5) == b"pong\n"
        took.append(time.monotonic() - began)
    return took
