"""Certificates for the tests, made as the tests run: good ones, and each kind of bad one."""

import datetime as dt
import ssl
from pathlib import Path

import trustme

NOW = dt.datetime.now(dt.UTC)
DAY = dt.timedelta(days=1)


class Certificates:
    """Two authorities, of which the server trusts one, and what they have signed; as files in PEM form.

    Args:
        folder: where they are written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ca, self._other_ca = trustme.CA(), trustme.CA()
        self.ca = self._write("ca.pem", self._ca.cert_pem.bytes())
        server = self._ca.issue_cert("localhost", "127.0.0.1")
        self.server_certificate = self._write("server.pem", server.cert_chain_pems[0].bytes())
        self.server_key = self._write("server.key", server.private_key_pem.bytes())
        # Each in one file with its key, as the clients' programs like it.
        self.client = self.issue("client", "client.lab")
        self.other = self.issue("other", "client.lab", ca=self._other_ca)
        self.expired = self.issue("expired", "client.lab", not_before=NOW - 2 * DAY, not_after=NOW - DAY)
        self.not_yet_valid = self.issue("early", "client.lab", not_before=NOW + DAY)

    def issue(
        self,
        name: str,
        *identities: str,
        common_name: str | None = None,
        ca: trustme.CA | None = None,
        not_before: dt.datetime | None = None,
        not_after: dt.datetime | None = None,
    ) -> str:
        """Sign a client's certificate; returns the path of it and its key, in one file."""
        signed = (ca or self._ca).issue_cert(
            *identities, common_name=common_name, not_before=not_before, not_after=not_after
        )
        return self._write(f"{name}.pem", signed.private_key_and_cert_chain_pem.bytes())

    def settings(self, *, client_ca: bool = False) -> str:
        """Spell the table of the settings."""
        lines = [f'certificate = "{self.server_certificate}"', f'key = "{self.server_key}"']
        return "\n".join(["[tls]", *lines, f'client_ca = "{self.ca}"' if client_ca else "", ""])

    def client_context(
        self, certificate: str = "", *, version: ssl.TLSVersion | None = None
    ) -> ssl.SSLContext:
        """Make what a client of Python needs, with a certificate or without, for one version or any."""
        context = ssl.create_default_context(cafile=self.ca)
        # Python 3.11.2, Debian 12's own, would take a cut answer for a whole one.
        context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
        if certificate:
            context.load_cert_chain(certificate)
        if version is not None:
            context.minimum_version = context.maximum_version = version
        return context

    def _write(self, name: str, data: bytes, mode: int = 0o600) -> str:
        path = self._folder / name
        path.write_bytes(data)
        path.chmod(mode)
        return str(path)
