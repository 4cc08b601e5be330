"""Everything that is derived from the settings: one value, so that old and new can never be mixed.

The server holds one at a time and replaces it in one assignment.  What a client asks keeps the
surroundings it was asked in; whatever is asked later is given those of the new value.
"""

from dataclasses import dataclass

from trio_cmd.server.access import Access
from trio_cmd.server.identity import Tables
from trio_cmd.server.shared import Shared
from trio_cmd.server.tls import ServerCertificate
from trio_cmd.settings import Settings
from trio_cmd.work.roots import Roots

__all__ = ["Epoch", "Prepared"]


@dataclass(frozen=True, slots=True)
class Prepared:
    """Settings that are good, and what was read and opened for them.

    Attributes:
        settings: checked; the listeners are those that are wanted.
        roots: below which files may be named; who serves by them takes them.
        tls: what handshakes need; ``None``: clients speak in plain text.
    """

    settings: Settings
    roots: Roots
    tls: ServerCertificate | None = None


@dataclass(frozen=True, slots=True)
class Epoch:
    """The settings in force and all that is made of them.

    Attributes:
        settings: with the listeners in force.
        digest: of the settings, for ``status``.
        shared: what all sessions have in common, the limits of a client among it.
        access: who may connect.
        tables: what each may ask.
        tls: what handshakes need; ``None``: clients speak in plain text.
    """

    settings: Settings
    digest: str
    shared: Shared
    access: Access
    tables: Tables
    tls: ServerCertificate | None
