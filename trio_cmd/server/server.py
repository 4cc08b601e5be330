"""The server: settings and a logger enter; it listens, holds conversations, stops.

Nurseries from the outside in: helpers > work (shared runs) > connections > listeners.  Whoever is
further in is stopped first, and finds everything it needs still there.
"""

import dataclasses
import itertools
import os
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import msgspec
import trio

from trio_cmd.addresses import Address
from trio_cmd.records import EventLogger, Sink, events
from trio_cmd.records.events import record_fault
from trio_cmd.server.access import Access
from trio_cmd.server.admission import Admission
from trio_cmd.server.deadlines import Sweeper, tick_seconds
from trio_cmd.server.descriptors import fit_descriptors
from trio_cmd.server.epoch import Epoch, Prepared
from trio_cmd.server.flooding import Flooding
from trio_cmd.server.hangups import Hangups
from trio_cmd.server.identity import Tables
from trio_cmd.server.inherited import Inherited
from trio_cmd.server.listeners import Listeners
from trio_cmd.server.metrics import MetricsServer
from trio_cmd.server.reception import Reception
from trio_cmd.server.reloading import Read, Reloading, read_nothing
from trio_cmd.server.remains import Remains
from trio_cmd.server.report import make_report
from trio_cmd.server.shared import Shared
from trio_cmd.server.statistics import LastReload, Statistics, digest_settings, show_status
from trio_cmd.server.systemd import Notifier
from trio_cmd.server.tally import Tally
from trio_cmd.server.tls import ServerCertificate
from trio_cmd.server.visit import SYSTEM
from trio_cmd.server.workshop import Workshop, count_work
from trio_cmd.settings import Settings, keep_listeners
from trio_cmd.work.roots import Roots

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
        roots: below which files may be named; taken over.
        tls: what handshakes need; ``None``: clients speak in plain text.
        inherited: sockets to listen on instead of those of the settings.
        notifier: tells systemd how the server is.
        read: reads the settings again, in a thread.
    """

    def __init__(
        self,
        settings: Settings,
        log: EventLogger,
        sink: Sink,
        version: str,
        roots: Roots,
        tls: ServerCertificate | None = None,
        *,
        inherited: Sequence[Inherited] = (),
        notifier: Notifier | None = None,
        read: Read = read_nothing,
    ) -> None:
        self._log = log
        self._sink = sink
        self._version = version
        self._inherited = inherited
        self._notifier = notifier or Notifier({}, log)
        self._started = time.monotonic()
        self._stop_event = trio.Event()
        self._sweeper = Sweeper(tick_seconds(settings.limits))
        self._workshop = Workshop(settings, self._sweeper.limit, partial(record_fault, log))
        max_clients = fit_descriptors(settings, count_work(settings))
        self._admission = Admission(max_clients, settings.server.max_clients_per_address)
        self._hangups = Hangups()
        self._flooding = Flooding(log.bind(system=SYSTEM))
        self._remains = Remains()
        self._reception = self._make_reception(Prepared(settings, roots, tls))
        self._epochs = itertools.count(1)
        self._reloading = Reloading(
            read, lambda: self._settings, self._renew, log, self._notifier.reloading, self._tell_ready
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
                self._workshop.start(helpers)
                helpers.start_soon(self._flooding.run)
                helpers.start_soon(self._remains.run)
                async with self._workshop.open(), trio.open_nursery() as connections:
                    await self._serve_clients(helpers, connections, task_status)
                helpers.cancel_scope.cancel()
        finally:
            await self._workshop.close(REAP_SECONDS)
            self._hangups.close()
            self._flooding.close()

    @property
    def stop_seconds(self) -> float:
        """How long clients may take to finish."""
        return self._settings.limits.stop_seconds

    def stop(self, reason: str) -> None:
        """Stop: no new clients; those there may finish what they asked, within ``stop_seconds``."""
        if self.stop_reason is None:
            self.stop_reason = reason
            self._stop_by = time.monotonic() + self.stop_seconds
        self._stop_event.set()

    @property
    def last_reload(self) -> LastReload:
        """When the settings were last read again, and whether they were taken."""
        return self._reloading.last

    def reload(self) -> None:
        """Have the log file opened anew, and the settings read again, soon; not while the server stops."""
        self._sink.reopen()
        if self.stop_reason is None:
            self._reloading.want()

    def report(self) -> None:
        """Record what the server is doing, and with what."""
        clients = [self._admission.clients, self._admission.max_clients]
        limiters = {"clients": clients, **self._workshop.limiters()}
        queues = {"records": self._sink.statistics().queued, **self._workshop.queues()}
        report = make_report(limiters, queues)
        self._log.record(events.REPORT, count=report["tasks"]["count"], **report)

    def reopen_log(self) -> bool:
        """Have the file of the record opened anew; returns whether there is one."""
        return self._sink.reopen()

    def seconds_left(self, grace: float) -> float:
        """Tell how long the last records may take: the grace, or less when stopping took long."""
        left = self._stop_by + grace - REAP_SECONDS - time.monotonic()
        return max(MIN_FLUSH_SECONDS, min(grace, left))

    def status(self) -> Mapping[str, Any]:
        """Say how the server is: name -> number or text."""
        return show_status(self.statistics())

    def statistics(self) -> Statistics:
        """Count what ``status`` and the metrics show."""
        results = self._reception.results
        return Statistics(
            version=self._version,
            settings=self._reception.epoch.digest,
            uptime_seconds=int(time.monotonic() - self._started),
            last_reload=self.last_reload,
            clients=self._admission.clients,
            admitted=results["admitted"],
            gone={reason: count for reason, count in results.items() if reason != "admitted"},
            refused=self._admission.refused,
            tally=self._shared.tally,
            work=self._workshop.statistics(),
            places=self._places(),
            pending_bytes=self._workshop.budget.bytes,
            records=self._sink.statistics(),
        )

    def _places(self) -> Mapping[str, int]:
        """Tell how much there may be of what is limited for all clients together."""
        return {
            "clients": self._admission.max_clients,
            "clients_per_address": self._settings.server.max_clients_per_address,
            **self._workshop.places(),
            "pending_bytes": self._settings.limits.total_pending_bytes,
        }

    @property
    def _settings(self) -> Settings:
        """The settings in force."""
        return self._reception.epoch.settings

    @property
    def _shared(self) -> Shared:
        return self._reception.epoch.shared

    def _make_reception(self, prepared: Prepared) -> Reception:
        """Make what receives clients, under the settings of the start."""
        limits, budget = prepared.settings.limits, self._workshop.budget
        shared = Shared(limits, self._sink, self._hangups, budget, Tally(()), self._flooding)
        return Reception(
            self._make_epoch(prepared, prepared.settings, shared, 0),
            self._log,
            self._admission,
            self._sweeper,
            self._flooding,
            self._stop_event.is_set,
        )

    def _make_epoch(self, prepared: Prepared, settings: Settings, shared: Shared, number: int) -> Epoch:
        """Make all that is derived from settings.

        Args:
            prepared: what was read and opened; its roots are taken.
            settings: with the listeners in force.
            shared: with the limits of these settings.
            number: of the settings since the start.
        """
        roots = self._remains.add(prepared.roots.take())
        whole = self._workshop.surroundings(settings, number, roots, self.status)
        shared.tally.know(whole.commands)
        access = Access(settings.grants)
        return Epoch(settings, digest_settings(settings), shared, access, Tables(whole), prepared.tls)

    def _renew(self, prepared: Prepared) -> None:
        """Put other settings in force: what is begun later is under them, and nothing between."""
        settings = keep_listeners(prepared.settings, self._settings)
        shared = dataclasses.replace(self._shared, limits=settings.limits)
        epoch = self._make_epoch(prepared, settings, shared, next(self._epochs))
        self._resize(settings)
        self._reception.renew(epoch)

    def _resize(self, settings: Settings) -> None:
        """Change the limits that all share; what is above a lower one goes on to its end."""
        limits = settings.limits
        self._sweeper.tick_seconds = tick_seconds(limits)
        self._workshop.resize(settings)
        self._sink.renew(settings.logging)
        max_clients = fit_descriptors(settings, count_work(settings))
        self._admission.resize(max_clients, settings.server.max_clients_per_address)
        self._warn_of_descriptors(settings.server.max_clients)

    async def _serve_clients(
        self, helpers: trio.Nursery, connections: trio.Nursery, task_status: trio.TaskStatus[int | None]
    ) -> None:
        """Accept clients until told to stop, and begin to say goodbye to them."""
        listeners = Listeners(self._settings.server, self._log, self._reception.handle, self._inherited)
        async with listeners.open(connections) as port:
            if self._metrics is not None:
                await helpers.start(self._metrics.run)
            self._record_start()
            self._notifier.ready(self._describe())
            helpers.start_soon(self._notifier.run, self._describe)
            helpers.start_soon(self._reloading.run)
            task_status.started(port)
            await self._stop_event.wait()
            self._notifier.stopping(self._describe())
        self._log.record(events.STOPPING, closed=listeners.closed, reason=self.stop_reason)
        self._reception.stop()
        helpers.start_soon(self._lose_patience)

    def _make_metrics(self) -> MetricsServer | None:
        """Make what answers scrapes, if that is wanted."""
        if not self._settings.metrics.port:
            return None
        from trio_cmd.server.exposition import Exposition  # noqa: PLC0415 - the library is an extra's

        return MetricsServer(
            self._settings.metrics, self._may_scrape, Exposition(self.statistics).render, self._log
        )

    def _may_scrape(self, address: Address) -> bool:
        """Tell whether the metrics are for somebody at an address, by the grants in force."""
        return self._reception.epoch.access.may_scrape(address)

    async def _lose_patience(self) -> None:
        """Cut the clients that are not done when the time to stop has passed."""
        await trio.sleep(self.stop_seconds)
        for session in list(self._reception.sessions):
            session.cancel()

    def _tell_ready(self) -> None:
        """Tell systemd that a reload is over, unless it was told meanwhile that the server stops."""
        if self.stop_reason is None:
            self._notifier.ready(self._describe())

    def _describe(self) -> str:
        """Say in one line for ``systemctl status`` how the server is."""
        doing = f"Stopping ({self.stop_reason})" if self.stop_reason else "Listening"
        clients = f"{self._admission.clients} of {self._admission.max_clients} clients"
        refused = f"{sum(self._admission.refused.values())} refused"
        lost = f"{self._sink.statistics().lost} log events lost"
        return f"{doing}: {clients}, {len(self._settings.grants)} grants, {refused}, {lost}"

    def _record_start(self) -> None:
        """Record what the operator should know of a server that listens."""
        max_clients = self._admission.max_clients
        self._warn_of_descriptors(self._settings.server.max_clients)
        if os.geteuid() == 0:
            self._log.record(events.MESSAGE, "warning", text=_AS_ROOT, logger="trio_cmd")
        limits = msgspec.to_builtins(self._settings.limits)
        grants = [grant.name for grant in self._settings.grants]
        self._log.record(events.SERVER_STARTED, max_clients=max_clients, limits=limits, grants=grants)

    def _warn_of_descriptors(self, wanted: int) -> None:
        max_clients = self._admission.max_clients
        if max_clients < wanted:
            text = f"max_clients lowered to {max_clients}: too few descriptors; raise the limit (ulimit -n)"
            self._log.record(events.MESSAGE, "warning", text=text, logger="trio_cmd")
