"""Who comes and when: a seed enters, clients live their lives, what was wrong stands in the ledger."""

import random
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import trio

from soaking.accounts import Ledger
from soaking.bad import BAD
from soaking.caller import Refused, Unheard, World
from soaking.good import GOOD
from soaking.place import Place
from soaking.unshaken import BAD_AT_TLS

__all__ = ["Crowd", "leaves"]

Kind = Callable[[World], Coroutine[Any, Any, None]]
KINDS: dict[Kind, int] = {**GOOD, **BAD}
MOST = 40  # at once, below the limit of the settings, so that not everybody is refused
LIFE_SECONDS = 120.0


class Crowd:
    """Clients of all kinds.

    Args:
        seed: the same clients come for the same one, in the same order.
        rate: how many begin in a second.
        place: where they are.
        ledger: what they see.
        port: of the server.
    """

    def __init__(self, seed: str, rate: float, place: Place, ledger: Ledger, port: int) -> None:
        self._seed = seed
        self._rng = random.Random(seed)
        self._rate = rate
        self._kinds: dict[Kind, int] = {**KINDS, **BAD_AT_TLS} if place.is_secured else KINDS
        self._place = place
        self._ledger = ledger
        self._port = port
        self._clients = 0
        self._room = trio.CapacityLimiter(MOST)

    async def run(self, seconds: float) -> None:
        """Let clients come for so long, and wait until the last has left."""
        until = trio.current_time() + seconds
        async with trio.open_nursery() as nursery:
            while trio.current_time() < until:
                kind = self._rng.choices([*self._kinds], [*self._kinds.values()])[0]
                world = self.visitor()
                await self._room.acquire_on_behalf_of(world.name)
                nursery.start_soon(self._live, kind, world)
                await trio.sleep(self._rng.expovariate(self._rate))

    def visitor(self) -> World:
        """Give one more client what it knows."""
        self._clients += 1
        name = f"client-{self._clients}"
        rng = random.Random(f"{self._seed} {name}")
        return World(self._place, rng, self._ledger, self._port, name)

    async def _live(self, kind: Kind, world: World) -> None:
        """Be one client; what it finds wrong is noted, and the others go on."""
        name = getattr(kind, "__name__", str(kind))
        self._ledger.kinds[name] += 1
        try:
            with trio.fail_after(LIFE_SECONDS):
                await kind(world)
        except* Exception as errors:
            for error in leaves(errors):
                self._note(f"{world.name}, {name}", error)
        finally:
            self._room.release_on_behalf_of(world.name)

    def _note(self, who: str, error: BaseException) -> None:
        if isinstance(error, Refused):
            self._ledger.met["too-many-clients"] += 1
        elif isinstance(error, Unheard):
            self._ledger.met["closed without a word"] += 1
        else:
            self._ledger.faults.append(f"{who}: {type(error).__name__}: {error}")


def leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    """Give the errors of a group."""
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from leaves(error)
        else:
            yield error
