"""Files in PEM form: what OpenSSL finds wrong with them enters, one line that says what to do leaves."""

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

from trio_cmd.escape import escape

__all__ = ["check_certificates", "explaining", "refuse_to_ask"]


@contextmanager
def explaining(head: str, what: str = "certificate") -> Iterator[None]:
    """Say of which file an error is, and what to do.

    Args:
        head: which file, safe to show; it stands before the line.
        what: what is looked for in it.

    Raises:
        ValueError: in place of what was raised, an ``ssl.SSLError``, ``OSError`` or ``ValueError``.
    """
    try:
        yield
    except ssl.SSLError as error:
        reason = _explain(error, what)
    except OSError as error:
        reason = f"{os.strerror(error.errno or 0)}; name a file in PEM form that can be read"
    except ValueError as error:
        reason = str(error)
    else:
        return
    raise ValueError(f"{head}: {reason}")


def check_certificates(path: str) -> None:
    """Read the certificates of a file into nowhere: an error of both files says not of which it is.

    Raises:
        ssl.SSLError: there are none.
    """
    ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)


def refuse_to_ask() -> str:
    """Keep OpenSSL from asking for the password of a key on the terminal.

    Raises:
        ValueError: always.
    """
    raise ValueError("the key is encrypted, and nobody is asked; give one that is not")


def _explain(error: ssl.SSLError, what: str) -> str:
    if error.reason == "KEY_VALUES_MISMATCH":
        return "not the key of the certificate; name the two that belong together"
    if error.reason in (None, "NO_CERTIFICATE_OR_CRL_FOUND"):
        return f"no {what} in it; name a file in PEM form"
    return f"OpenSSL refuses it: {escape(error.reason.lower().replace('_', ' '))}; make another one"
