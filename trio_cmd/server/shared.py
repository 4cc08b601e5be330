"""What all sessions of a server have in common, as one value."""

from dataclasses import dataclass, field

import trio

from trio_cmd.records import Sink
from trio_cmd.server.flooding import Flooding
from trio_cmd.server.hangups import Hangups
from trio_cmd.server.plain_lines import PlainLines
from trio_cmd.server.replies import Budget
from trio_cmd.server.tally import Tally
from trio_cmd.settings import Limits

__all__ = ["Shared"]


@dataclass(frozen=True, slots=True)
class Shared:
    """What all sessions of a server have in common; under other settings only the limits change.

    Attributes:
        limits: what a client may take.
        sink: where records go; clients wait for it.
        hangups: watches connections nobody reads from.
        budget: of all unwritten answers.
        tally: counts the commands.
        flooding: decides which unknown commands are recorded by themselves.
        plain_lines: that were asked before.
        failing: slow commands that fail take turns: one in each pass of the event loop.
        pressed: clients that wait for the record go on in the order in which they came.
    """

    limits: Limits
    sink: Sink
    hangups: Hangups
    budget: Budget
    tally: Tally
    flooding: Flooding
    plain_lines: PlainLines = field(default_factory=PlainLines)
    failing: trio.Lock = field(default_factory=trio.Lock)
    pressed: trio.Lock = field(default_factory=trio.Lock)
