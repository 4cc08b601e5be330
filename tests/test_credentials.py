"""Who asks, and whom to believe: the files of it; each fault is told before the first host is asked."""

import os
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from certificates import Certificates
from trio_cmd.client.credentials import make_tls_context, read_token
from trio_cmd.tokens import make_token

WriteToken = Callable[..., str]
UNREADABLE = "No such file or directory; name a file in PEM form that can be read"
NO_TOKEN = "expected one token and nothing else, as trio-cmd token NAME prints it"


@pytest.fixture
def write(tmp_path: Path) -> WriteToken:
    """Write a file with a mode; returns its path."""

    def write_file(text: str, mode: int = 0o600) -> str:
        path = tmp_path / "file"
        path.write_text(text)
        path.chmod(mode)
        return str(path)

    return write_file


def token_complaint(path: str) -> str:
    with pytest.raises(ValueError, match=r"\A.+\Z") as caught:
        read_token(path)
    return str(caught.value).removeprefix(f"--token-file: '{path}': ")


def tls_complaint(ca: str | None = None, certificate: str | None = None, key: str | None = None) -> str:
    with pytest.raises(ValueError, match=r"\A.+\Z") as caught:
        make_tls_context(ca, certificate, key)
    return str(caught.value)


# The token


@pytest.mark.parametrize("mode", [0o600, 0o400])
@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_token_is_read(write: WriteToken, mode: int, end: str) -> None:
    """Whatever an editor puts at the end of a file."""
    token = make_token()
    assert read_token(write(token + end, mode)) == token


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o644, 0o666])
def test_a_token_that_others_can_read_or_change_is_refused(write: WriteToken, mode: int) -> None:
    """A token that others may know is told while it can still be replaced."""
    expected = "others than its owner may read or write it; chmod 600 it"
    assert token_complaint(write(make_token(), mode)) == expected


def test_a_token_of_another_user_is_refused(write: WriteToken, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who owns a file decides what is in it, and who can read it."""
    path = write(make_token())
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert token_complaint(path) == "belongs to another user; make a copy of your own, with mode 600"


@pytest.mark.parametrize(
    "change",
    [
        lambda token: "",
        lambda token: token[:-1],
        lambda token: token + "x",
        lambda token: f"{token}\n{token}",
        lambda token: f"auth {token}",
        lambda token: f"{token}\n\n[[grants]]\nname = 'me'\n",
        lambda token: 5000 * "x",
    ],
)
def test_what_is_no_token_is_refused_and_not_shown(write: WriteToken, change: Callable[[str], str]) -> None:
    """The wrong file is found here, and nothing of it is said to hosts or to a screen."""
    assert token_complaint(write(change(make_token()))) == NO_TOKEN


def test_a_token_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    """Whatever was named."""
    assert token_complaint(f"{tmp_path}/no") == "No such file or directory; name a file that can be read"
    assert token_complaint(str(tmp_path)) == "Is a directory; name a file that can be read"


# TLS


def test_without_files_the_system_says_whom_to_believe() -> None:
    """A host with a certificate of a public authority needs nothing."""
    context = make_tls_context(None, None, None)
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert not context.options & ssl.OP_IGNORE_UNEXPECTED_EOF


def test_an_authority_of_ones_own_is_believed_alone(certificates: Certificates) -> None:
    """Whoever names it means no other."""
    context = make_tls_context(certificates.ca, None, None)
    assert len(context.get_ca_certs()) == 1
    assert context.check_hostname


def test_a_certificate_comes_with_its_key_or_has_it_in_its_file(certificates: Certificates) -> None:
    """Both are usual."""
    make_tls_context(None, certificates.client, None)
    make_tls_context(None, certificates.server_certificate, certificates.server_key)


def test_what_is_made_shakes_hands(certificates: Certificates) -> None:
    """A server that wants a certificate of its clients gets it, and is known by its own."""
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certificates.ca)
    server.load_cert_chain(certificates.server_certificate, certificates.server_key)
    server.verify_mode = ssl.CERT_REQUIRED
    client = make_tls_context(certificates.ca, certificates.client, None)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(to_client, to_server, server_hostname="localhost"),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    names = ends[1].getpeercert()
    assert names is not None
    assert names["subjectAltName"] == (("DNS", "client.lab"),)


@pytest.mark.parametrize("flag", ["--ca", "--cert", "--key"])
def test_a_file_that_is_not_there_is_told_with_its_flag(
    flag: str, tmp_path: Path, certificates: Certificates
) -> None:
    """The system's word for it does not say which of three files it means."""
    paths = {
        "--ca": certificates.ca,
        "--cert": certificates.server_certificate,
        "--key": certificates.server_key,
    }
    paths[flag] = f"{tmp_path}/no"
    assert tls_complaint(*paths.values()) == f"{flag}: '{tmp_path}/no': {UNREADABLE}"


@pytest.mark.parametrize(
    ("flag", "what"), [("--ca", "certificate"), ("--cert", "certificate"), ("--key", "private key")]
)
@pytest.mark.parametrize("text", ["", "junk\n"])
def test_a_file_without_what_it_is_for_is_refused(
    flag: str, what: str, text: str, write: WriteToken, certificates: Certificates
) -> None:
    """A slip in the path is found here, not by a thousand handshakes."""
    paths = {
        "--ca": certificates.ca,
        "--cert": certificates.server_certificate,
        "--key": certificates.server_key,
    }
    paths[flag] = write(text)
    assert (
        tls_complaint(*paths.values()) == f"{flag}: '{paths[flag]}': no {what} in it; name a file in PEM form"
    )


@pytest.mark.needs("openssl")
def test_what_openssl_refuses_is_told_in_its_words(tmp_path: Path) -> None:
    """A key that is too small protects nobody."""
    key, certificate = str(tmp_path / "weak.key"), str(tmp_path / "weak.pem")
    make = ["openssl", "req", "-x509", "-newkey", "rsa:512", "-nodes", "-subj", "/CN=weak"]
    subprocess.run([*make, "-keyout", key, "-out", certificate], check=True, capture_output=True, timeout=30)
    assert tls_complaint(None, certificate, key) == (
        f"--key: '{key}': OpenSSL refuses it: ee key too small; make another one"
    )


def test_a_certificate_without_its_key_is_refused(certificates: Certificates) -> None:
    """Nobody could believe it."""
    path = certificates.server_certificate
    assert (
        tls_complaint(certificate=path) == f"--cert: '{path}': no private key in it; name a file in PEM form"
    )


def test_a_key_of_another_certificate_is_refused(certificates: Certificates) -> None:
    """A half-renewed pair is found here."""
    expected = "not the key of the certificate; name the two that belong together"
    assert tls_complaint(None, certificates.server_certificate, certificates.client) == (
        f"--key: '{certificates.client}': {expected}"
    )


def test_a_key_alone_is_refused(certificates: Certificates) -> None:
    """It says who nobody is."""
    expected = "--key: belongs to a certificate; name that as well: --cert FILE"
    assert tls_complaint(key=certificates.server_key) == expected


def test_a_key_that_everybody_can_read_is_refused(certificates: Certificates, write: WriteToken) -> None:
    """In a file of its own, and in that of its certificate."""
    path = write(Path(certificates.client).read_text(), 0o644)
    expected = f"'{path}': others than its owner and group may read the key; chmod o= it"
    assert tls_complaint(certificate=path) == f"--cert: {expected}"
    assert tls_complaint(None, certificates.client, path) == f"--key: {expected}"
    make_tls_context(path, None, None)  # what is believed is no secret


@pytest.mark.needs("openssl")
def test_an_encrypted_key_is_refused_and_nobody_is_asked(certificates: Certificates, tmp_path: Path) -> None:
    """A script does not hang at a question for a password."""
    path = str(tmp_path / "encrypted.key")
    argv = [
        "openssl",
        "pkey",
        "-in",
        certificates.server_key,
        "-out",
        path,
        "-aes256",
        "-passout",
        "pass:secret",
    ]
    subprocess.run(argv, check=True, capture_output=True, timeout=30)
    assert tls_complaint(None, certificates.server_certificate, path) == (
        f"--key: '{path}': the key is encrypted, and nobody is asked; give one that is not"
    )
