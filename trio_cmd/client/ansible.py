"""``ansible-inventory`` is run: the path of an inventory enters, the JSON that it prints leaves.

Inventories are INI, YAML, programs or folders of all these, with variables in files beside them:
only Ansible itself reads them as Ansible does.
"""

import os
import re
import selectors
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from trio_cmd.escape import escape, quote

__all__ = ["PROGRAM", "print_inventory"]

PROGRAM = "ansible-inventory"
_PIECE_BYTES = 1 << 16
_MAX_COMPLAINT = 300  # characters
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Its lines are wrapped; the paragraph ends with the text, or where a traceback or a warning begins.
_ERROR = re.compile(r"^\[?ERROR[]!:]+ *(.*?)(?=^\s*$|^Traceback|^\[|\Z)", re.DOTALL | re.MULTILINE)

# What it cannot read it would pass over with a warning; and its complaint is read here, not on a terminal.
_ENVIRONMENT = {
    "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "1",
    "ANSIBLE_INVENTORY_UNPARSED_FAILED": "1",
    "ANSIBLE_INVENTORY_UNPARSED_WARNING": "0",
    "ANSIBLE_DEPRECATION_WARNINGS": "0",
    "ANSIBLE_NOCOLOR": "1",
    "LC_ALL": "C.UTF-8",
}


def print_inventory(path: str, patience_seconds: float, max_bytes: int) -> bytes:
    """Have an inventory printed as JSON.

    Args:
        path: a file or a folder.
        patience_seconds: how long it may take.
        max_bytes: how much there may be.

    Raises:
        ValueError: why it is not there, in one line.

    A signal that ends this program ends what was started first.
    """
    program = shutil.which(PROGRAM)
    if program is None:
        raise ValueError(f"{PROGRAM} is not installed: install ansible-core, or use --hosts-file FILE")
    deadline = time.monotonic() + patience_seconds
    with (
        _taking_along() as started,
        subprocess.Popen(
            [program, "--list", "-i", os.path.abspath(path)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **_ENVIRONMENT},
            start_new_session=True,  # so that nobody is asked for a password, and all of it can be ended
        ) as process,
    ):
        started.append(process)
        try:
            output, said = _read(process, deadline, max_bytes)
            code = process.wait(max(0.0, deadline - time.monotonic()))
        except (TimeoutError, subprocess.TimeoutExpired):
            raise ValueError(
                f"{PROGRAM} was not done in {patience_seconds:g} s; see what it waits for"
            ) from None
        finally:
            if process.returncode is None:  # not reaped, so the number is its own
                os.killpg(process.pid, signal.SIGKILL)
    if code != 0:
        more = f"{PROGRAM} --list -i {quote(path)} says more"
        raise ValueError(f"--inventory: {_complaint(said, code)}; {more}")
    return output


@contextmanager
def _taking_along() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Have a signal that ends this program end what it has started first.

    That is in a session of its own, which hears no Ctrl-C.  A signal that is ignored, or has a
    handler of its own, keeps it.
    """
    started: list[subprocess.Popen[bytes]] = []

    def end(number: int, _: FrameType | None) -> None:
        for process in started:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)

    taken = [number for number in _ENDING if signal.getsignal(number) is signal.SIG_DFL]
    for number in taken:
        signal.signal(number, end)
    try:
        yield started
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def _read(process: subprocess.Popen[bytes], deadline: float, max_bytes: int) -> tuple[bytes, bytes]:
    """Read both pipes to their ends.

    Raises:
        TimeoutError: the deadline has passed.
        ValueError: there is too much.
    """
    pipes = {process.stdout: bytearray(), process.stderr: bytearray()}
    with selectors.DefaultSelector() as selector:
        for pipe, data in pipes.items():
            assert pipe is not None
            selector.register(pipe, selectors.EVENT_READ, data)
        while selector.get_map():
            ready = selector.select(max(0.0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError
            for key, _ in ready:
                if not (piece := os.read(key.fd, _PIECE_BYTES)):
                    selector.unregister(key.fileobj)
                key.data.extend(piece)
                if len(key.data) > max_bytes:
                    raise ValueError(f"{PROGRAM} printed more than {max_bytes} bytes; use --hosts-file FILE")
    output, said = pipes.values()
    return bytes(output), bytes(said)


def _complaint(said: bytes, code: int) -> str:
    """Find what it complains of: the paragraph of its last error, as one line."""
    text = said.decode(errors="replace")
    found = _ERROR.findall(text) or text.strip().rsplit("\n", 1)[-1:]
    line = escape(" ".join(found[-1].split()))
    return line[:_MAX_COMPLAINT] or f"{PROGRAM} ended with exit code {code}"
