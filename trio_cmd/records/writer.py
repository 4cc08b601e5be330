"""Lines enter, they lie in the output as far as it takes them; that it does not is said elsewhere.

All but ``is_stalled`` is called by the writer's thread alone, which may wait here for a dead disk.
"""

import time
from collections.abc import Callable, Sequence

from trio_cmd.records.batch import Batch
from trio_cmd.records.output import Output

__all__ = ["Writer"]

# A write that lasts longer has no reader: clients are not made to wait for it.
STALLED_SECONDS = 0.5
# Between two complaints: a disk that is almost full fails again and again.
COMPLAINT_SECONDS = 60.0


class Writer:
    """Writes lines.

    Args:
        output: where to.
        describe_failure: says what follows when lines cannot be written.

    Attributes:
        complain: says elsewhere that the record cannot be written.
        has_failed: lines could not be written, and none have been since.
    """

    def __init__(self, output: Output, describe_failure: Callable[[], str]) -> None:
        self._output = output
        self._describe_failure = describe_failure
        self.complain: Callable[[str], object]
        self.has_failed = False
        self._is_in_trouble = False
        self._complained_at = float("-inf")
        self._writing_since: float | None = None

    def is_stalled(self) -> bool:
        """Tell whether the thread is stuck in a write, or its last write failed."""
        since = self._writing_since
        return self.has_failed or (since is not None and time.monotonic() - since > STALLED_SECONDS)

    def write(self, batches: Sequence[Batch]) -> int:
        """Write records; returns how many went out whole.

        Args:
            batches: perhaps none: the output may have to be opened anew all the same.
        """
        done, torn = 0, b""
        self._writing_since = time.monotonic()
        try:
            self._output.prepare()
            torn = b"\n" if batches and self._output.is_torn else b""
            data = memoryview(b"".join([torn, *(batch.lines for batch in batches)]))
            while done < len(data):
                self._writing_since = time.monotonic()
                done += self._output.write(data[done:])
            self.has_failed = self.has_failed and not batches
            self._tell(self._output.trouble)
        except OSError as error:
            self.has_failed = True
            self._tell(error)
        finally:
            self._writing_since = None
        return self._count_whole(batches, done - len(torn)) if done else 0

    def _count_whole(self, batches: Sequence[Batch], done: int) -> int:
        whole = 0
        for batch in batches:
            if done < len(batch.lines):
                count, size = batch.count_whole(done)
                whole, done = whole + count, done - size
                break
            done -= len(batch.lines)
            whole += batch.records
        self._output.is_torn = done > 0
        return whole

    def _tell(self, trouble: OSError | None) -> None:
        """Say elsewhere that trouble has begun, but not at each of its many beginnings."""
        has_begun = trouble is not None and not self._is_in_trouble
        self._is_in_trouble = trouble is not None or self.has_failed
        if trouble is None or not has_begun or time.monotonic() - self._complained_at < COMPLAINT_SECONDS:
            return
        self._complained_at = time.monotonic()
        what, result = "cannot be opened anew", "the record goes on in the old file"
        if self.has_failed:
            what, result = "cannot be written", self._describe_failure()
        self.complain(f"{self._output.name} {what}: {trouble.strerror}; {result}")
