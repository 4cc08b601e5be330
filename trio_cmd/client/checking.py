"""What a manifest says of many hosts: outcomes of ``verify`` enter, the report's lines leave.

A file that matches is only counted; the others are listed in the words of ``sha256sum -c``.
"""

from abc import abstractmethod
from collections.abc import Sequence

from trio_cmd.client.fleet import Outcome
from trio_cmd.client.folding import fold_names
from trio_cmd.client.hosts import Host
from trio_cmd.client.output import Output, Write
from trio_cmd.client.phrases import explain
from trio_cmd.client.ranking import Ranking
from trio_cmd.escape import escape

__all__ = ["CheckedGroups", "CheckedLines"]


class _Checked(Output):
    """Counts what came of each file on each host, and sums it up in the last line.

    Args:
        write: takes whole lines.
        hosts: that are asked.
        files: how many are verified on each.
    """

    def __init__(self, write: Write, hosts: Sequence[Host], files: int) -> None:
        super().__init__(write)
        self._hosts = len(hosts)
        self._files = files
        self._matching = 0
        self._differing = 0
        self._unread = 0
        self._answered: dict[Host, int] = {}  # how many files, of the hosts being asked
        self._whole_hosts = 0

    def began(self, host: Host) -> None:
        """Count its answers from now on."""
        self._answered[host] = 0

    def answered(self, outcome: Outcome) -> None:
        """Count a file, and list it if it does not match."""
        line = self._judge(outcome) if outcome.is_answer else self._describe_unchecked(outcome)
        if line is not None:
            self._list(outcome.host, line)

    def ended(self, host: Host) -> None:
        """See whether all its files have answers."""
        self._whole_hosts += self._answered.pop(host) == self._files

    def finish(self) -> None:
        """Sum it up."""
        self._write(f"{self._sum_up()}\n".encode())

    @abstractmethod
    def _list(self, host: Host, line: str) -> None:
        """Take a line of the report; for each host they come in the order of the manifest."""

    def _judge(self, outcome: Outcome) -> str | None:
        """Count what came of a file; returns the line to list."""
        self._answered[outcome.host] += 1
        path = escape(outcome.command.split(None, 2)[2])
        if outcome.error is not None:
            self._unread += 1
            return f"{path}: FAILED open or read: {explain(outcome.error)}"
        if outcome.is_ok:
            self._matching += 1
            return None
        self._differing += 1
        return f"{path}: FAILED"

    def _describe_unchecked(self, outcome: Outcome) -> str:
        assert outcome.error is not None
        missing = self._files - self._answered[outcome.host]
        return f"{missing} of {_count(self._files, 'file')} not checked: {explain(outcome.error)}"

    def _count_answers(self) -> int:
        return self._matching + self._differing + self._unread

    def _sum_up(self) -> str:
        checked = _count(self._count_answers(), "file")
        parts = [f"{checked} checked on {_count(self._hosts, 'host')}: {self._matching} OK"]
        parts += [f"{self._differing} FAILED"] if self._differing else []
        parts += [f"{self._unread} FAILED open or read"] if self._unread else []
        unchecked = self._hosts - self._whole_hosts
        parts += [f"{_count(unchecked, 'host')} not wholly checked"] if unchecked else []
        return ", ".join(parts)


class CheckedLines(_Checked):
    """``HOST: PATH: FAILED``, as the hosts answer."""

    def _list(self, host: Host, line: str) -> None:
        self._write(f"{host.name}: {line}\n".encode())


class CheckedGroups(_Checked):
    """The same report once, with its hosts, when all have answered; the largest group first.

    Args:
        write: takes whole lines.
        hosts: that are asked.
        files: how many are verified on each.
    """

    def __init__(self, write: Write, hosts: Sequence[Host], files: int) -> None:
        super().__init__(write, hosts, files)
        self._lines: dict[Host, list[str]] = {}  # of the hosts being asked
        self._ranking = Ranking(hosts)
        self._names: dict[tuple[str, ...], list[str]] = {}  # by what is to be said of them

    def ended(self, host: Host) -> None:
        """Put it to the hosts of which the same is to be said."""
        super().ended(host)
        self._group(host)

    def finish(self) -> None:
        """Write all groups, also of what there is of hosts that have not ended, and sum it up."""
        for host in list(self._lines):
            self._group(host)
        for lines, names in sorted(self._names.items(), key=lambda group: self._ranking.key(group[1])):
            said = lines or (f"{_count(self._files, 'file')} OK",)
            heading = f"{_count(len(names), 'host')}: {', '.join(fold_names(self._ranking.order(names)))}"
            self._write(
                "".join(f"{line}\n" for line in (heading, *(f"  {line}" for line in said), "")).encode()
            )
        super().finish()

    def _list(self, host: Host, line: str) -> None:
        self._lines.setdefault(host, []).append(line)

    def _group(self, host: Host) -> None:
        self._names.setdefault(tuple(self._lines.pop(host, ())), []).append(host.name)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
