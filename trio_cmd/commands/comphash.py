"""``comphash [ALGORITHM] PATH``: the digest of a file."""

from trio_cmd.commands.table import Asker, Command, Surroundings
from trio_cmd.errors import PathMissing
from trio_cmd.escape import escape
from trio_cmd.settings import ALGORITHMS
from trio_cmd.wire.messages import Reply
from trio_cmd.work.hashing import Digest
from trio_cmd.work.runs import Run

__all__ = ["COMMAND", "digest_file", "facts_of"]

_ALGORITHMS = {name.encode(): name for name in ALGORITHMS}


async def comphash(argument: bytes, surroundings: Surroundings, asker: Asker) -> Reply:
    """Hash a file.

    Raises:
        PathMissing: there is no argument.
        CommandFailed: why there is no digest.

    Cancel: the hashing ends, unless others asked for the same.
    """
    algorithm, path = _split(argument, surroundings.settings.comphash.algorithm)
    return _reply(path, await digest_file(path, algorithm, surroundings, asker))


def comphash_at_once(argument: bytes, surroundings: Surroundings) -> Reply | None:
    """Hash a file that takes no waiting; see ``Command.at_once``."""
    algorithm, path = _split(argument, surroundings.settings.comphash.algorithm)
    digest = surroundings.hashing.digest_at_once(path, algorithm)
    return None if digest is None else _reply(path, digest)


def _reply(path: bytes, digest: Digest) -> Reply:
    facts = facts_of(path, digest)
    return Reply(
        (f"File hash is : {digest.hex}",),
        result={**facts, "bytes": digest.bytes},
        record={**facts, "size": digest.bytes},
    )


async def digest_file(path: bytes, algorithm: str, surroundings: Surroundings, asker: Asker) -> Digest:
    """Have a file hashed for an asker, who is told how far it is; others may have asked for the same.

    Raises:
        PathMissing: the path is empty.
        CommandFailed: why there is no digest.

    Cancel: the hashing ends, unless others asked for the same.
    """
    if not path:
        raise PathMissing

    async def work(run: Run) -> Digest:
        return await surroundings.hashing.digest(path, algorithm, asker.client, run.progress, run.begin)

    return await surroundings.sharing.run(("comphash", path, algorithm), asker, work)


def facts_of(path: bytes, digest: Digest) -> dict[str, str]:
    """Say what the result and the record have in common, safe to show."""
    return {"path": escape(path), "algorithm": digest.algorithm, "digest": digest.hex}


def _split(argument: bytes, default: str) -> tuple[str, bytes]:
    """Tell the algorithm from the path: an algorithm's name with something after it is one."""
    words = argument.split(None, 1)
    if len(words) == 2 and words[0] in _ALGORITHMS:
        return _ALGORITHMS[words[0]], words[1]
    return default, argument


COMMAND = Command(
    "comphash",
    "comphash [ALGORITHM] PATH",
    "hash a file: " + " ".join(ALGORITHMS),
    work=comphash,
    at_once=comphash_at_once,
)
