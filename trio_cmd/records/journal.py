"""Whether a descriptor leads to systemd's journal; lines enter, and leave with the priority it reads.

The journal gives every line of a service the same priority unless the line begins with ``<N>``,
whatever level the JSON behind it has.
"""

import os
from collections.abc import Mapping
from typing import Any

from trio_cmd.records.render import Render

__all__ = ["is_journal", "with_priority"]

# sd-daemon(3): <3> is LOG_ERR, <4> LOG_WARNING, <6> LOG_INFO.
_PRIORITIES: Mapping[str, bytes] = {"error": b"<3>", "warning": b"<4>", "info": b"<6>"}


def is_journal(fd: int, stream: str) -> bool:
    """Tell whether a descriptor is the one that systemd connected to the journal.

    Args:
        fd: may have been redirected since.
        stream: ``$JOURNAL_STREAM``: device and inode, joined by a colon.
    """
    found = os.fstat(fd)
    return stream == f"{found.st_dev}:{found.st_ino}"


def with_priority(render: Render) -> Render:
    """Put the priority before each line, also before the further lines of one record."""

    def render_for_journal(fields: Mapping[str, Any], seconds: float) -> bytes:
        prefix = _PRIORITIES[fields["level"]]
        return prefix + render(fields, seconds)[:-1].replace(b"\n", b"\n" + prefix) + b"\n"

    return render_for_journal
