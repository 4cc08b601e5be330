"""The descriptors of the process bound how many connections there can be at once."""

import contextlib
import resource

__all__ = ["fit_connections"]

# Python, Trio, standard input, output and error, files of names and certificates.
_OWN = 32
# A name with several addresses is tried at several at once, and a look-up has a socket of its own.
_PER_CONNECTION = 2


def fit_connections(wanted: int) -> int:
    """Raise the limit of descriptors to what is needed, as far as allowed.

    Args:
        wanted: connections at once.

    Returns:
        How many there may be, at least one.
    """
    needed = _OWN + _PER_CONNECTION * wanted
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    limit = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        soft = limit
    return max(1, min(wanted, (soft - _OWN) // _PER_CONNECTION))
