"""Outcomes enter, an exit code leaves."""

from trio_cmd.client.fleet import Outcome, Watcher
from trio_cmd.client.grouping import key_of
from trio_cmd.client.hosts import Host

__all__ = ["EXIT_DIFFER", "EXIT_NONE", "EXIT_OK", "EXIT_SOME_FAILED", "Verdict"]

EXIT_OK = 0
EXIT_SOME_FAILED = 1
EXIT_NONE = 3
EXIT_DIFFER = 4


class Verdict(Watcher):
    """Judges the answers as they come.

    Args:
        expect_same: whether hosts that differ in an answer are worth a code of their own.

    Attributes:
        hosts_ended: how many hosts nothing more comes of.
    """

    def __init__(self, *, expect_same: bool) -> None:
        self.hosts_ended = 0
        self._expect_same = expect_same
        self._any_answered = False
        self._any_failed = False
        self._any_differ = False
        self._first: dict[bytes, bytes] = {}  # command -> the key of its first answer

    def answered(self, outcome: Outcome) -> None:
        """Count one."""
        self._any_answered |= outcome.is_answer
        self._any_failed |= not outcome.is_ok
        if self._expect_same and outcome.is_answer:
            key = key_of(outcome)
            self._any_differ |= self._first.setdefault(outcome.command, key) != key

    def ended(self, host: Host) -> None:
        """Count one."""
        self.hosts_ended += 1

    @property
    def exit_code(self) -> int:
        """What is to be told: 0 all is well, 1 something failed, 3 nobody has answered, 4 answers differ."""
        if not self._any_answered:
            return EXIT_NONE
        if self._any_failed:
            return EXIT_SOME_FAILED
        return EXIT_DIFFER if self._any_differ else EXIT_OK
