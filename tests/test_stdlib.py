"""What libraries say through logging and warnings is recorded."""

import logging
import threading
import warnings
from typing import Any

import pytest

from trio_cmd.escape import escape
from trio_cmd.records import LineSink, make_logger
from trio_cmd.records.stdlib import MAX_REMEMBERED, RecordHandler, route_stdlib


class Records(LineSink):
    """Keeps the fields of records; its clock is moved by the test."""

    def __init__(self) -> None:
        self.fields: list[dict[str, Any]] = []
        self.now = 1000.0
        self.logger = make_logger(self, self._render)

    def put(self, line: bytes, action: str) -> None:
        assert action == "message"

    def texts(self) -> list[str]:
        return [fields["event"] for fields in self.fields]

    def _render(self, fields: Any, seconds: float) -> bytes:
        self.fields.append(dict(fields))
        return b""


@pytest.fixture
def records() -> Records:
    return Records()


@pytest.fixture
def library(records: Records) -> logging.Logger:
    """A library's logger whose messages are recorded, and that nobody else listens to."""
    logger = logging.Logger("library.part")
    logger.addHandler(RecordHandler(records.logger, lambda: records.now))
    return logger


def test_a_message_becomes_a_record_with_its_logger_and_level(
    library: logging.Logger, records: Records
) -> None:
    """An operator sees in one log what the server and its libraries say, and who says it."""
    library.info("a %s", "b")
    library.warning("c")
    library.error("d")
    library.critical("e")
    assert [(r["event"], r["level"], r["logger"]) for r in records.fields] == [
        ("a b", "info", "library.part"),
        ("c", "warning", "library.part"),
        ("d", "error", "library.part"),
        ("e", "error", "library.part"),
    ]


def test_chatter_is_not_recorded(library: logging.Logger, records: Records) -> None:
    """Debug messages of libraries do not fill the disk."""
    library.debug("x")
    assert records.fields == []


def test_messages_are_made_safe(library: logging.Logger, records: Records) -> None:
    """A library that repeats what a client sent forges nothing either."""
    library.warning("x\nforged\x1b\udcff")
    assert records.texts() == [escape("x\nforged\x1b\udcff")]


def test_a_traceback_comes_with_its_message(library: logging.Logger, records: Records) -> None:
    """What Trio says when it cannot accept is not only its last line."""
    library.error("accept failed", exc_info=OSError("x\x1b\ny"))
    (record,) = records.fields
    assert record["event"] == "accept failed"
    assert record["exception"] == "OSError: x\\x1b\ny"


def test_the_same_message_is_recorded_once_a_second_and_the_others_are_counted(
    library: logging.Logger, records: Records
) -> None:
    """Ten tracebacks a second for want of descriptors are one record a second."""
    for _ in range(10):
        library.error("accept returned %s", "EMFILE")
        records.now += 0.1
    library.error("other")
    records.now += 0.05
    library.error("accept returned %s", "EMFILE")
    library.error("accept returned %s", "EMFILE")
    records.now += 2
    library.error("accept returned %s", "EMFILE")
    assert records.texts() == [
        "accept returned EMFILE",
        "other",
        "accept returned EMFILE (9 more like it)",
        "accept returned EMFILE (1 more like it)",
    ]


def test_loggers_do_not_silence_each_other(records: Records, library: logging.Logger) -> None:
    """Two libraries with the same words are both heard."""
    handler = library.handlers[0]
    for name in ("a", "b"):
        handler.handle(logging.LogRecord(name, logging.ERROR, "f", 1, "broken", None, None))
    assert [record["logger"] for record in records.fields] == ["a", "b"]


def test_messages_without_end_take_no_memory(library: logging.Logger, records: Records) -> None:
    """A library that never says the same twice cannot fill the memory; the oldest message is forgotten."""
    for number in range(MAX_REMEMBERED + 1):
        library.warning(f"message {number}")
    (handler,) = library.handlers
    assert isinstance(handler, RecordHandler)
    assert len(handler._recent) == MAX_REMEMBERED
    library.warning("message 0")
    library.warning(f"message {MAX_REMEMBERED}")
    assert records.texts().count("message 0") == 2
    assert records.texts().count(f"message {MAX_REMEMBERED}") == 1


@pytest.mark.parametrize("message", [{"not": "text"}, ["a", "b"], ValueError("x")])
def test_what_is_no_text_is_recorded_as_text(
    message: object, library: logging.Logger, records: Records
) -> None:
    """A library may log any object; that ends neither its task nor ours."""
    library.warning(message)
    assert records.texts() == [str(message)]


def test_a_message_that_cannot_be_formatted_hurts_nobody(library: logging.Logger, records: Records) -> None:
    """A slip in a library's log call is recorded with its place; it does not end a connection."""
    library.warning("%d clients", "many")
    library.warning("fine")
    slip, fine = records.texts()
    assert slip.startswith(f"message of {__file__}:")
    assert slip.endswith(" that cannot be formatted")
    assert fine == "fine"


def test_warnings_and_the_root_logger_are_routed_only_as_long_as_asked(records: Records) -> None:
    """What Python itself warns of is in the record, and nothing of ours stays behind."""
    root = logging.getLogger()
    before = list(root.handlers)
    with route_stdlib(records.logger), warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.getLogger("trio.serve_listeners").error("accept failed")
        logging.captureWarnings(capture=True)  # catch_warnings has put the old way back
        warnings.warn("something odd", RuntimeWarning, stacklevel=1)
    said, warned = records.fields
    assert (said["event"], said["logger"]) == ("accept failed", "trio.serve_listeners")
    assert (warned["logger"], warned["level"]) == ("py.warnings", "warning")
    assert "RuntimeWarning: something odd" in warned["event"]
    assert root.handlers == before
    logging.getLogger("trio.serve_listeners").error("afterwards")
    assert len(records.fields) == 2


def test_other_threads_may_speak(library: logging.Logger, records: Records) -> None:
    """A hash thread's message is recorded like any other."""
    threads = [threading.Thread(target=library.warning, args=(f"thread {n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted(records.texts()) == [f"thread {n}" for n in range(8)]
