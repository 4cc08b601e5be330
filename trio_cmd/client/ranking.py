"""The hosts as they were named enter, the order in which groups of them are shown leaves."""

from collections.abc import Collection, Sequence

from trio_cmd.client.hosts import Host

__all__ = ["Ranking"]


class Ranking:
    """Puts names and groups in order, whoever was faster: the same answers look the same each time.

    Args:
        hosts: in the order in which they were named.
    """

    def __init__(self, hosts: Sequence[Host]) -> None:
        self._places = {host.name: place for place, host in enumerate(hosts)}

    def order(self, names: Collection[str]) -> Sequence[str]:
        """Put the names of a group in the order of the hosts."""
        return sorted(names, key=self._places.__getitem__)

    def key(self, names: Collection[str]) -> tuple[int, int]:
        """Give what groups are sorted by: the largest first; of two, the one with the host named first."""
        return -len(names), min(self._places[name] for name in names)
