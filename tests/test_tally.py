"""Counting what commands came to: nothing a client sends makes a row."""

from hypothesis import given
from hypothesis import strategies as st

from trio_cmd.commands import COMMANDS
from trio_cmd.server.tally import SECONDS, Tally
from trio_cmd.settings import UNKNOWN


def test_each_command_is_counted_by_outcome_and_by_how_long_it_took() -> None:
    """An operator sees which command fails, and which one is slow."""
    tally = Tally([b"ping", b"comphash"])
    for outcome, seconds in (("ok", 0.0), ("ok", SECONDS[0]), ("busy", SECONDS[0] * 1.01), ("ok", 1e9)):
        tally.add(b"comphash", outcome, seconds)
    rows = dict(tally.rows())
    assert list(rows) == ["ping", "comphash", UNKNOWN]
    assert rows["comphash"].outcomes == {"ok": 3, "busy": 1}
    assert rows["comphash"].durations == [2, 1, *[0] * (len(SECONDS) - 2), 1]
    assert rows["comphash"].seconds == 1e9 + SECONDS[0] * 2.01
    assert not rows["ping"].outcomes
    assert tally.outcomes() == {"busy": 1, "ok": 3}


def test_what_could_not_be_read_is_no_command() -> None:
    """A line that is too long is counted as well."""
    tally = Tally([b"ping"])
    tally.add(None, "line-too-long", 0.0)
    assert dict(tally.rows())[UNKNOWN].outcomes == {"line-too-long": 1}


@given(st.lists(st.binary(max_size=70), max_size=50))
def test_no_word_of_a_client_makes_a_row(names: list[bytes]) -> None:
    """Who sends a million words does not fill the memory, nor the operator's Prometheus."""
    tally = Tally(COMMANDS)
    for name in names:
        tally.add(name, "unknown-command", 0.0)
    assert [name for name, _ in tally.rows()] == [*(name.decode() for name in COMMANDS), UNKNOWN]
    assert tally.outcomes().get("unknown-command", 0) == len(names)


def test_a_command_that_is_new_is_counted_by_its_name_and_no_count_is_lost() -> None:
    """After a reload the curves of the old commands go on, and those of the new ones begin."""
    tally = Tally([b"ping"])
    tally.add(b"ping", "ok", 0)
    tally.add(b"uptime", "unknown-command", 0)
    tally.know([b"ping", b"uptime"])
    tally.add(b"uptime", "ok", 0)
    assert {name: row.outcomes for name, row in tally.rows()} == {
        "ping": {"ok": 1},
        "uptime": {"ok": 1},
        "unknown": {"unknown-command": 1},
    }
