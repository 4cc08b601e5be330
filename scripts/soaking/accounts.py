"""What the clients, the record and ``status`` say of the same events enters; where they differ leaves."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from soaking.records import RecordChecker

__all__ = ["Ledger", "compare_marks", "compare_refusals", "compare_sums"]


class Ledger:
    """What the clients have seen.

    Attributes:
        faults: what was answered wrongly, one line each.
        connections: how many were made.
        kinds: what kind of client -> how many there were.
        met: what answer -> how often it came, where several are right.
        answers: how many answers were compared.
        marks: arguments of pings that were answered, and are to be found in the record.
    """

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.connections = 0
        self.kinds: Counter[str] = Counter()
        self.met: Counter[str] = Counter()
        self.answers = 0
        self.marks: Counter[str] = Counter()


def compare_marks(answered: Counter[str], recorded: Counter[str]) -> list[str]:
    """Say which pings a client has an answer to, and the record has not once."""
    return [
        f"ping {mark} was answered {count} times and recorded {recorded[mark]} times"
        for mark, count in answered.items()
        if recorded[mark] != count
    ]


def compare_sums(connections: int, checker: RecordChecker, status: Mapping[str, Any], mark: str) -> list[str]:
    """Compare the sums at a quiet point.

    Args:
        connections: how many the clients have made so far.
        checker: of the record so far; the client that asked for ``status`` has left.
        status: the answer, as it was while that client was there.
        mark: the argument it was asked with.
    """
    rows = _sums(connections, checker, status, mark)
    return [
        f"{what}: {said} by {who}, {counted} in the record"
        for what, who, said, counted in rows
        if said != counted
    ]


def compare_refusals(met: Mapping[str, int], status: Mapping[str, Any], unshaken: int = 0) -> list[str]:
    """Say whether more clients were sent away, or closed without a word, than the server has refused.

    Args:
        met: what the clients have met.
        status: what the server says.
        unshaken: how many handshakes have failed.
    """
    seen = met.get("too-many-clients", 0) + met.get("closed without a word", 0)
    refused = status["refused_too-many-clients"] + unshaken
    return [f"{seen} clients were sent away, but {refused} refused"] if seen > refused else []


def _sums(
    connections: int, checker: RecordChecker, status: Mapping[str, Any], mark: str
) -> Iterator[tuple[str, str, int, int]]:
    """Give what is compared, who says it, what they say, and what the record says."""
    yield "connections", "the clients", connections, checker.connections
    yield "admitted", "status", status["admitted"], checker.admitted
    refused = checker.actions["client-refused"] + checker.summed["client-refused"]
    yield "refused", "status", status["refused"], refused
    yield "records lost", "status", status["records_lost"], 0
    written = status["records_written"] + status["records_queued"]
    yield "records", "status", written, checker.asked_status.get(mark, 0)
    outcomes = {key.removeprefix("commands_"): count for key, count in status.items() if _is_outcome(key)}
    outcomes["ok"] = outcomes.get("ok", 0) + 1  # the status itself
    recorded = Counter(checker.outcomes)
    recorded["unknown-command"] += checker.summed["command-received"]
    for outcome in sorted({*outcomes, *recorded}):
        yield f"commands {outcome}", "status", outcomes.get(outcome, 0), recorded[outcome]


def _is_outcome(key: str) -> bool:
    return key.startswith("commands_") and key != "commands_shared"
