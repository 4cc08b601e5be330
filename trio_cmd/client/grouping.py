"""Outcomes enter, groups of hosts with the same answer leave, the largest first."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from trio_cmd.client.errors import AskError, CommandError
from trio_cmd.client.fleet import Outcome
from trio_cmd.client.hosts import Host
from trio_cmd.client.phrases import format_outcome
from trio_cmd.client.ranking import Ranking

__all__ = ["Group", "Grouping", "key_of"]


@dataclass(frozen=True, slots=True)
class Group:
    """Hosts whose answer to a command is the same.

    Attributes:
        command: as asked; empty where the hosts could not be asked.
        text: the lines of the answer, safe to show, with a line feed between them; as one piece, because
            a million small ones take ten times the memory.
        hosts: their names, in the order of their answers; a dict, as a set that keeps order.
    """

    command: bytes
    text: str
    hosts: dict[str, None] = field(default_factory=dict)

    @property
    def lines(self) -> Sequence[str]:
        """The lines of the answer."""
        return self.text.split("\n")


class Grouping:
    """Groups that grow; each holds its answer once, however many hosts have given it.

    Args:
        commands: as asked, in the order in which they are shown.
        hosts: those that are asked.
    """

    def __init__(self, commands: Sequence[bytes], hosts: Sequence[Host]) -> None:
        self._ranking = Ranking(hosts)
        self._groups: dict[bytes, dict[bytes, Group]] = {command: {} for command in [*commands, b""]}

    def add(self, outcome: Outcome) -> None:
        """Put a host to those that have answered the same."""
        alike = self._groups[outcome.command]
        key = key_of(outcome)
        group = alike.get(key)
        if group is None:
            group = alike[key] = Group(outcome.command, "\n".join(format_outcome(outcome)))
        group.hosts[outcome.host.name] = None  # once, also where a command is asked twice

    def names(self, group: Group) -> Sequence[str]:
        """List the hosts of a group as they were named."""
        return self._ranking.order(group.hosts)

    def of(self, *commands: bytes) -> Sequence[Group]:
        """List the groups of some commands, the largest first."""
        groups = [group for command in commands for group in self._groups[command].values()]
        return sorted(groups, key=lambda group: self._ranking.key(group.hosts))


def key_of(outcome: Outcome) -> bytes:
    """Give what two outcomes have in common exactly when they are the same answer.

    How long a server took is no part of it; of an error the result beside it is one.
    """
    what = outcome.reply.result if outcome.reply is not None else _describe(outcome.error)
    # A digest, because a program's output can be long and a fleet large.
    return hashlib.sha256(msgspec.json.encode(what, order="deterministic")).digest()


def _describe(error: AskError | None) -> object:
    assert error is not None
    result = error.result if isinstance(error, CommandError) else None
    return ["error", error.code, error.message, result]  # a list, and so no result
