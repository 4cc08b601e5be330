"""The descriptors of the process: the first three are never a client's, and there are enough.

A client cannot bring a server to its limit of descriptors when the limit of clients is below it.
"""

import contextlib
import os
import resource

from trio_cmd.settings import Settings

__all__ = ["fit_descriptors", "hold_standard_descriptors"]

# Python, Trio, listeners, the record, epoll; and files that libraries open.
_OWN = 64
LINGERING_REFUSALS = 64
_PER_WORK = 4  # a child has two ends of a pipe, the log, and its pidfd; a hash has two


def hold_standard_descriptors() -> list[int]:
    """Put the null device where standard input, output or error is closed.

    Else the first client's socket would become standard output, and the record be sent to it.

    Returns:
        The descriptors that were closed.
    """
    closed = []
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number: this one
            closed.append(fd)
    return closed


def needed_descriptors(max_clients: int, work: int) -> int:
    """Count what so many clients and so much work at once can take."""
    return _OWN + max_clients + LINGERING_REFUSALS + _PER_WORK * work


def fit_descriptors(settings: Settings, work: int) -> int:
    """Raise the limit of descriptors to what is needed, as far as allowed.

    Args:
        settings: what is wanted.
        work: children and hash threads at once.

    Returns:
        How many clients there may be.
    """
    needed = needed_descriptors(settings.server.max_clients, work)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = _raise_limit(needed, hard)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return settings.server.max_clients
    return max(1, settings.server.max_clients - (needed - soft))


def _raise_limit(needed: int, hard: int) -> int:
    """Set the soft limit, and the hard one where that is allowed; returns the limit in force."""
    wishes = (
        [(needed, needed), (hard, hard)]
        if hard != resource.RLIM_INFINITY and hard < needed
        else [(needed, hard)]
    )
    for wish in wishes:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, wish)
            break
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
