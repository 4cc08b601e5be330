"""A signal enters, other settings are in force, or the old ones stay and the record says why.

The reading is done in a thread that is given up after a time: a dead disk below the settings file
must hold neither the event loop nor the next try for ever.
"""

import time
from collections.abc import Callable

import trio

from trio_cmd.errors import SettingsError
from trio_cmd.escape import escape
from trio_cmd.records import EventLogger, events
from trio_cmd.records.events import record_fault
from trio_cmd.server.epoch import Prepared
from trio_cmd.server.statistics import LastReload
from trio_cmd.settings import Settings, changed_keys, keep_listeners

__all__ = ["Read", "Reloading", "read_nothing"]

# To read a file, the certificates and to look at some programs takes milliseconds.
READ_SECONDS = 10.0

Read = Callable[[Settings], Prepared]
"""Reads the settings again, given those in force; it may wait for a disk.  Raises ``SettingsError``."""


def read_nothing(in_force: Settings) -> Prepared:
    """Refuse to read the settings again.

    Raises:
        SettingsError: always.
    """
    raise SettingsError(["there is nothing to read them from"])


class Reloading:
    """Reads the settings again whenever it is told to, one at a time.

    Args:
        read: reads them, in a thread.
        in_force: gives the settings in force.
        renew: puts others in force.
        log: records what came of it.
        began: called before the settings are read.
        ended: called when it is known what came of it.

    Attributes:
        last: what came of the last time.
    """

    def __init__(
        self,
        read: Read,
        in_force: Callable[[], Settings],
        renew: Callable[[Prepared], None],
        log: EventLogger,
        began: Callable[[], object] = lambda: None,
        ended: Callable[[], object] = lambda: None,
    ) -> None:
        self._read = read
        self._in_force = in_force
        self._renew = renew
        self._log = log
        self._wanted = trio.Event()
        self._thread = trio.CapacityLimiter(1)  # one that hangs is not joined by others
        self.last = LastReload()
        self._began = began
        self._ended = ended

    def want(self) -> None:
        """Have the settings read: now, or once more after the reading that is under way."""
        self._wanted.set()

    async def run(self) -> None:
        """Read whenever it is wanted, until cancelled.

        Cancel: the settings in force stay; a thread that still reads is left behind.
        """
        while True:
            await self._wanted.wait()
            self._wanted = trio.Event()
            self._began()
            try:
                self.last = LastReload(time.time(), await self._reload())
            finally:
                self._ended()

    async def _reload(self) -> bool:
        """Read, and record what came of it; returns whether the new settings are in force."""
        old = self._in_force()
        try:
            prepared = await self._prepare(old)
            self._renew(prepared)
        except SettingsError as error:
            faults = "; ".join(map(escape, error.faults))
            self._log.record(events.RELOAD_REFUSED, reason=faults)
            return False
        except Exception as error:  # a fault of ours costs a reload, not the server
            record_fault(self._log, error)
            self._log.record(events.RELOAD_REFUSED, reason="internal error")
            return False
        self._record(old, prepared.settings)
        return True

    async def _prepare(self, old: Settings) -> Prepared:
        """Read in a thread.

        Raises:
            SettingsError: what is wrong with the settings, or they could not be read in time.

        Cancel: the thread is left behind, and what it opens is given back when it ends.
        """
        with trio.move_on_after(READ_SECONDS):
            return await trio.to_thread.run_sync(
                self._read, old, abandon_on_cancel=True, limiter=self._thread
            )
        raise SettingsError([f"the settings could not be read within {READ_SECONDS:g} s; see to their disk"])

    def _record(self, old: Settings, wanted: Settings) -> None:
        changed = changed_keys(old, keep_listeners(wanted, old))
        waiting = [key for key in changed_keys(old, wanted) if key not in changed]
        what = f"changed: {', '.join(changed)}" if changed else "nothing changed"
        if waiting:
            what += f"; after a restart: {', '.join(waiting)}"
        self._log.record(events.RELOADED, changed=", ".join(changed), restart=", ".join(waiting), what=what)
