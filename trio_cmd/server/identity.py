"""Who one client is: its address, its certificate and its tokens enter, what it may ask leaves."""

import time
from collections.abc import Callable
from dataclasses import replace

from trio_cmd.commands import Surroundings
from trio_cmd.errors import BadToken, TooManyWrongTokens
from trio_cmd.server.access import Access, Visitor, allowed, is_allowed
from trio_cmd.server.attempts import WrongTokens
from trio_cmd.settings import Grant
from trio_cmd.tokens import digest_token

__all__ = ["ClientIdentity", "Tables"]

# Who mistypes does so once or twice.
MAX_WRONG_TOKENS = 3


class Tables:
    """What commands need, with only the commands that are allowed: one for each set of grants.

    Args:
        whole: with all commands there are.
    """

    def __init__(self, whole: Surroundings) -> None:
        self.whole = whole
        self._made: dict[tuple[Grant, ...], Surroundings] = {}

    def of(self, grants: tuple[Grant, ...]) -> Surroundings:
        """Give the surroundings of whoever holds these grants; the same object each time."""
        made = self._made.get(grants)
        if made is None:
            made = replace(self.whole, commands=allowed(grants, self.whole.commands))
            self._made[grants] = made
        return made


class ClientIdentity:
    """See ``commands.Identity``.

    Args:
        visitor: who it is, without its tokens.
        access: the grants.
        tables: what commands need.
        attempts: the wrong tokens of all clients.
        now: a clock that never goes back, in seconds; a parameter for the tests.
        surroundings: those of its grants, where they are known already.
    """

    __slots__ = (
        "_access",
        "_attempts",
        "_digests",
        "_now",
        "_tables",
        "surroundings",
        "visitor",
        "wrong_tokens",
    )

    def __init__(
        self,
        visitor: Visitor,
        access: Access,
        tables: Tables,
        attempts: WrongTokens,
        now: Callable[[], float] = time.monotonic,
        surroundings: Surroundings | None = None,
    ) -> None:
        self.visitor = visitor
        self._attempts = attempts
        self._now = now
        self._access = access
        self._tables = tables
        self._digests: tuple[str, ...] = ()  # of the tokens that were right
        self.wrong_tokens = 0
        self.surroundings = surroundings or tables.of(access.held(visitor))

    def check_attempts(self) -> None:
        """See that a token may be shown; see ``commands.Identity``."""
        seconds = self._attempts.seconds_left(self.visitor.key(), self._now())
        if seconds:
            raise TooManyWrongTokens(str(self.visitor.address), seconds)

    def present(self, token: bytes) -> str:
        """Show a token; see ``commands.Identity``."""
        grant = self._access.find_token(self.visitor, token)
        if grant is None:
            self.wrong_tokens += 1
            self._attempts.add(self.visitor.key(), self._now())
            raise BadToken
        digest = digest_token(token)
        if digest not in self._digests:  # else a client that repeats it makes each time dearer than the last
            self._digests = (*self._digests, digest)
            self.surroundings = self._tables.of(self._access.held(self.visitor, self._digests))
        return grant.name

    def renew(self, access: Access, tables: Tables) -> bool:
        """Be judged anew, by other grants; what was shown stays shown.

        Returns:
            Whether it would still be let in.
        """
        self._access = access
        self._tables = tables
        held = access.held(self.visitor, self._digests)
        self.surroundings = tables.of(held)
        return bool(held) or access.is_admitted(self.visitor)

    def may_go_on(self, name: bytes) -> bool:
        """Tell whether a command that has begun is still allowed, also one that is no longer offered."""
        return is_allowed(self._access.held(self.visitor, self._digests), name.decode())

    def is_suspect(self) -> bool:
        """Tell whether it has shown too many wrong tokens."""
        return self.wrong_tokens >= MAX_WRONG_TOKENS

    def exists(self, name: bytes) -> bool:
        """Tell whether there is such a command, allowed or not."""
        return name in self._tables.whole.commands
