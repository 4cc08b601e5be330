"""What a client can ask: one row of one table per command.

A command gets its argument and a ``Setting`` of values and limiters; it knows neither sockets
nor sessions.  It gives a ``Reply`` or raises what is in ``errors``.
"""

from trio_cmd.commands import comphash, conversation, follow, lastlog, verify
from trio_cmd.commands.table import Answer, Asker, Command, Identify, Identity, Share, Surroundings, Work

__all__ = ["COMMANDS", "Answer", "Asker", "Command", "Identify", "Identity", "Share", "Surroundings", "Work"]

_ROWS = (lastlog.COMMAND, follow.COMMAND, comphash.COMMAND, verify.COMMAND, *conversation.COMMANDS)
COMMANDS = {row.name.encode(): row for row in _ROWS}
"""The table: the name as it is sent -> its row, in the order of help."""
