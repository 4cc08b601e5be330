"""Scrapes enter over HTTP, the body of the metrics leaves; nothing else is served.

A responder of our own, of the little HTTP that a scrape needs: it lives in the server's nursery
and stops with it, and its clients take nothing from those of the conversation.
"""

from collections.abc import Callable
from functools import partial

import trio

from trio_cmd.addresses import Address, parse_address, show_site
from trio_cmd.errors import ListenError
from trio_cmd.records import EventLogger, events
from trio_cmd.records.events import record_fault
from trio_cmd.server.flooding import Flooding
from trio_cmd.server.listeners import explain
from trio_cmd.settings import Metrics
from trio_cmd.wire.closing import linger
from trio_cmd.wire.messages import NOTICES
from trio_cmd.wire.stream import ClientStream, SocketStream

__all__ = ["MetricsServer", "format_answer", "judge_request"]

SYSTEM = "trio_cmd.Metrics"
PATH = "/metrics"
# Prometheus and its twin, and two people with curl.
MAX_SCRAPES = 4
SECONDS_PER_SCRAPE = 5.0
# What a browser sends is below it; servers in use allow the same.
MAX_HEAD_BYTES = 8192
# Whoever has its answer has nothing else to send.
LINGER_SECONDS = 0.5
# At once; whoever comes on top is told as well, but a reset may be faster than the words.
LINGERING_REFUSALS = 16

# Version 0.0.4 of the text format, which is what the library writes.
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_REASONS = {
    200: "OK",
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    503: "Service Unavailable",
}


class MetricsServer:
    """Answers scrapes.

    Args:
        settings: where.
        may_scrape: tells whether an address may, by the grants in force.
        render: makes the body of the answer, in Prometheus' text format.
        log: records where it listens, and who is refused.
    """

    def __init__(
        self,
        settings: Metrics,
        may_scrape: Callable[[Address], bool],
        render: Callable[[], bytes],
        log: EventLogger,
    ) -> None:
        self._settings = settings
        self._may_scrape = may_scrape
        self._render = render
        self._log = log.bind(system=SYSTEM)
        self._flooding = Flooding(self._log)
        self._places = trio.CapacityLimiter(MAX_SCRAPES)
        self._lingering = trio.CapacityLimiter(LINGERING_REFUSALS)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen and answer until cancelled; started when it listens.

        Raises:
            ListenError: the address cannot be listened on.

        Cancel: scrapes are cut; of what was refused the sums are recorded.
        """
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._flooding.run)
                for listener in await self._listen(nursery):
                    host, port = listener.socket.getsockname()[:2]
                    self._log.record(events.LISTENING, host=host, port=port, where=f"{port}{PATH}")
                task_status.started()
        finally:
            self._flooding.close()

    async def _listen(self, nursery: trio.Nursery) -> list[trio.SocketListener]:
        """Listen on each address of the host.

        Raises:
            ListenError: one of them cannot be listened on.
        """
        host, port = self._settings.host, self._settings.port
        serve = partial(trio.serve_tcp, self._handle, port, host=None if host == "*" else host)
        try:
            opened: list[trio.SocketListener] = await nursery.start(serve)
        except OSError as error:
            raise ListenError(explain(error, host, port, "metrics.host", "metrics.port")) from error
        return opened

    async def _handle(self, socket_stream: trio.SocketStream) -> None:
        """Answer one connection.

        Cancel: it is closed.
        """
        try:
            async with SocketStream(socket_stream) as stream:
                with trio.move_on_after(SECONDS_PER_SCRAPE):
                    await self._receive(stream, socket_stream.socket.getpeername()[0])
        except* (OSError, trio.BrokenResourceError):  # it is gone
            pass
        except* Exception as errors:  # a fault of ours costs one scrape
            record_fault(self._log, errors)

    async def _receive(self, stream: ClientStream, host: str) -> None:
        """Answer who may scrape and finds a place, refuse all others aloud."""
        address = parse_address(host)
        if not self._may_scrape(address):
            notice = NOTICES["not-allowed"].format(address=address)
            self._record_refusal(address, notice)
            await self._refuse(stream, 403, notice)
            return
        try:
            self._places.acquire_on_behalf_of_nowait(stream)
        except trio.WouldBlock:
            await self._refuse(stream, 503, NOTICES["too-many-clients"])
            return
        try:
            await self._serve(stream)
        finally:
            self._places.release_on_behalf_of(stream)

    async def _serve(self, stream: ClientStream) -> None:
        """Read a request and answer it; whoever sends nothing gets nothing."""
        if not (head := await _receive_head(stream)):
            return
        status = judge_request(head)
        if status == 200:
            answer = format_answer(200, self._render(), CONTENT_TYPE)
        else:
            answer = format_answer(status, b"" if head.startswith(b"HEAD ") else _explain(status))
        await stream.send_all(answer)
        await linger(stream, LINGER_SECONDS)

    async def _refuse(self, stream: ClientStream, status: int, notice: str) -> None:
        """Say why there is no answer; the request is taken, else the close would become a reset."""
        stream.send_nowait(format_answer(status, notice.encode() + b"\n"))
        try:
            self._lingering.acquire_on_behalf_of_nowait(stream)
        except trio.WouldBlock:
            await trio.lowlevel.checkpoint()
            return
        try:
            with trio.move_on_after(LINGER_SECONDS):
                await _receive_head(stream)
            await linger(stream, LINGER_SECONDS)
        finally:
            self._lingering.release_on_behalf_of(stream)

    def _record_refusal(self, address: Address, notice: str) -> None:
        if self._flooding.is_recorded(events.CLIENT_REFUSED, show_site(address)):
            log = self._log.bind(client=str(address))
            log.record(events.CLIENT_REFUSED, reason="not-allowed", notice=notice)


def judge_request(head: bytes) -> int:
    """Find the status of the answer to a request.

    Args:
        head: what was read of it; anything at all.

    Returns:
        200 for a GET of the metrics, else what is wrong: 400 with its form, 404 or 405.
    """
    words = head.split(b"\n", 1)[0].removesuffix(b"\r").split(b" ")
    if not _is_whole(head) or len(words) != 3 or words[2] not in (b"HTTP/1.1", b"HTTP/1.0"):
        return 400
    if words[1].partition(b"?")[0] != PATH.encode():
        return 404
    return 200 if words[0] == b"GET" else 405


def format_answer(status: int, body: bytes, content_type: str = "text/plain; charset=utf-8") -> bytes:
    """Write an answer after which the connection is closed."""
    lines = [
        f"HTTP/1.1 {status} {_REASONS[status]}",
        f"Content-Type: {content_type}",
        f"Content-Length: {len(body)}",
        "Connection: close",
        *(["Allow: GET"] if status == 405 else []),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def _receive_head(stream: ClientStream) -> bytes:
    """Read up to the empty line that ends the head of a request, its end of input, or too much."""
    head = b""
    while not _is_whole(head) and len(head) < MAX_HEAD_BYTES:
        data = await stream.receive_some(MAX_HEAD_BYTES - len(head))
        if not data:
            break
        head += data
    return head


def _is_whole(head: bytes) -> bool:
    return b"\n\r\n" in head or b"\n\n" in head


def _explain(status: int) -> bytes:
    return f"{_REASONS[status]}; this is for Prometheus: GET {PATH}\n".encode()
