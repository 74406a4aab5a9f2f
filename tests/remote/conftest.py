"""A bucket behind a proxy: of moto always, of versitygw where the tests are asked for by `make test-remote`."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import fsspec
import pytest

from tests.pipeline.store.s3_server import BUCKET, forget_s3fs, point_s3fs_at
from tests.remote import servers
from tests.remote.proxy import Proxy, proxied
from tests.trainer.conftest import _tiny_models  # noqa: F401


@dataclass(frozen=True)
class Store:
    """A bucket of S3, and what stands before it."""

    proxy: Proxy
    name: str
    """Of the server."""
    url: str = f"s3://{BUCKET}"

    def put(self, folder: Path, name: str) -> str:
        """Copy a folder into the bucket, past all trouble."""
        fs = fsspec.filesystem("s3")
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                fs.pipe_file(f"{BUCKET}/{name}/{path.relative_to(folder)}", path.read_bytes())
        forget_s3fs()
        self.proxy.forget()
        return f"{self.url}/{name}"

    def files(self, name: str) -> dict[str, bytes]:
        """Return the files right in a folder of the bucket."""
        self.proxy.forget()
        forget_s3fs()
        fs = fsspec.filesystem("s3")
        entries = fs.ls(f"{BUCKET}/{name}", detail=True)
        return {
            entry["name"].rpartition("/")[2]: fs.cat_file(entry["name"]) for entry in entries if entry["type"] == "file"
        }


@pytest.fixture(scope="session", params=["moto", pytest.param("versitygw", marks=pytest.mark.remote)])
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Proxy]]:
    """A server of S3 behind a proxy, for all tests."""
    with contextlib.ExitStack() as stack:
        if request.param == "moto":
            upstream = stack.enter_context(servers.moto())
        else:
            upstream = stack.enter_context(servers.versitygw(tmp_path_factory.mktemp("versitygw")))
        yield request.param, stack.enter_context(proxied(upstream))


@pytest.fixture
def store(running: tuple[str, Proxy], monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """An empty bucket; only what is asked of it from now on is counted."""
    server, proxy = running
    proxy.forget()
    point_s3fs_at(proxy.url, monkeypatch)
    fs = fsspec.filesystem("s3")
    if fs.exists(BUCKET):
        fs.rm(BUCKET, recursive=True)
    fs.mkdir(BUCKET)
    forget_s3fs()
    proxy.forget()
    yield Store(proxy, server)
    proxy.forget()
    forget_s3fs()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    """Let nobody wait for a store that stays away: by themselves the libraries and ours do for minutes."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(fsspec.get_filesystem_class("s3"), "retries", 1)
    monkeypatch.setattr("schemas.store_errors._BACK_OFF_S", 0.01)
    forget_s3fs()
