"""Reading the settings again: in a thread, one at a time, all or nothing."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from conversation import ListSink
from trio_cmd.errors import SettingsError
from trio_cmd.records import make_logger
from trio_cmd.records.render import render_json
from trio_cmd.server import reloading
from trio_cmd.server.epoch import Prepared
from trio_cmd.server.reloading import Reloading
from trio_cmd.settings import Limits, ServerSettings, Settings
from trio_cmd.work.roots import Roots

NEW = Settings(limits=Limits(waiting=7), server=ServerSettings(port=5))


class Reader:
    """What is read, and when it is done, is the test's to say."""

    def __init__(self) -> None:
        self.settings = Settings()
        self.renewed: list[Settings] = []
        self.reads = 0
        self.fault: Exception | None = None
        self.disk = threading.Event()
        self.disk.set()
        self.sink = ListSink()
        log = make_logger(self.sink, render_json)
        self.reloading = Reloading(self.read, lambda: self.settings, self.renew, log)

    def read(self, in_force: Settings) -> Prepared:
        assert in_force is self.settings
        self.reads += 1
        self.disk.wait(20)
        if self.fault is not None:
            raise self.fault
        return Prepared(NEW, Roots(()))

    def renew(self, prepared: Prepared) -> None:
        self.renewed.append(prepared.settings)

    async def wait_for(self, action: str, count: int = 1) -> dict[str, object]:
        with trio.fail_after(20):
            while len(self.sink.actions(action)) < count:
                await trio.sleep(0.002)
        return self.sink.actions(action)[-1]


@contextmanager
def released(reader: Reader) -> Iterator[None]:
    """Hold the disk, and give it back at the end, so that no thread stays."""
    reader.disk.clear()
    try:
        yield
    finally:
        reader.disk.set()


async def test_good_settings_are_put_in_force_and_told(nursery: trio.Nursery) -> None:
    """The record says what changed, and what did not because it needs a restart."""
    reader, calls = Reader(), []
    reader.reloading._began = lambda: calls.append("began")
    reader.reloading._ended = lambda: calls.append("ended")
    nursery.start_soon(reader.reloading.run)
    reader.reloading.want()
    record = await reader.wait_for("reloaded")
    assert (record["changed"], record["restart"]) == ("limits.waiting", "server.port")
    assert record["event"] == "Settings read again, changed: limits.waiting; after a restart: server.port"
    assert record["level"] == "info"
    await wait_all_tasks_blocked()
    assert reader.renewed == [NEW]
    assert calls == ["began", "ended"]
    assert reader.reloading.last.succeeded
    nursery.cancel_scope.cancel()


FAULTS: list[tuple[Exception, str]] = [
    (SettingsError(["x.toml: limits.waiting: expected int", "logs.\x1b: unknown"]), "x.toml: limits.waiting"),
    (ZeroDivisionError("ours"), "internal error"),
]


@pytest.mark.parametrize(("fault", "reason"), FAULTS)
async def test_bad_settings_keep_the_old_ones(nursery: trio.Nursery, fault: Exception, reason: str) -> None:
    """A slip of the pen in the file costs a line in the record; a fault of ours no more."""
    reader = Reader()
    reader.fault = fault
    nursery.start_soon(reader.reloading.run)
    reader.reloading.want()
    record = await reader.wait_for("reload-refused")
    assert str(record["reason"]).startswith(reason)
    assert record["level"] == "warning"
    assert "\x1b" not in str(record["event"])
    assert reader.renewed == []
    await wait_all_tasks_blocked()
    assert not reader.reloading.last.succeeded
    reader.fault = None
    reader.reloading.want()
    await reader.wait_for("reloaded")
    nursery.cancel_scope.cancel()


async def test_a_fault_in_putting_them_in_force_costs_no_server(nursery: trio.Nursery) -> None:
    """The traceback is recorded, and the next reload is tried as ever."""
    reader = Reader()
    nursery.start_soon(reader.reloading.run)
    reader.reloading._renew = lambda prepared: 1 / 0  # type: ignore[assignment]  # raises
    reader.reloading.want()
    await reader.wait_for("reload-refused")
    assert "ZeroDivisionError" in reader.sink.actions("handler-crashed")[0]["exception"]
    nursery.cancel_scope.cancel()


async def test_however_often_it_is_told_meanwhile_it_reads_once_more(nursery: trio.Nursery) -> None:
    """A hundred signals are two readings: the second sees what the last writer wrote."""
    reader = Reader()
    with released(reader):
        nursery.start_soon(reader.reloading.run)
        reader.reloading.want()
        with trio.fail_after(20):
            while not reader.reads:
                await trio.sleep(0.002)
        for _ in range(100):
            reader.reloading.want()
    await reader.wait_for("reloaded", 2)
    await wait_all_tasks_blocked()
    assert reader.reads == 2
    nursery.cancel_scope.cancel()


async def test_a_disk_that_does_not_answer_is_given_up(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop goes on, no second thread is lost to it, and when it answers all is well again."""
    monkeypatch.setattr(reloading, "READ_SECONDS", 0.05)
    reader = Reader()
    with released(reader):
        nursery.start_soon(reader.reloading.run)
        for count in (1, 2):
            reader.reloading.want()
            record = await reader.wait_for("reload-refused", count)
            assert record["reason"] == "the settings could not be read within 0.05 s; see to their disk"
        assert reader.reads == 1
    monkeypatch.setattr(reloading, "READ_SECONDS", 20)
    reader.reloading.want()
    await reader.wait_for("reloaded")
    assert reader.renewed == [NEW]
    nursery.cancel_scope.cancel()


async def test_a_server_that_ends_does_not_wait_for_the_reading(nursery: trio.Nursery) -> None:
    """Stopping is bounded, also with the settings on a dead disk."""
    reader = Reader()
    with released(reader):
        nursery.start_soon(reader.reloading.run)
        reader.reloading.want()
        with trio.fail_after(20):
            while not reader.reads:
                await trio.sleep(0.002)
            nursery.cancel_scope.cancel()
            await trio.lowlevel.checkpoint()
