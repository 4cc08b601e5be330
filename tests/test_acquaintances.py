"""What the settings say of an address: asked once, kept, and never too many."""

from typing import Any, cast

import pytest

from trio_cmd.addresses import parse_address
from trio_cmd.server import acquaintances
from trio_cmd.server.access import Access, Visitor
from trio_cmd.server.acquaintances import Acquaintances, Judgement
from trio_cmd.settings import Grant

NEAR = Grant(name="near", addresses=("10.0.0.0/8",), commands=("ping",))
HOST = Grant(name="host", commands=("*",))


class CountingAccess(Access):
    """Counts how often it is asked."""

    asked = 0

    def held(self, visitor: Visitor, digests: Any = ()) -> tuple[Grant, ...]:
        self.asked += 1
        return super().held(visitor, digests)


class GrantNames:
    """In place of tables: of grants, their names."""

    def of(self, grants: tuple[Grant, ...]) -> tuple[str, ...]:
        return tuple(grant.name for grant in grants)


def judging(access: Access) -> Acquaintances:
    return Acquaintances(access, cast("Any", GrantNames()))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "::ffff:10.1.2.3", "10.1.2.3", "192.0.2.1", "unix"])
def test_a_kept_judgement_is_that_of_the_grants(host: str) -> None:
    """Nobody gets more, or less, for having been here before."""
    access = CountingAccess([NEAR, HOST])
    kept, address = judging(access), parse_address(host)
    judgements = [kept.judge(host, address) for _ in range(3)]
    assert access.asked == 1
    names: Any = GrantNames().of(Access([NEAR, HOST]).held(Visitor(address)))
    assert judgements == [Judgement(bool(names), names)] * 3


def test_no_more_judgements_are_kept_than_are_of_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever comes from a million addresses takes no memory with it."""
    monkeypatch.setattr(acquaintances, "MAX_KEPT", 2)
    access = CountingAccess([HOST])
    kept = judging(access)
    for host in ("127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.1"):
        assert kept.judge(host, parse_address(host)).is_admissible
        assert len(kept._kept) <= 2
    assert access.asked == 4
