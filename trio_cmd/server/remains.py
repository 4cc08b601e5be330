"""Folders of old settings enter; when nobody works below them any more their descriptors are given back.

Whoever began under the old settings keeps their folders by referring to them.  A client that has
left still refers to them, in cycles of objects that only Python's collector finds, and a server
with little to do collects too seldom: each reload would leave a descriptor open, for hours perhaps.
"""

import gc
import weakref

import trio

from trio_cmd.work.roots import Roots

__all__ = ["Remains"]

FIRST_SECONDS = 0.5
# Work below an old root may take hours, and a thread may hang there for ever.
MOST_SECONDS = 16.0


class Remains:
    """The folders of all settings that somebody still refers to."""

    def __init__(self) -> None:
        self._roots: weakref.WeakSet[Roots] = weakref.WeakSet()
        self._has_old = trio.Event()

    def add(self, roots: Roots) -> Roots:
        """Know the folders of settings that come into force; returns them."""
        self._roots.add(roots)
        if len(self._roots) > 1:
            self._has_old.set()
        return roots

    async def run(self) -> None:
        """Have the collector run while there are old folders, until cancelled.

        It runs more and more seldom: what is not garbage now is at work, and takes the time it takes.
        Each time costs what there is: 20 ms with a thousand clients.
        """
        while True:
            await self._has_old.wait()
            self._has_old = trio.Event()
            seconds = FIRST_SECONDS
            while len(self._roots) > 1:
                await trio.sleep(seconds)
                gc.collect()
                seconds = min(2 * seconds, MOST_SECONDS)
