"""Lines of the record enter, in their order; what is wrong with them, and their sums, leave."""

import json
from collections import Counter
from typing import Any

__all__ = ["RecordChecker"]

MAX_LINE_BYTES = 4096
Record = dict[str, Any]


class _Visit:
    """What is known of a connection that has not ended."""

    __slots__ = ("completed", "is_refused", "received")

    def __init__(self) -> None:
        self.received: set[int] = set()
        self.completed: set[int] = set()
        self.is_refused = False


class RecordChecker:
    """Checks that every event has its record, once.

    Args:
        is_secured: whether the port speaks TLS: who has not finished a handshake is not admitted.

    Attributes:
        faults: what is wrong, one line each.
        lines: how many lines there were.
        actions: action -> how many records.
        outcomes: outcome -> how many completed commands.
        reasons: reason -> how many lost connections.
        summed: action -> how many occurrences only ``events-summed`` tells of.
        admitted: how many connections became a conversation.
        unrecorded: how many requests their connections have counted without a record.
        reports: the records of SIGUSR2, not yet taken.
        marks: the arguments of the pings that were completed well, not yet taken.
        port: that the server listens on.
        asked_status: arguments of ``status`` -> the number of the line that recorded it.
    """

    def __init__(self, *, is_secured: bool = False) -> None:
        self._is_secured = is_secured
        self.faults: list[str] = []
        self.lines = 0
        self.actions: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.summed: Counter[str] = Counter()
        self.admitted = 0
        self.unrecorded = 0
        self.reports: list[Record] = []
        self.marks: Counter[str] = Counter()
        self.port = 0
        self.asked_status: dict[str, int] = {}
        self._visits: dict[int, _Visit] = {}
        self._ended = bytearray()  # one byte for each connection number

    @property
    def connections(self) -> int:
        """How many connections there were, with those that only a sum tells of."""
        return self.actions["client-connected"] + self.summed["client-refused"] + self.summed["client-lost"]

    def feed(self, line: bytes) -> None:
        """Take the next line, without its newline."""
        self.lines += 1
        try:
            record = json.loads(line.decode("ascii"))
            action = record["action"]
        except (ValueError, KeyError, TypeError) as error:
            self._fault(f"not a record ({error}): {line[:200]!r}")
            return
        if len(line) >= MAX_LINE_BYTES:
            self._fault(f"{len(line)} bytes in a line: {line[:200]!r}")
        self.actions[action] += 1
        check = getattr(self, "_check_" + action.replace("-", "_"), None)
        if check is not None:
            check(record)

    def is_settled(self, connections: int) -> bool:
        """Tell whether so many connections have begun, and all have ended."""
        return self.connections >= connections and not self._visits

    def settle(self) -> None:
        """All clients have left: nothing may be open, and no connection may be missing."""
        for number, visit in self._visits.items():
            self._fault(f"connection {number} has no client-lost; {len(visit.received)} received")
        self._visits.clear()
        recorded = sum(self._ended)
        summed = self.summed["client-refused"] + self.summed["client-lost"]
        if recorded + summed != len(self._ended):
            self._fault(f"{len(self._ended)} connections, but {recorded} recorded and {summed} summed up")
        if self.unrecorded != self.summed["command-received"]:
            self._fault(
                f"{self.unrecorded} requests without a record,"
                f" but {self.summed['command-received']} summed up"
            )

    def _fault(self, what: str) -> None:
        self.faults.append(f"record {self.lines}: {what}")

    def _visit(self, record: Record) -> _Visit:
        """Find the connection; one that is not there is a fault."""
        number = record["connection"]
        if number not in self._visits:
            self._fault(f"{record['action']} of connection {number}, which is not there")
            self._visits[number] = _Visit()
        return self._visits[number]

    def _check_listening(self, record: Record) -> None:
        self.port = record.get("port", self.port)

    def _check_client_connected(self, record: Record) -> None:
        number = record["connection"]
        self._ended.extend(bytes(max(0, number + 1 - len(self._ended))))
        if number in self._visits or self._ended[number]:
            self._fault(f"connection {number} begins twice")
        self._visits[number] = _Visit()

    def _check_client_refused(self, record: Record) -> None:
        self._visit(record).is_refused = True

    def _check_command_received(self, record: Record) -> None:
        visit, request = self._visit(record), record["request"]
        if request in visit.received:
            self._fault(f"request {request} of connection {record['connection']} is received twice")
        visit.received.add(request)
        if record["command"] == "status":
            self.asked_status[record["arguments"]] = self.lines

    def _check_command_completed(self, record: Record) -> None:
        visit, request = self._visit(record), record["request"]
        where = f"request {request} of connection {record['connection']}"
        if request in visit.completed:
            self._fault(f"{where} is completed twice")
        elif request not in visit.received:
            self._fault(f"{where} is completed and was not received")
        visit.completed.add(request)
        self.outcomes[record["outcome"]] += 1
        if record["outcome"] == "internal":
            self._fault(f"{where} met an internal error")
        if record["command"] == "ping" and record["outcome"] == "ok" and record["arguments"]:
            self.marks[record["arguments"]] += 1

    def _check_client_lost(self, record: Record) -> None:
        number, visit = record["connection"], self._visit(record)
        missing = visit.received - visit.completed
        if missing:
            self._fault(f"requests {sorted(missing)} of connection {number} are not completed")
        beyond = {request for request in visit.received if not 0 < request <= record["requests"]}
        if beyond:
            self._fault(f"connection {number} had {record['requests']} requests, not {sorted(beyond)}")
        self.unrecorded += record["requests"] - len(visit.received - beyond)
        self.reasons[record["reason"]] += 1
        self.admitted += self._has_met(record) and not visit.is_refused
        del self._visits[number]
        self._ended.extend(bytes(max(0, number + 1 - len(self._ended))))
        self._ended[number] = 1

    def _has_met(self, record: Record) -> bool:
        """Tell whether a client that was not refused became a conversation."""
        if record["client"] == "unknown":
            return False  # it was gone when it was looked at
        return not self._is_secured or record["client"] == "unix" or "tls" in record

    def _check_events_summed(self, record: Record) -> None:
        self.summed[record["of"]] += record["count"]

    def _check_events_lost(self, record: Record) -> None:
        self._fault(f"{record['lost']} events lost")

    def _check_handler_crashed(self, record: Record) -> None:
        self._fault(f"handler-crashed: {record['exception']}")

    def _check_message(self, record: Record) -> None:
        if "exception" in record or record["level"] == "error":
            self._fault(f"message: {record}")

    def _check_report(self, record: Record) -> None:
        self.reports.append(record)
