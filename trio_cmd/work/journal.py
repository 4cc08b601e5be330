"""The name of a unit enters, the command line that reads its journal leaves.

``journalctl -q`` says nothing of a journal that is missing or closed to us, and exits as if all
were well; so the journal's files are looked for here.  That may wait for a disk: call
``check_journal`` in a worker thread.
"""

import errno
import os
from collections.abc import Iterator

from trio_cmd.errors import NotFound, NotPermitted, from_os_error
from trio_cmd.work.permission import name_group

__all__ = ["JOURNAL_PATH", "check_journal", "journal_arguments"]

FOLDERS = (b"/run/log/journal", b"/var/log/journal")
JOURNAL_PATH = FOLDERS[-1]
"""Where the reading of the journal would hang on a dead disk."""
_ALL_UNITS = "*"


def journal_arguments(unit: str, lines: int) -> list[str]:
    """Write the arguments of ``journalctl`` for the newest entries of a unit, or of all of them."""
    arguments = ["-q", "--no-pager", "-o", "short-iso", "-n", str(lines)]
    return arguments if unit == _ALL_UNITS else [*arguments, "-u", unit]


def check_journal() -> None:
    """See that there is a journal and that it may be read.

    Raises:
        NotFound: there is none.
        NotPermitted: the server's user may not read it.
    """
    closed: bytes | None = None
    for path in _files():
        if os.access(path, os.R_OK, effective_ids=os.access in os.supports_effective_ids):
            return
        closed = closed or path
    if closed is not None:
        denied = from_os_error(PermissionError(errno.EACCES, ""), closed)
        assert isinstance(denied, NotPermitted)
        raise name_group(denied, closed)
    folders = " or ".join(map(os.fsdecode, FOLDERS))
    raise NotFound(f"no journal on this host: no files in {folders}; name a log file instead")


def _files() -> Iterator[bytes]:
    """List the journal's files but those of single users; a closed folder stands for its files."""
    for top in FOLDERS:
        for folder in _listed(top):
            for path in _listed(folder):
                name = os.path.basename(path)
                if path == folder or (name.endswith(b".journal") and not name.startswith(b"user-")):
                    yield path


def _listed(folder: bytes) -> list[bytes]:
    """List what is in a folder; of a closed one itself, of a missing one nothing."""
    try:
        return [os.path.join(folder, name) for name in sorted(os.listdir(folder))]
    except PermissionError:
        return [folder]
    except OSError:
        return []
