"""``comphash [ALGORITHM] PATH``: the digest of a file."""

from trio_cmd.commands.table import Asker, Command, Surroundings
from trio_cmd.errors import PathMissing
from trio_cmd.escape import escape
from trio_cmd.settings import ALGORITHMS
from trio_cmd.wire.messages import Reply
from trio_cmd.work.hashing import Digest
from trio_cmd.work.sharing import Run

__all__ = ["COMMAND"]

_ALGORITHMS = {name.encode(): name for name in ALGORITHMS}


async def comphash(argument: bytes, surroundings: Surroundings, asker: Asker) -> Reply:
    """Hash a file.

    Raises:
        PathMissing: there is no argument.
        CommandFailed: why there is no digest.

    Cancel: the hashing ends, unless others asked for the same.
    """
    algorithm, path = _split(argument, surroundings.settings.comphash.algorithm)
    if not path:
        raise PathMissing

    async def work(run: Run) -> Reply:
        return _reply(path, await surroundings.hashing.digest(path, algorithm, asker.client, run.begin))

    return await surroundings.sharing.run(("comphash", path, algorithm), asker, work)


def _reply(path: bytes, digest: Digest) -> Reply:
    facts = {"path": escape(path), "algorithm": digest.algorithm, "digest": digest.hex}
    return Reply(
        (f"File hash is : {digest.hex}",),
        result={**facts, "bytes": digest.bytes},
        record={**facts, "size": digest.bytes},
    )


def _split(argument: bytes, default: str) -> tuple[str, bytes]:
    """Tell the algorithm from the path: an algorithm's name with something after it is one."""
    first, *rest = argument.split(None, 1)[:2] or [b""]
    if rest and first in _ALGORITHMS:
        return _ALGORITHMS[first], rest[0]
    return default, argument


COMMAND = Command(
    "comphash", "comphash [ALGORITHM] PATH", "hash a file: " + " ".join(ALGORITHMS), work=comphash
)
