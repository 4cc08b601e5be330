"""Who asks, and whom to believe: paths of a token and of certificates enter, what connections need leaves."""

import os
import ssl
import stat

from trio_cmd.escape import quote
from trio_cmd.tokens import is_token
from trio_cmd.wire.pem import check_certificates, explaining, refuse_to_ask

__all__ = ["make_tls_context", "read_token"]

_MAX_TOKEN_FILE_BYTES = 4096
_OTHERS = stat.S_IRGRP | stat.S_IWGRP | stat.S_IROTH | stat.S_IWOTH
_OTHERS_READ = stat.S_IROTH


def read_token(path: str) -> str:
    """Read the token of a file that only its owner, who asks, may read and write.

    Raises:
        ValueError: it is not so, or no token; what to do, in one line.
    """
    head = f"--token-file: {quote(path)}"
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            data = file.read(_MAX_TOKEN_FILE_BYTES).strip()
    except OSError as error:
        raise ValueError(f"{head}: {error.strerror}; name a file that can be read") from None
    if status.st_uid != os.geteuid():
        raise ValueError(f"{head}: belongs to another user; make a copy of your own, with mode 600")
    if status.st_mode & _OTHERS:
        raise ValueError(f"{head}: others than its owner may read or write it; chmod 600 it")
    if not is_token(data):
        raise ValueError(f"{head}: expected one token and nothing else, as trio-cmd token NAME prints it")
    return data.decode()


def make_tls_context(ca: str | None, certificate: str | None, key: str | None) -> ssl.SSLContext:
    """Make what handshakes need.

    Args:
        ca: a file of certificates; ``None``: the authorities this system trusts.
        certificate: a file, who asks; ``None``: nobody in particular.
        key: its key; ``None``: in the same file.

    Raises:
        ValueError: what is wrong with a file, and what to do, in one line.
    """
    if key is not None and certificate is None:
        raise ValueError("--key: belongs to a certificate; name that as well: --cert FILE")
    for flag, path in (("--ca", ca), ("--cert", certificate), ("--key", key)):
        if path is not None:
            with explaining(_head(flag, path)):
                _check_file(path, is_key=path == (key or certificate))
    with explaining(_head("--ca", ca or "")):
        # What the system trusts is not read when it is not asked for: it takes 30 ms.
        context = ssl.create_default_context(cafile=ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Python 3.11.2, Debian 12's own, would take a cut answer for a whole one.
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
    if certificate is not None:
        _show(context, certificate, key)
    return context


def _show(context: ssl.SSLContext, certificate: str, key: str | None) -> None:
    """Have handshakes show a certificate."""
    with explaining(_head("--cert", certificate)):
        check_certificates(certificate)
    with explaining(_head("--key" if key else "--cert", key or certificate), "private key"):
        context.load_cert_chain(certificate, key, password=refuse_to_ask)


def _head(flag: str, path: str) -> str:
    return f"{flag}: {quote(path)}"


def _check_file(path: str, *, is_key: bool) -> None:
    """Look at a file before OpenSSL does, which says little.

    Raises:
        OSError: it cannot be read.
        ValueError: what is wrong with it.
    """
    with open(path, "rb") as file:
        if is_key and os.fstat(file.fileno()).st_mode & _OTHERS_READ:
            raise ValueError("others than its owner and group may read the key; chmod o= it")
