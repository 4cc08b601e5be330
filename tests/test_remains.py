"""Folders of old settings: their descriptors are given back also when only Python's collector finds them."""

import gc
import os
import signal
from collections.abc import Callable
from pathlib import Path

import trio

from conftest import StartProgram
from program import Program, wait_until
from trio_cmd.server.remains import FIRST_SECONDS, Remains
from trio_cmd.work.roots import Roots


class Gone:
    """A client that has left: it refers to itself, as sessions do."""

    def __init__(self, roots: Roots) -> None:
        self.roots = roots
        self.myself = self


def test_a_cycle_that_has_been_left_keeps_no_folder(autojump_clock: trio.testing.MockClock) -> None:
    """What nobody uses any more is closed, and what somebody uses stays, for as long as it takes."""

    async def main() -> None:
        remains = Remains()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(remains.run)
            gone = Gone(remains.add(Roots(["/usr"])))
            used = remains.add(Roots(["/usr"]))
            in_force = remains.add(Roots(["/usr"]))
            root = gone.roots._roots
            await trio.sleep(10 * FIRST_SECONDS)
            assert root
            del gone
            await trio.sleep(40)
            assert not root
            assert used._roots
            del used
            await trio.sleep(40)
            assert [*remains._roots] == [in_force]
            nursery.cancel_scope.cancel()

    gc.disable()
    try:
        trio.run(main, clock=autojump_clock)
    finally:
        gc.enable()


def count_open(program: Program, folder: Path) -> int:
    links = Path(f"/proc/{program.pid}/fd").glob("*")
    return sum(os.path.realpath(link) == str(folder) for link in links)


def test_each_reload_leaves_no_descriptor(
    start: StartProgram, write_settings: Callable[[str], str], tmp_path: Path
) -> None:
    """A host whose settings are deployed every minute does not run out of descriptors."""
    (tmp_path / "root").mkdir()
    path = write_settings(f'[comphash]\nroots = ["{tmp_path}/root"]\n')
    program = start("--config", path)
    for number in range(10):
        assert program.ask(b"comphash %s/root/nope\n" % os.fsencode(tmp_path)).startswith(b"An error occured")
        program.process.send_signal(signal.SIGHUP)
        wait_until(lambda: count(program, "reloaded") > number, "a reload")  # noqa: B023 - it is called here
    wait_until(lambda: count_open(program, tmp_path / "root") == 1, "the old ones are closed")


def count(program: Program, action: str) -> int:
    """How many records of an action came so far."""
    while not program._lines.empty():
        program._next_record(float("inf"), action)
    return len(program.actions(action))
