"""How a server is reached, and what it says of itself: neither ends a job that the model would have answered."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.caption.client import Client
from pipeline.caption.openai import Openai, OpenaiConfig
from pipeline.errors import WorkError
from tests.caption_server import MODEL, Answer, FakeCaptionServer

REMOTE = "http://gpu-7.cluster/v1"


@pytest.fixture
def server() -> Iterator[FakeCaptionServer]:
    with FakeCaptionServer() as started:
        yield started


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def _client(url: str = REMOTE) -> Client:
    return Client(url, key=None, timeout_s=1.0, concurrency=1)


FORMS: dict[str, tuple[str | bytes, list[str]]] = {
    "OpenAI's": (json.dumps({"object": "list", "data": [{"id": "a", "object": "model"}, {"id": "b"}]}), ["a", "b"]),
    "a bare list": ('[{"id": "a"}]', ["a"]),
    "names alone": ('{"data": ["a", "b"]}', ["a", "b"]),
    "some without a name": ('{"data": [{"name": "a"}, null, 3, {"id": 7}, {"id": "b"}]}', ["b"]),
    "by name": ('{"data": {"a": {}}}', []),
    "null": ("null", []),
    "data null": ('{"data": null}', []),
    "a number": ("3", []),
    "no JSON": ("<html>", []),
    "no UTF-8": (b"\xff\xfe{", []),
    "too deep": ("[" * 100_000, []),
    "nothing": ("", []),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_list_of_models_in_any_form_lets_the_server_be_asked(server: FakeCaptionServer, form: str) -> None:
    server.models, names = FORMS[form]
    Openai(OpenaiConfig(url=server.url, model=MODEL))  # which asks the model about a picture
    server.fault = lambda asked: Answer(status=404)
    with pytest.raises(WorkError, match="must be one of the server's: " + ", ".join(names) if names else "ends in /v1"):
        Openai(OpenaiConfig(url=server.url, model=MODEL))


@pytest.mark.parametrize(
    ("proxy", "says"),
    [
        ("socks5://me:s3cret@127.0.0.1:9", r"httpx2\[socks\]"),
        ("socks4://me:s3cret@127.0.0.1:9", "socks4"),
        ("ftp://me:s3cret@127.0.0.1:9", "ftp"),
        ("http://me:s3cret@127.0.0.1:port", "port"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_named_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, proxy: str, says: str
) -> None:
    monkeypatch.setenv("all_proxy", proxy)
    with pytest.raises(
        WorkError, match=rf"the proxy {proxy.replace('me:s3cret@', '')} .*{says}.*NO_PROXY=gpu-7"
    ) as raised:
        _client()
    assert "s3cret" not in str(raised.value)
    monkeypatch.setenv("no_proxy", "gpu-7.cluster")
    _client()


@pytest.mark.parametrize("holds", [None, "no certificate"])
def test_a_file_of_certificates_that_cannot_be_read_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, holds: str | None
) -> None:
    file = tmp_path / "authority.pem"
    if holds is not None:
        file.write_text(holds)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    with pytest.raises(WorkError, match=rf"SSL_CERT_FILE={file} in the environment"):
        _client("https://gpu-7.cluster/v1")


@pytest.mark.parametrize("url", ["http://[::1/v1", "http:///v1", "http://host:99999/v1", "http://host:port/v1"])
def test_a_url_without_a_host_or_with_no_port_is_refused_at_once(url: str) -> None:
    with pytest.raises(ValueError, match=r"--caption\.url .*no host, or a port that is none"):
        OpenaiConfig(url=url)
