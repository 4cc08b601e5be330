"""The files of ``[tls]``: each fault is told in one line, before the first client comes."""

import subprocess
from pathlib import Path

import pytest
from msgspec.structs import replace

from certificates import Certificates
from trio_cmd.errors import SettingsError
from trio_cmd.server.tls import is_in_time, peer_names, read_certificate
from trio_cmd.settings import Tls


def faults(files: Tls) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        read_certificate(files)
    return caught.value.faults


@pytest.fixture
def good(certificates: Certificates) -> Tls:
    """What works."""
    return Tls(
        certificate=certificates.server_certificate, key=certificates.server_key, client_ca=certificates.ca
    )


@pytest.fixture
def junk(tmp_path: Path) -> str:
    """A file that is not in PEM form."""
    path = tmp_path / "junk"
    path.write_text("junk\n")
    path.chmod(0o600)
    return str(path)


def test_without_files_there_is_no_tls() -> None:
    """TLS is for those who ask for it."""
    assert read_certificate(Tls()) is None


def test_good_files_are_good(good: Tls) -> None:
    """With and without clients that must be known."""
    assert read_certificate(good) is not None
    assert read_certificate(replace(good, client_ca="")) is not None


def test_all_missing_files_are_told_at_once(tmp_path: Path) -> None:
    """One start tells all there is to mend."""
    missing = "No such file or directory; name a file in PEM form that can be read"
    assert faults(Tls(**{name: str(tmp_path / name) for name in ("certificate", "key", "client_ca")})) == [
        f"tls.certificate: '{tmp_path}/certificate': {missing}",
        f"tls.key: '{tmp_path}/key': {missing}",
        f"tls.client_ca: '{tmp_path}/client_ca': {missing}",
    ]


@pytest.mark.parametrize("name", ["certificate", "key", "client_ca"])
def test_a_folder_or_a_fifo_is_refused_and_not_waited_for(good: Tls, tmp_path: Path, name: str) -> None:
    """A start that hangs says nothing."""
    assert faults(replace(good, **{name: str(tmp_path)})) == [
        f"tls.{name}: '{tmp_path}': not a regular file; name a file in PEM form"
    ]


@pytest.mark.parametrize(
    ("name", "what"),
    [("certificate", "certificate"), ("key", "private key"), ("client_ca", "certificate")],
)
def test_a_file_without_what_it_is_for_is_refused(good: Tls, junk: str, name: str, what: str) -> None:
    """A slip in the path is found at the start."""
    assert faults(replace(good, **{name: junk})) == [
        f"tls.{name}: '{junk}': no {what} in it; name a file in PEM form"
    ]


def test_a_key_of_another_certificate_is_refused(good: Tls, certificates: Certificates) -> None:
    """A half-renewed pair is found at the start, not by the first client."""
    good = replace(good, key=certificates.client)
    reason = "not the key of the certificate; name the two that belong together"
    assert faults(good) == [f"tls.key: '{certificates.client}': {reason}"]


@pytest.mark.needs("openssl")
def test_an_encrypted_key_is_refused_without_asking(good: Tls, tmp_path: Path) -> None:
    """A server that starts at boot has nobody who could type a password."""
    encrypted = tmp_path / "encrypted.key"
    encrypt = f"openssl pkey -in {good.key} -aes256 -passout pass:secret -out {encrypted}"
    subprocess.run(["bash", "-c", encrypt], check=True, capture_output=True)
    encrypted.chmod(0o600)
    reason = "the key is encrypted, and nobody is asked; give one that is not"
    assert faults(replace(good, key=str(encrypted))) == [f"tls.key: '{encrypted}': {reason}"]


@pytest.mark.needs("openssl")
def test_what_openssl_refuses_is_told_in_its_words(tmp_path: Path) -> None:
    """A key that is too small protects nobody."""
    key, certificate = tmp_path / "weak.key", tmp_path / "weak.pem"
    make = f"openssl req -x509 -newkey rsa:512 -nodes -subj /CN=weak -keyout {key} -out {certificate}"
    subprocess.run(["bash", "-c", make], check=True, capture_output=True)
    key.chmod(0o600)
    assert faults(Tls(certificate=str(certificate), key=str(key))) == [
        f"tls.key: '{key}': OpenSSL refuses it: ee key too small; make another one"
    ]


@pytest.mark.parametrize(
    ("mode", "is_good"),
    [
        pytest.param(0o600, True, id="the owner's"),
        pytest.param(0o640, True, id="the group may read it"),
        pytest.param(0o644, False, id="everybody may read it"),
        pytest.param(0o660, False, id="the group may write it"),
    ],
)
def test_a_key_is_not_for_everybody(good: Tls, tmp_path: Path, mode: int, is_good: bool) -> None:
    """Whoever has read the key is the server."""
    key = tmp_path / "server.key"
    key.write_bytes(Path(good.key).read_bytes())
    key.chmod(mode)
    good = replace(good, key=str(key))
    if is_good:
        assert read_certificate(good)
    else:
        (fault,) = faults(good)
        assert fault.startswith(f"tls.key: '{key}': others than its owner")
        assert "; chmod " in fault


@pytest.mark.parametrize("name", ["certificate", "client_ca"])
def test_what_others_may_write_is_refused(good: Tls, tmp_path: Path, name: str) -> None:
    """Whoever may add an authority lets in whom he likes."""
    path = tmp_path / "writable.pem"
    path.write_bytes(Path(getattr(good, name)).read_bytes())
    path.chmod(0o666)
    good = replace(good, **{name: str(path)})
    reason = "others than its owner may write it; chmod go-w it"
    assert faults(good) == [f"tls.{name}: '{path}': {reason}"]


@pytest.mark.parametrize(
    ("alternatives", "common", "names"),
    [
        pytest.param([("DNS", "a.lab")], [], {"a.lab"}, id="a DNS name"),
        pytest.param([("DNS", "a.lab"), ("URI", "spiffe://lab/a")], [], {"a.lab", "spiffe://lab/a"}),
        pytest.param([("DNS", "a.lab")], ["root.lab"], {"a.lab"}, id="a common name beside a DNS name"),
        pytest.param([], ["a.lab"], {"a.lab"}, id="only a common name"),
        pytest.param([("email", "a@lab"), ("IP Address", "10.0.0.1")], ["a.lab"], {"a.lab"}),
        pytest.param([], ["a.lab", "b.lab"], set(), id="two common names"),
        pytest.param([("email", "a@lab")], [], set(), id="no name of ours"),
    ],
)
def test_a_certificate_names(alternatives: list[tuple[str, str]], common: list[str], names: set[str]) -> None:
    """A grant for a name holds for exactly the certificates that were given to it."""
    subject = [(("organizationName", "lab"),), *(((("commonName", name)),) for name in common)]
    certificate = {"subject": subject}
    if alternatives:
        certificate["subjectAltName"] = alternatives  # type: ignore[assignment]  # as ssl spells it
    assert peer_names(certificate) == names


def test_no_certificate_names_nobody() -> None:
    """A client that was not asked for one has none."""
    assert peer_names({}) == frozenset()


def test_a_certificate_is_in_time_until_its_last_second() -> None:
    """OpenSSL looks at it only once, and a connection can be resumed later."""
    certificate = {"notAfter": "Nov 20 12:00:00 2026 GMT"}
    assert is_in_time(certificate, 1795176000)
    assert not is_in_time(certificate, 1795176001)
    assert is_in_time({}, 1795176001)
