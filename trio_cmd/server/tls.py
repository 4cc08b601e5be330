"""The ``[tls]`` of the settings enters, what handshakes need leaves; and who a certificate names."""

import os
import ssl
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from trio_cmd.errors import SettingsError
from trio_cmd.escape import quote
from trio_cmd.settings import Tls
from trio_cmd.wire.pem import check_certificates, explaining, refuse_to_ask

__all__ = ["ServerCertificate", "is_in_time", "peer_names", "read_certificate"]

# Who may write a file of the settings may choose who is let in.
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_OTHERS_READ = stat.S_IROTH
# Each takes up to a hundred kilobytes; and a new context takes a millisecond.
MAX_REMEMBERED_SESSIONS = 256
# A bundle of all authorities of the world has 250 KB.
MAX_FILE_BYTES = 1 << 22


class ServerCertificate:
    """What the server shows its clients, as the files were when they were read.

    OpenSSL remembers each session of TLS 1.2, with the chain of certificates its client sent, twenty
    thousand of them, and Python has no way to tell it not to.  So a context that remembers many is
    left to the connections that it has, and a new one is made of the same bytes.

    Args:
        files: paths; checked.

    Raises:
        ssl.SSLError, OSError, ValueError: the certificate and its key cannot be used.
    """

    def __init__(self, files: Tls) -> None:
        self._certificate, self._key = _read(files.certificate), _read(files.key)
        self._client_ca = _read(files.client_ca) if files.client_ca else b""
        self._context = self._make_context()

    def context(self) -> ssl.SSLContext:
        """Give what the next handshake needs."""
        if self._context.session_stats()["number"] >= MAX_REMEMBERED_SESSIONS:
            self._context = self._make_context()
        return self._context

    def _make_context(self) -> ssl.SSLContext:
        context = _empty_context()
        with _as_file(self._certificate) as certificate, _as_file(self._key) as key:
            context.load_cert_chain(certificate, key, password=refuse_to_ask)
        if self._client_ca:
            with _as_file(self._client_ca) as client_ca:
                context.load_verify_locations(client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context


def read_certificate(files: Tls) -> ServerCertificate | None:
    """Read the files.

    Args:
        files: paths; a certificate comes with a key.

    Returns:
        What the server shows its clients, or ``None``: there is no TLS.

    Raises:
        SettingsError: with a line for each fault.
    """
    if not files.certificate:
        return None
    faults: list[str] = []
    for name in filter(partial(getattr, files), ("certificate", "key", "client_ca")):
        _tell(faults, name, files, partial(_check_file, name, getattr(files, name)))
    if not faults:
        for name in filter(partial(getattr, files), ("certificate", "client_ca")):
            _tell(faults, name, files, partial(check_certificates, getattr(files, name)))
    if not faults:
        _tell(faults, "key", files, partial(ServerCertificate, files))
    if faults:
        raise SettingsError(faults)
    return ServerCertificate(files)


def peer_names(certificate: Mapping[str, Any]) -> frozenset[str]:
    """Name whom a verified certificate was given to.

    Args:
        certificate: as ``ssl`` spells it; empty: there is none.

    Returns:
        The DNS names and URIs of its subjectAltName; where there is neither, its common name if it
        has one and only one; else nothing.
    """
    alternatives = certificate.get("subjectAltName", ())
    names = frozenset(name for kind, name in alternatives if kind in ("DNS", "URI"))
    if names:
        return names
    parts = [part for group in certificate.get("subject", ()) for part in group]
    common = [text for kind, text in parts if kind == "commonName"]
    return frozenset(common) if len(common) == 1 else frozenset()


def is_in_time(certificate: Mapping[str, Any], now: float) -> bool:
    """Tell whether a certificate holds now.

    A resumed connection brings the certificate of the first one, which OpenSSL does not look at
    again (RFC 5077, 5.7).

    Args:
        certificate: as ``ssl`` spells it; empty: there is none, and nothing that could end.
        now: seconds since the epoch.
    """
    return not certificate or now <= ssl.cert_time_to_seconds(certificate["notAfter"])


def _tell(faults: list[str], name: str, files: Tls, check: Callable[[], object]) -> None:
    """Have a file checked, and add what is wrong with it."""
    what = "private key" if name == "key" else "certificate"
    try:
        with explaining(f"tls.{name}: {quote(getattr(files, name))}", what):
            check()
    except ValueError as error:
        faults.append(str(error))


def _check_file(name: str, path: str) -> None:
    """Look at a file before OpenSSL does, which would wait for a FIFO and says little.

    Raises:
        OSError: it cannot be read.
        ValueError: what is wrong with it, in one line.
    """
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        raise ValueError("not a regular file; name a file in PEM form")
    if name == "key" and mode & _OTHERS_READ:
        raise ValueError("others than its owner and group may read it; chmod o= it")
    if mode & _OTHERS_WRITE:
        raise ValueError("others than its owner may write it; chmod go-w it")
    with open(path, "rb"):
        pass  # it may be read


def _empty_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # A ticket would be sent to clients that never read.
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
    return context


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(MAX_FILE_BYTES)


@contextmanager
def _as_file(data: bytes) -> Iterator[str]:
    """Put bytes into a file in memory: OpenSSL takes only paths, and a key has no business on a disk."""
    if not hasattr(os, "memfd_create"):  # macOS: for a moment on the disk, for nobody else to read
        with tempfile.NamedTemporaryFile() as named:
            named.write(data)
            named.flush()
            yield named.name
        return
    with os.fdopen(os.memfd_create("tls", os.MFD_CLOEXEC), "wb") as file:
        file.write(data)
        file.flush()
        yield f"/proc/self/fd/{file.fileno()}"
