"""The server: settings and a logger enter; it listens, holds conversations, stops.

Nurseries from the outside in: helpers > work (shared runs) > connections > listeners.  Whoever is
further in is stopped first, and finds everything it needs still there.
"""

import os
import ssl
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
from trio_cmd.server.metrics import MetricsServer
from trio_cmd.server.reception import SYSTEM, Reception
from trio_cmd.server.replies import Budget
from trio_cmd.server.session import Shared
from trio_cmd.server.statistics import LastReload, Statistics, digest_settings, show_status
from trio_cmd.server.tally import Tally
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

    Attributes:
        last_reload: what ``status`` and the metrics say of it.
    """

    def __init__(
        self,
        settings: Settings,
        log: EventLogger,
        sink: Sink,
        version: str,
        roots: Roots,
        tls: ssl.SSLContext | None = None,
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
        commands = {**COMMANDS, **program_rows(settings.programs, programs)}
        self._shared = Shared(settings.limits, sink, self._hangups, budget, Tally(commands), self._flooding)
        self._access = Access(settings.grants)
        self._settings_digest = digest_settings(settings)
        self.last_reload = LastReload()
        whole = Surroundings(
            settings,
            self._hashing,
            self._logs,
            self.status,
            commands,
            followers=self._followers,
            sharing=self._sharing,
        )
        self._reception = Reception(
            self._shared,
            log,
            self._access,
            Tables(whole),
            self._admission,
            self._sweeper,
            self._flooding,
            self._stop_event.is_set,
            None if tls is None else TlsDoor(tls, self._admission.max_clients),
        )
        self._metrics = self._make_metrics()
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

    def status(self) -> Mapping[str, Any]:
        """Say how the server is: name -> number or text."""
        return show_status(self.statistics())

    def statistics(self) -> Statistics:
        """Count what ``status`` and the metrics show."""
        hashing, children = self._hashing.statistics(), self._children.statistics()
        results = self._reception.results
        return Statistics(
            version=self._version,
            settings=self._settings_digest,
            uptime_seconds=int(time.monotonic() - self._started),
            last_reload=self.last_reload,
            clients=self._admission.clients,
            admitted=results["admitted"],
            gone={reason: count for reason, count in results.items() if reason != "admitted"},
            refused=self._admission.refused,
            tally=self._shared.tally,
            running={
                "hashing": hashing.running,
                "children": children.running,
                "followers": self._followers.running,
            },
            waiting={"hashing": hashing.waiting, "children": children.waiting},
            places=self._places(),
            hung=self._threads.hung(),
            hashed_bytes=self._hashing.hashed_bytes,
            sharing=self._sharing.statistics(),
            pending_bytes=self._shared.budget.bytes,
            records=self._sink.statistics(),
        )

    def _places(self) -> Mapping[str, int]:
        """Tell how much there may be of what is limited for all clients together."""
        return {
            "clients": self._admission.max_clients,
            "clients_per_address": self._settings.server.max_clients_per_address,
            "hashing": self._hashing.max_threads,
            "children": self._children.places,
            "followers": self._settings.limits.followers,
            "waiting": self._settings.limits.waiting,
            "pending_bytes": self._settings.limits.total_pending_bytes,
        }

    async def _serve_clients(
        self, helpers: trio.Nursery, connections: trio.Nursery, task_status: trio.TaskStatus[int | None]
    ) -> None:
        """Accept clients until told to stop, and begin to say goodbye to them."""
        listeners = Listeners(self._settings.server, self._log, self._reception.handle)
        async with listeners.open(connections) as port:
            if self._metrics is not None:
                await helpers.start(self._metrics.run)
            self._record_start()
            task_status.started(port)
            await self._stop_event.wait()
        self._log.record(events.STOPPING, closed=listeners.closed, reason=self.stop_reason)
        self._reception.stop()
        helpers.start_soon(self._lose_patience)

    def _make_metrics(self) -> MetricsServer | None:
        """Make what answers scrapes, if that is wanted."""
        if not self._settings.metrics.port:
            return None
        from trio_cmd.server.exposition import Exposition  # noqa: PLC0415 - the library is an extra's

        return MetricsServer(
            self._settings.metrics, self._access, Exposition(self.statistics).render, self._log
        )

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
