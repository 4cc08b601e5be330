"""Where a host is enters, a connected stream leaves: TCP or a unix socket, TCP also sealed by TLS.

What can go wrong on the way is said in one line, with what helps.
"""

import contextlib
import errno
import os
import socket
import ssl
import struct
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import trio

from trio_cmd.client.errors import AskError, TlsFailed, Unreachable
from trio_cmd.client.hosts import Host
from trio_cmd.wire.socket_options import set_socket_options

__all__ = ["explain_tls", "open_stream", "reset_when_closed", "within"]

# A host that does not answer on one address is tried on the next meanwhile (RFC 8305, 5).
NEXT_ADDRESS_SECONDS = 0.25
# A name that hangs holds a thread until the resolver gives up, long after its host was given up: so
# there are many more than hosts are asked at once, and they are none of those that others use.
RESOLVING_THREADS = 256
_RESET = struct.pack("ii", 1, 0)  # struct linger: close without waiting for anything
# How long the kernel sends again what nobody confirms; an answer's deadline comes first.
UNCONFIRMED_SECONDS = 60

_RESOLVING: trio.lowlevel.RunVar[trio.CapacityLimiter] = trio.lowlevel.RunVar("resolving")

Target = tuple[Any, ...]  # of getaddrinfo: family, type, protocol, name, address

# What OpenSSL's verdict on a certificate (x509_vfy.h) asks for.
_REMEDIES = {
    **dict.fromkeys((2, 18, 19, 20, 21), "name its authority by --ca"),
    **dict.fromkeys((62, 64), "ask for the host by a name in its certificate"),
    **dict.fromkeys((9, 10), "it must be renewed there, or a clock is wrong"),
}
_SILENT = "it ended the handshake without a word; if it does not speak TLS, ask without --tls"
_MEANINGS = {
    errno.ECONNREFUSED: "nobody listens there",
    errno.ENOENT: "there is no such socket",
    errno.EACCES: "this user may not",
}
# How OpenSSL calls what is no TLS at all.
_NO_TLS = ("WRONG_VERSION_NUMBER", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE", "HTTP_REQUEST")
_CERTIFICATE_ALERTS = ("CERTIFICATE", "UNKNOWN_CA", "ACCESS_DENIED", "HANDSHAKE_FAILURE")


@contextlib.contextmanager
def within(deadline: float, error: AskError) -> Iterator[None]:
    """Bound the block by a point in time on Trio's clock.

    Raises:
        AskError: the one given, when the time has passed.
    """
    with trio.move_on_at(deadline) as scope:
        yield
    if scope.cancelled_caught:
        raise error


async def open_stream(host: Host, tls: ssl.SSLContext | None, deadline: float) -> trio.abc.Stream:
    """Connect.

    Args:
        host: where to.
        tls: how to seal it; a unix socket is never sealed.
        deadline: on Trio's clock, for all of it.

    Raises:
        Unreachable: there is no such name, or nobody takes the connection.
        TlsFailed: somebody does, but there is no TLS with them.

    Cancel: nothing is left but a thread, as long as the resolver hangs.
    """
    if host.port is None:
        with within(deadline, Unreachable("nobody took the connection in time")):
            return await _connect_unix(host.address)
    with within(deadline, Unreachable("the name was not resolved in time")):
        targets = await _resolve(host.address, host.port)
    with within(deadline, Unreachable("no connection in time")):
        stream = await _connect_first(targets)
    return stream if tls is None else await _seal(stream, tls, host.address, deadline)


def explain_tls(error: BaseException) -> TlsFailed | None:
    """Say what TLS has against the other end; ``None``: the error is not one of TLS.

    Args:
        error: what a stream raised, or its cause.
    """
    cause = error.__cause__ if isinstance(error, trio.BrokenResourceError) else error
    if isinstance(cause, ssl.SSLCertVerificationError):
        remedy = _REMEDIES.get(cause.verify_code, "")
        verdict = cause.verify_message.rstrip(".")
        return TlsFailed(f"its certificate is not good: {verdict}" + (remedy and f"; {remedy}"))
    if not isinstance(cause, ssl.SSLError) or isinstance(cause, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return None
    reason = cause.reason or "unknown"
    words = reason.lower().replace("_", " ")
    if reason in _NO_TLS:
        return TlsFailed(f"it does not speak TLS ({words}); ask without --tls")
    if any(word in reason for word in _CERTIFICATE_ALERTS):
        return TlsFailed(f"it takes only certificates it knows ({words}); show one by --cert and --key")
    return TlsFailed(f"there is no TLS that both speak ({words})")


def reset_when_closed(stream: trio.abc.Stream) -> None:
    """Let the other end see at once that nobody waits any more: an end of input does not say that."""
    inner = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
    if isinstance(inner, trio.SocketStream):
        with contextlib.suppress(OSError):  # it is closed already
            inner.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


async def _connect_unix(path: str) -> trio.SocketStream:
    try:
        return await trio.open_unix_socket(path)
    except (OSError, ValueError) as error:
        raise Unreachable(_explain(error)) from error


async def _resolve(name: str, port: int) -> Sequence[Target]:
    """Find the addresses of a name, in the order the system prefers."""
    look_up = partial(socket.getaddrinfo, name, port, type=socket.SOCK_STREAM)
    with contextlib.suppress(OSError, ValueError):
        return look_up(flags=socket.AI_NUMERICHOST)  # an address: nobody need be asked
    try:
        return await trio.to_thread.run_sync(look_up, abandon_on_cancel=True, limiter=_limiter())
    except (OSError, ValueError) as error:
        raise Unreachable(_explain_name(error)) from error


def _limiter() -> trio.CapacityLimiter:
    try:
        return _RESOLVING.get()
    except LookupError:
        limiter = trio.CapacityLimiter(RESOLVING_THREADS)
        _RESOLVING.set(limiter)
        return limiter


async def _connect_first(targets: Sequence[Target]) -> trio.SocketStream:
    """Connect to the first address that answers.

    Cancel: nothing is left.
    """
    faults: list[str] = []
    if len(targets) == 1:
        stream = await _connect(targets[0], faults)
    else:
        stream = await _race(targets, faults)
    if stream is None:
        raise Unreachable("; ".join(dict.fromkeys(faults)))
    return stream


async def _race(targets: Sequence[Target], faults: list[str]) -> trio.SocketStream | None:
    """Try one address after the other, the next one when one fails or takes long."""
    connected: list[trio.SocketStream] = []

    async def run(target: Target, failed: trio.Event) -> None:
        stream = await _connect(target, faults)
        if stream is None:
            failed.set()
        else:
            connected.append(stream)
            nursery.cancel_scope.cancel()

    try:
        async with trio.open_nursery() as nursery:
            for target in targets:
                failed = trio.Event()
                nursery.start_soon(run, target, failed)
                with trio.move_on_after(NEXT_ADDRESS_SECONDS):
                    await failed.wait()
        return connected.pop() if connected else None
    finally:
        for stream in connected:  # two at once, or one at the end of all time
            stream.socket.close()


async def _connect(target: Target, faults: list[str]) -> trio.SocketStream | None:
    """Connect to one address; ``None``: the fault has been noted."""
    family, kind, protocol, _, address = target
    try:
        with contextlib.ExitStack() as stack:
            sock = stack.enter_context(trio.socket.socket(family, kind, protocol))
            await sock.connect(address)
            set_socket_options(sock, UNCONFIRMED_SECONDS)
            stack.pop_all()
            return trio.SocketStream(sock)
    except OSError as error:
        faults.append(_explain(error))
        return None


async def _seal(
    stream: trio.SocketStream, tls: ssl.SSLContext, name: str, deadline: float
) -> trio.abc.Stream:
    """Agree on keys, and see that the host is who it should be.

    Cancel: the connection is closed.
    """
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(trio.aclose_forcefully, stream)
        try:
            # In a certificate a zone is no part of an address, nor a last dot one of a name.
            sealed = trio.SSLStream(stream, tls, server_hostname=name.partition("%")[0].rstrip("."))
            with within(deadline, TlsFailed("TLS was not agreed on in time")):
                await sealed.do_handshake()
        except trio.BrokenResourceError as error:
            raise explain_tls(error) or TlsFailed(_SILENT) from error
        except ValueError as error:
            raise TlsFailed("no certificate can have such a name") from error
        stack.pop_all()
    return sealed


def _explain_name(error: OSError | ValueError) -> str:
    """Say why a name has no address: only some of the reasons are the name's."""
    if isinstance(error, socket.gaierror) and error.errno in (socket.EAI_AGAIN, socket.EAI_FAIL):
        return f"the name servers do not answer: {_explain(error)}; try again, or give the address"
    return f"no host has this name: {_explain(error)}"


def _explain(error: OSError | ValueError) -> str:
    """Say an error of the system without its numbers, and what it means here."""
    if not isinstance(error, OSError):
        return "it cannot be one"
    number = error.errno or 0
    words = os.strerror(number) if number > 0 else str(error.strerror or error)
    meaning = _MEANINGS.get(number)
    return words if meaning is None else f"{meaning} ({words})"
