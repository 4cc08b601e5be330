"""A condition of the record enters; clients wait until it has passed.

The writer of the record is a thread and sets no event of the loop: that would cost each record
more than a look now and then costs those who wait.
"""

from collections.abc import Callable

import trio

__all__ = ["wait_while"]

# The queue is usually emptied within milliseconds; a reader that is held for hours is not asked for often.
FIRST_PAUSE_SECONDS = 0.005
LONGEST_PAUSE_SECONDS = 0.25


async def wait_while(is_full: Callable[[], bool]) -> None:
    """Wait until something is full no more; no checkpoint where it is not.

    Cancel: nothing is left behind.
    """
    pause = FIRST_PAUSE_SECONDS
    while is_full():
        await trio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
