"""The server: settings and a logger enter; it listens, holds conversations, stops.

Nurseries from the outside in: helpers > work (shared runs) > connections > listeners.  Whoever is
further in is stopped first, and finds everything it needs still there.
"""

import os
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import msgspec
import trio

from trio_cmd.commands import COMMANDS, Surroundings
from trio_cmd.commands.programs import program_rows
from trio_cmd.records import EventLogger, Sink, events
from trio_cmd.records.events import record_fault
from trio_cmd.server.access import Access
from trio_cmd.server.admission import Admission
from trio_cmd.server.deadlines import Sweeper, tick_seconds
from trio_cmd.server.descriptors import fit_descriptors
from trio_cmd.server.flooding import Flooding
from trio_cmd.server.handshakes import TlsDoor
from trio_cmd.server.hangups import Hangups
from trio_cmd.server.identity import Tables
from trio_cmd.server.listeners import Listeners
from trio_cmd.server.reception import SYSTEM, Reception
from trio_cmd.server.replies import Budget
from trio_cmd.server.session import Shared
from trio_cmd.server.tls import ServerCertificate
from trio_cmd.settings import Settings
from trio_cmd.work.followers import Followers
from trio_cmd.work.hashing import Hashing
from trio_cmd.work.limiter import FairLimiter, WaitingRoom
from trio_cmd.work.logs import MAX_OUTPUT_BYTES, LogReader
from trio_cmd.work.processes import GroupReaper
from trio_cmd.work.programs import Programs
from trio_cmd.work.roots import Roots
from trio_cmd.work.sharing import Sharing
from trio_cmd.work.threads import DiskThreads

__all__ = ["Server"]

# What is left of children after everything else has stopped is killed, and given this long to die.
REAP_SECONDS = 0.3
MIN_FLUSH_SECONDS = 0.2
_AS_ROOT = "running as root: every file of this host can be asked for; start as a user of its own instead"


class Server:
    """A listener, its clients, and all they share.

    Args:
        settings: checked.
        log: records what happens.
        sink: where the log writes; clients wait for it.
        version: of this program, for ``status``.
        roots: below which files may be named; whoever opened them closes them.
        tls: what handshakes need; ``None``: clients speak in plain text.
    """

    def __init__(
        self,
        settings: Settings,
        log: EventLogger,
        sink: Sink,
        version: str,
        roots: Roots,
        tls: ServerCertificate | None = None,
    ) -> None:
        self._settings = settings
        self._log = log
        self._sink = sink
        self._version = version
        self._started = time.monotonic()
        self._stop_event = trio.Event()
        self._sweeper = Sweeper(tick_seconds(settings.limits))
        self._reaper = GroupReaper()
        waiting_room = WaitingRoom(settings.limits.waiting)
        children = settings.limits.running_programs or 2 * (os.cpu_count() or 1)
        self._threads = DiskThreads()
        self._hashing = Hashing(
            settings.comphash, waiting_room, self._sweeper.limit, self._threads, roots.open_regular
        )
        self._children = FairLimiter(children, waiting_room)
        self._logs = LogReader(self._children, self._reaper, self._sweeper.limit, self._threads)
        self._followers = Followers(settings.limits.followers, self._logs, self._reaper, self._sweeper.limit)
        # What programs may print while it is decided whether the next may begin.
        largest = max([MAX_OUTPUT_BYTES, *(p.max_output_bytes for p in settings.programs.values())])
        budget = Budget(settings.limits.total_pending_bytes, children * largest)
        self._sharing = Sharing(partial(record_fault, log), budget.check)
        programs = Programs(self._children, self._reaper, self._sweeper.limit)
        work = children + self._hashing.max_threads + settings.limits.followers
        self._admission = Admission(fit_descriptors(settings, work), settings.server.max_clients_per_address)
        self._hangups = Hangups()
        self._flooding = Flooding(log.bind(system=SYSTEM))
        self._shared = Shared(settings.limits, sink, self._hangups, budget, {}, self._flooding)
        whole = Surroundings(
            settings,
            self._hashing,
            self._logs,
            self.statistics,
            {**COMMANDS, **program_rows(settings.programs, programs)},
            followers=self._followers,
            sharing=self._sharing,
        )
        self._reception = Reception(
            self._shared,
            log,
            Access(settings.grants),
            Tables(whole),
            self._admission,
            self._sweeper,
            self._flooding,
            self._stop_event.is_set,
            None if tls is None else TlsDoor(tls, self._admission.max_clients),
        )
        self.stop_reason: str | None = None
        self._stop_by = float("inf")

    async def serve(self, *, task_status: trio.TaskStatus[int | None] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen and serve until ``stop``; gives the TCP port, if there is one, when it listens.

        Raises:
            ListenError: the address or the path cannot be listened on.

        Cancel: everybody is cut at once; no task, child or descriptor is left.
        """
        try:
            async with trio.open_nursery() as helpers:
                helpers.start_soon(self._sweeper.run)
                helpers.start_soon(self._hangups.run)
                helpers.start_soon(self._reaper.run)
                helpers.start_soon(self._hashing.run)
                helpers.start_soon(self._flooding.run)
                async with self._sharing.open_nursery(), trio.open_nursery() as connections:
                    await self._serve_clients(helpers, connections, task_status)
                helpers.cancel_scope.cancel()
        finally:
            await self._reaper.close(REAP_SECONDS)
            self._hangups.close()
            self._flooding.close()

    def stop(self, reason: str) -> None:
        """Stop: no new clients; those there may finish what they asked, within ``stop_seconds``."""
        if self.stop_reason is None:
            self.stop_reason = reason
            self._stop_by = time.monotonic() + self._settings.limits.stop_seconds
        self._stop_event.set()

    def seconds_left(self, grace: float) -> float:
        """Tell how long the last records may take: the grace, or less when stopping took long."""
        left = self._stop_by + grace - REAP_SECONDS - time.monotonic()
        return max(MIN_FLUSH_SECONDS, min(grace, left))

    def statistics(self) -> Mapping[str, Any]:
        """Count what ``status`` shows: name -> number or text."""
        records = self._sink.statistics()
        hashing, children = self._hashing.statistics(), self._children.statistics()
        sharing = self._sharing.statistics()
        return {
            "version": self._version,
            "uptime_seconds": int(time.monotonic() - self._started),
            "clients": self._admission.clients,
            "max_clients": self._admission.max_clients,
            "refused": sum(self._admission.refused.values()),
            **{f"refused_{reason}": count for reason, count in sorted(self._admission.refused.items())},
            **{f"commands_{outcome}": count for outcome, count in sorted(self._shared.outcomes.items())},
            "hashing_running": hashing.running,
            "hashing_waiting": hashing.waiting,
            "children_running": children.running,
            "children_waiting": children.waiting,
            "reads_hung": self._threads.hung(),
            "followers": self._followers.running,
            "runs": sharing.running,
            "runs_waiting": sharing.waiting,
            "sharers": sharing.sharers,
            "pending_bytes": self._shared.budget.bytes,
            "records_written": records.written,
            "records_lost": records.lost,
            "records_queued": records.queued,
        }

    async def _serve_clients(
        self, helpers: trio.Nursery, connections: trio.Nursery, task_status: trio.TaskStatus[int | None]
    ) -> None:
        """Accept clients until told to stop, and begin to say goodbye to them."""
        listeners = Listeners(self._settings.server, self._log, self._reception.handle)
        async with listeners.open(connections) as port:
            self._record_start()
            task_status.started(port)
            await self._stop_event.wait()
        self._log.record(events.STOPPING, closed=listeners.closed, reason=self.stop_reason)
        self._reception.stop()
        helpers.start_soon(self._lose_patience)

    async def _lose_patience(self) -> None:
        """Cut the clients that are not done when the time to stop has passed."""
        await trio.sleep(self._settings.limits.stop_seconds)
        for session in list(self._reception.sessions):
            session.cancel()

    def _record_start(self) -> None:
        """Record what the operator should know of a server that listens."""
        max_clients = self._admission.max_clients
        if max_clients < self._settings.server.max_clients:
            text = f"max_clients lowered to {max_clients}: too few descriptors; raise the limit (ulimit -n)"
            self._log.record(events.MESSAGE, "warning", text=text, logger="trio_cmd")
        if os.geteuid() == 0:
            self._log.record(events.MESSAGE, "warning", text=_AS_ROOT, logger="trio_cmd")
        limits = msgspec.to_builtins(self._settings.limits)
        grants = [grant.name for grant in self._settings.grants]
        self._log.record(events.SERVER_STARTED, max_clients=max_clients, limits=limits, grants=grants)
