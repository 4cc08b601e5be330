"""What a child prints on its way to one client."""

import pytest

from trio_cmd.errors import Unavailable
from trio_cmd.work.feed import MAX_WAITING_BYTES, Feed


async def test_what_is_kept_back_is_bounded() -> None:
    """A disk that does not answer must not fill the memory."""
    feed = Feed()
    feed.hold()
    feed.hold()
    feed.add(b"x" * MAX_WAITING_BYTES)
    with pytest.raises(Unavailable):
        feed.add(b"x")


async def test_what_was_kept_back_is_let_through_in_its_order() -> None:
    """Whoever watches a log through its rotation misses nothing and sees nothing twice."""
    feed = Feed()
    feed.add(b"before\n")
    feed.hold()
    feed.add(b"be")
    feed.add(b"hind\n")
    assert feed.take(100) == (0, b"before\n")
    assert feed.is_empty
    feed.release()
    feed.add(b"later\n")
    assert feed.take(100) == (0, b"behind\nlater\n")
