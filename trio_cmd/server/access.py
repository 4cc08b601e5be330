"""Who may connect and who may run what: a visitor enters, what is granted to it leaves; no I/O.

Whoever was not named gets nothing.  A grant holds when every condition that is set in it holds:
the address, the certificate, the token.  A visitor may run what any of its grants allows, and is
let in when a grant could still hold once its token is known.
"""

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from trio_cmd.addresses import Address, Network, address_key, is_local, parse_network, show_site
from trio_cmd.settings import METRICS, Grant
from trio_cmd.tokens import find_matches

__all__ = ["ALWAYS_ALLOWED", "Access", "Visitor", "allowed", "is_allowed"]

# Whoever is let in may ask what is allowed, say who it is, and leave.
ALWAYS_ALLOWED = frozenset(("help", "format", "auth", "exit", "quit"))

_Row = TypeVar("_Row")


@dataclass(frozen=True, slots=True)
class Visitor:
    """Whoever connects, as far as it is known.

    Attributes:
        address: where it is, ``None`` when it was gone before it was looked at.
        certificate: the names in its verified certificate: of hosts, and URIs.
        uid: the number of its user, on the unix socket.
    """

    address: Address | None
    certificate: frozenset[str] = frozenset()
    uid: int | None = None

    def key(self) -> Hashable:
        """Give what all clients have in common that one host, or one user of this host, can be."""
        assert self.address is not None
        return ("unix", self.uid) if self.address == "unix" else address_key(self.address)

    def shown_site(self) -> str:
        """Show where it is, the same for all addresses that one host can choose from."""
        return "unknown" if self.address is None else show_site(self.address)


class _Rule:
    """A grant, prepared for many questions."""

    def __init__(self, grant: Grant) -> None:
        self.grant = grant
        self.networks = tuple(parse_network(text) for text in grant.addresses)
        self.certificate = _fold(grant.certificate)
        self.digest = grant.token_sha256.lower()

    def holds(self, visitor: Visitor) -> bool:
        """Tell whether the conditions hold that need no word of the visitor."""
        if visitor.address is None or not self.is_at(visitor.address):
            return False
        return not self.certificate or self.certificate in map(_fold, visitor.certificate)

    def is_at(self, address: Address) -> bool:
        """Tell whether it is for clients at an address."""
        if not self.networks:
            return is_local(address)
        return any(_contains(network, address) for network in self.networks)


# What holds where nobody is named.
_DEFAULT = Grant(name="local", commands=("*",))


class Access:
    """The grants of the settings.

    Args:
        grants: none: clients on this host may run everything.
    """

    def __init__(self, grants: Sequence[Grant]) -> None:
        self._rules = [_Rule(grant) for grant in grants or (_DEFAULT,)]
        self._has_scrapers = any(METRICS in grant.commands for grant in grants)

    def is_admitted(self, visitor: Visitor) -> bool:
        """Tell whether a visitor may connect: a grant holds, but for the token it may want."""
        return any(rule.holds(visitor) for rule in self._rules)

    def is_admissible(self, address: Address | None) -> bool:
        """Tell whether somebody at an address may connect, if it shows the right certificate."""
        return address is not None and any(rule.is_at(address) for rule in self._rules)

    def may_scrape(self, address: Address) -> bool:
        """Tell whether the metrics are for somebody at an address, who can show nothing else.

        Where no grant lists them they are for clients on this host, like a conversation without grants.
        """
        if not self._has_scrapers:
            return is_local(address)
        return any(METRICS in grant.commands for grant in self.held(Visitor(address)))

    def held(self, visitor: Visitor, digests: Collection[str] = ()) -> tuple[Grant, ...]:
        """Give the grants that hold.

        Args:
            visitor: who asks.
            digests: SHA-256 in hex of the tokens that were accepted from it.
        """
        return tuple(
            rule.grant
            for rule in self._rules
            if (not rule.digest or rule.digest in digests) and rule.holds(visitor)
        )

    def find_token(self, visitor: Visitor, token: bytes) -> Grant | None:
        """Give the grant that a token opens for a visitor.

        Args:
            visitor: who shows it; the other conditions of the grant must hold.
            token: of the form of one.
        """
        matches = find_matches(token, [rule.digest for rule in self._rules])
        opened = [self._rules[place] for place in matches if self._rules[place].holds(visitor)]
        return opened[0].grant if opened else None


def allowed(grants: Iterable[Grant], table: Mapping[bytes, _Row]) -> dict[bytes, _Row]:
    """Take the rows of a table of commands that grants allow, in its order."""
    grants = tuple(grants)
    return {name: row for name, row in table.items() if is_allowed(grants, name.decode())}


def is_allowed(grants: Iterable[Grant], command: str) -> bool:
    """Tell whether grants, held by one who was let in, allow a command that there is."""
    if command in ALWAYS_ALLOWED:
        return True
    return any("*" in grant.commands or command in grant.commands for grant in grants)


def _contains(network: Network, address: Address) -> bool:
    if network == "unix" or address == "unix":
        return network == address
    return address in network  # of another version: it is not


def _fold(name: str) -> str:
    """Names of hosts have no upper case; a URI is compared as it is, and so is what is not ASCII.

    Of letters beyond ASCII some have one of ASCII in lower case: U+212A becomes ``k``.
    """
    return name.lower() if name.isascii() and ":" not in name else name
