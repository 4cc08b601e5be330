"""A slow command enters; its answer leaves at once when nothing has to be waited for, else nothing does.

Most of what a job costs is not its work but its task, its places and its thread.  Who asks for
the digest of a small file that is in memory needs none of them.
"""

from trio_cmd.commands import Command, Surroundings
from trio_cmd.errors import CommandFailed
from trio_cmd.server.replies import Budget
from trio_cmd.server.trail import Asked, Trail
from trio_cmd.wire.messages import Reply

__all__ = ["AT_ONCE_PER_TURN", "answer_at_once"]

# Of one client, before the others get their turn: the largest files take 0.7 ms by sha1, as long as
# a turn of quick commands does, and 2 ms by the slowest algorithm.
AT_ONCE_PER_TURN = 8


def answer_at_once(
    command: Command, asked: Asked, surroundings: Surroundings, budget: Budget, trail: Trail
) -> Reply | None:
    """Get the answer of a slow command, if that takes no waiting.

    Args:
        command: its row.
        asked: the line.
        surroundings: in which it is answered.
        budget: of all unwritten answers.
        trail: records a fault.

    Returns:
        ``None``: it must be worked for, and what goes wrong is said there.
    """
    if command.at_once is None:
        return None
    assert asked.request is not None
    try:
        budget.check()
        return command.at_once(asked.request.argument, surroundings)
    except CommandFailed:
        return None
    except Exception as error:  # the first net again
        return Reply(error=trail.fault(error, asked.request))
