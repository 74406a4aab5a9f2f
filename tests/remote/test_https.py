"""INPUT from a web server over TLS: whole tars in one request, gone on with by ranges where the connection breaks."""

import datetime
import http.server
import ssl
import threading
from collections.abc import Iterator
from functools import partial
from ipaddress import ip_address
from pathlib import Path

import fsspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from schemas.dataset import Dataset
from schemas.store_errors import StorageError
from tests.builders import CHEAP, data_files, jpeg, members, run, write_tar


class FakeWebServer(http.server.SimpleHTTPRequestHandler):
    """It takes open ranges, and breaks off half-way unless it is asked for one."""

    asked: list[tuple[str, str | None]]

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        named = self.headers.get("Range")
        self.asked.append((self.path, named))
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        content = path.read_bytes()
        start = int(named.removeprefix("bytes=").removesuffix("-")) if named else 0
        self.send_response(206 if start else 200)
        self.send_header("ETag", '"one"')
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start:] if start else content[: len(content) // 2])


def certificate(folder: Path) -> Path:
    """Write a certificate of 127.0.0.1 with its key, valid for a day."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "tests")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now - datetime.timedelta(hours=1))
    builder = builder.not_valid_after(now + datetime.timedelta(days=1))
    names = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    signed = builder.add_extension(names, critical=False).sign(key, hashes.SHA256())
    plain = serialization.NoEncryption()
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    path = folder / "certificate.pem"
    path.write_bytes(private + signed.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    """A server of `tmp_path / "web"` that this process trusts, and what it is asked."""
    asked: list[tuple[str, str | None]] = []
    kept = certificate(tmp_path)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(kept)
    trusting = ssl.create_default_context(cafile=str(kept))
    for scheme in ("http", "https"):  # before fsspec 2025.9 the class goes by what was opened first in the process
        monkeypatch.setitem(fsspec.config.conf, scheme, {"ssl": trusting})
    fsspec.get_filesystem_class("https").clear_instance_cache()
    handler = partial(type("Handler", (FakeWebServer,), {"asked": asked}), directory=str(tmp_path / "web"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        running.socket = serving.wrap_socket(running.socket, server_side=True)
        running.handle_error = lambda *_: None  # type: ignore[method-assign]  # of connections that were broken off
        thread = threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield f"https://127.0.0.1:{running.server_port}", asked
        running.shutdown()
        thread.join()
    fsspec.get_filesystem_class("https").clear_instance_cache()


def test_tars_come_whole_through_broken_connections(
    server: tuple[str, list[tuple[str, str | None]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("schemas.store_errors._BACK_OFF_S", 0.001)
    url, asked = server
    image = jpeg(1, 1000, 1000)  # megabytes: what the client holds of a reply that breaks is lost
    for tar in range(2):
        write_tar(tmp_path / "web" / f"{tar}.tar", [members(f"{tar}{number}", image=image) for number in range(12)])
    ended = run("annotate", f"{url}/{{0..1}}.tar", tmp_path / "found", *CHEAP, "--max-dead", "1")
    assert ended.code == 0, ended.err
    assert run("annotate", tmp_path / "web", tmp_path / "local", *CHEAP, "--max-dead", "1").code == 0
    found, local = data_files(tmp_path / "found"), data_files(tmp_path / "local")
    assert [found[name] for name in found if name.endswith(".tar")] == [
        local[name] for name in local if name.endswith(".tar")
    ]
    assert [path for path, named in asked if named] == ["/0.tar", "/1.tar"], "each went on by a range"


@pytest.mark.parametrize("trouble", ["not trusted", "no TLS"])
def test_tls_that_fails_is_no_permission_denied(
    server: tuple[str, list[tuple[str, str | None]]], trouble: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("schemas.store_errors._BACK_OFF_S", 0.001)
    for scheme in ("http", "https"):
        monkeypatch.delitem(fsspec.config.conf, scheme)
    fsspec.get_filesystem_class("https").clear_instance_cache()
    url, _ = server
    remedy = "SSL_CERT_FILE" if trouble == "not trusted" else "check the address"
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler) as plain:
        threading.Thread(target=plain.serve_forever, args=(0.02,), daemon=True).start()
        url = url if trouble == "not trusted" else f"https://127.0.0.1:{plain.server_port}"
        ended = run("annotate", f"{url}/0.tar", tmp_path / "found", *CHEAP)
        with pytest.raises(StorageError, match=remedy) as told:
            Dataset.open(f"{url}/data")
        plain.shutdown()
    assert (ended.code, remedy in ended.err) == (5, True), ended.err
    assert "permission" not in ended.err + str(told.value)
