"""Where a client is enters, what the settings say of anybody there leaves; the last judgements are kept.

Who has shown neither certificate nor token is judged by its address alone, and the same addresses
come again and again.
"""

from typing import NamedTuple

from trio_cmd.addresses import Address
from trio_cmd.commands import Surroundings
from trio_cmd.server.access import Access, Visitor
from trio_cmd.server.identity import Tables

__all__ = ["MAX_KEPT", "Acquaintances", "Judgement"]

# Half a kibibyte each.
MAX_KEPT = 1024


class Judgement(NamedTuple):
    """What the settings say of a client of whom only the address is known.

    Attributes:
        is_admissible: it may connect, if it shows the right certificate.
        surroundings: what it may ask as long as it shows nothing.
    """

    is_admissible: bool
    surroundings: Surroundings


class Acquaintances:
    """The last judgements under one epoch's settings; other settings need others.

    Args:
        access: the grants.
        tables: what commands need.
    """

    def __init__(self, access: Access, tables: Tables) -> None:
        self._access = access
        self._tables = tables
        self._kept: dict[str, Judgement] = {}

    def judge(self, host: str, address: Address) -> Judgement:
        """Judge anybody at an address.

        Args:
            host: the address as the kernel spells it; to compare addresses themselves would take longer.
            address: the same.
        """
        judgement = self._kept.get(host)
        if judgement is None:
            if len(self._kept) >= MAX_KEPT:
                self._kept.clear()
            surroundings = self._tables.of(self._access.held(Visitor(address)))
            judgement = Judgement(self._access.is_admissible(address), surroundings)
            self._kept[host] = judgement
        return judgement
