"""What one address does beyond ten times a second is counted, and summed up: exactly."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from trio_cmd.records import flood
from trio_cmd.records.events import CLIENT_REFUSED, COMMAND_RECEIVED, Event
from trio_cmd.records.flood import Floods, Sum

HERE, THERE = "192.0.2.1", "2001:db8::/64"


class Table:
    """The table, what was recorded, and what was summed up."""

    def __init__(self) -> None:
        self.recorded: list[tuple[Event, str]] = []
        self.sums: list[Sum] = []
        self.floods = Floods(self.sums.append)

    def happen(
        self, count: int = 1, client: str = HERE, now: float = 0, event: Event = CLIENT_REFUSED
    ) -> None:
        for _ in range(count):
            if self.floods.count(event, client, now):
                self.recorded.append((event, client))

    def told(self) -> int:
        """How many are known of in the end."""
        return len(self.recorded) + sum(each.more for each in self.sums)


def test_ten_a_second_are_recorded_and_the_rest_is_summed_up() -> None:
    """An operator sees who knocks, and how often, and not a thousand times."""
    table = Table()
    table.happen(10)
    table.floods.end(1.5)
    assert table.sums == []
    table.happen(1000, now=2)
    table.floods.end(3)
    assert len(table.recorded) == 20
    assert table.sums == [Sum(CLIENT_REFUSED, HERE, 990, 1)]


def test_a_second_begins_with_its_first_event() -> None:
    """A flood that lasts gives one record a second, and ten of its own in each."""
    table = Table()
    for tenth in range(50):
        table.happen(100, now=tenth / 10)
    table.floods.end(5)
    assert [each.more for each in table.sums] == [990] * 5
    assert len(table.recorded) == 50


def test_addresses_and_actions_are_counted_each_by_itself() -> None:
    """The flood of one hides nothing of another, and its knocking not its typing."""
    table = Table()
    for client in (HERE, THERE):
        for event in (CLIENT_REFUSED, COMMAND_RECEIVED):
            table.happen(11, client, event=event)
    table.floods.end(1)
    assert len(table.recorded) == 40
    assert {(each.of, each.client, each.more) for each in table.sums} == {
        (event, client, 1) for event in (CLIENT_REFUSED, COMMAND_RECEIVED) for client in (HERE, THERE)
    }


def test_a_row_stays_until_its_second_is_over() -> None:
    """Whoever began a moment ago is not recorded ten times more because of the clock of others."""
    table = Table()
    table.happen(10, HERE, now=0)
    table.happen(10, THERE, now=0.5)
    table.floods.end(1)
    assert len(table.floods) == 1
    table.happen(1, THERE, now=1.1)
    assert len(table.recorded) == 20
    table.floods.end(1.2, 0)
    assert len(table.floods) == 0
    assert table.told() == 21


def test_the_row_whose_second_ends_first_gives_way_and_its_sum_is_recorded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A million addresses take no memory, and hide nothing."""
    monkeypatch.setattr(flood, "MAX_ROWS", 2)
    table = Table()
    table.happen(15, "a", now=0)
    table.happen(16, "b", now=0.1)
    table.happen(17, "a", now=1.0)  # a's second begins anew: b's ends first now
    table.happen(1, "c", now=1.05)
    assert [(each.client, each.more) for each in table.sums] == [("a", 5), ("b", 6)]
    table.floods.end(2, 0)
    assert len(table.floods) == 0
    assert table.told() == 15 + 16 + 17 + 1


def test_the_table_holds_as_many_addresses_as_promised() -> None:
    """A flood from everywhere has its bound."""
    table = Table()
    for number in range(5000):
        table.happen(11, f"address {number}")
    assert len(table.floods) == 4096
    table.floods.end(0.5, 0)
    assert table.told() == 5000 * 11


@given(
    st.lists(
        st.tuples(
            st.sampled_from("abcd"), st.sampled_from([CLIENT_REFUSED, COMMAND_RECEIVED]), st.floats(0, 1)
        ),
        max_size=400,
    ),
    st.integers(1, 3),
)
def test_what_was_recorded_and_what_was_summed_up_are_all(
    happened: list[tuple[str, Event, float]], rows: int
) -> None:
    """Whoever counts the record counts what happened, whatever was pushed out and whenever."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flood, "MAX_ROWS", rows)
        patch.setattr(flood, "MAX_RECORDED", 2)
        table, now = Table(), 0.0
        for client, event, later in happened:
            now += later
            if later > 0.9:
                table.floods.end(now)
            table.happen(1, client, now, event)
            assert len(table.floods) <= rows
        table.floods.end(now, 0)
    for client in "abcd":
        for event in (CLIENT_REFUSED, COMMAND_RECEIVED):
            sums = sum(each.more for each in table.sums if (each.of, each.client) == (event, client))
            all_there_were = sum((c, e) == (client, event) for c, e, _ in happened)
            assert table.recorded.count((event, client)) + sums == all_there_were
