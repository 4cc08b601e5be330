"""Reloads and rotations while clients ask; what came of each is compared with what should."""

import random
import signal

import trio

from soaking.place import BROKEN, VARIANTS, Place
from soaking.server import Server, wait_until

__all__ = ["Changes"]

PAUSE_SECONDS = (0.3, 2.5)
OUTCOMES = ("reloaded", "reload-refused")


class Changes:
    """What an operator and logrotate do.

    Args:
        seed: of what is done.
        place: whose settings are written.
        server: that reads them.

    Attributes:
        faults: one line each.
    """

    def __init__(self, seed: str, place: Place, server: Server) -> None:
        self._rng = random.Random(f"{seed} changes")
        self._place = place
        self._server = server
        self._is_broken = False
        self.faults: list[str] = []

    async def run(self) -> None:
        """Reload and rotate, until cancelled; what was begun is finished."""
        while True:
            await trio.sleep(self._rng.uniform(*PAUSE_SECONDS))
            with trio.CancelScope(shield=True):
                await self._rng.choice((self._reload, self._break, self._rotate))()

    async def restore(self) -> None:
        """Put the first settings in force again."""
        self._place.write(self._place.settings({}))
        await self._hang_up(is_broken=False)

    async def _reload(self) -> None:
        self._place.write(self._place.settings(self._rng.choice(VARIANTS)))
        await self._hang_up(is_broken=False)

    async def _break(self) -> None:
        if self._rng.random() < 0.3:
            self._place.write(self._place.settings({}), mode=0o666)
        else:
            self._place.write(self._rng.choice(BROKEN))
        await self._hang_up(is_broken=True)

    async def _rotate(self) -> None:
        """Rename the log, and say so; or do not: the server finds it out with its next record."""
        self._server.rename_log()
        match self._rng.randrange(3):
            case 0:
                await self._hang_up(is_broken=self._is_broken)
            case 1:
                self._server.signal(signal.SIGUSR1)
            case _:
                pass
        await self._server.wait_for_new_log()

    async def _hang_up(self, *, is_broken: bool) -> None:
        """Have the settings read, and see what comes of it."""
        self._is_broken = is_broken
        actions = self._server.checker.actions
        before = [actions[outcome] for outcome in OUTCOMES]
        self._server.signal(signal.SIGHUP)
        await wait_until(lambda: [actions[outcome] for outcome in OUTCOMES] != before, "a reload")
        after = [before[0] + (not is_broken), before[1] + is_broken]
        if [actions[outcome] for outcome in OUTCOMES] != after:
            self.faults.append(f"{'broken' if is_broken else 'good'} settings were not taken for such")
