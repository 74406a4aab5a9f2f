from collections.abc import Iterator

import fsspec
import pytest

from tests.pipeline.store.s3_server import BUCKET, S3Server, forget_s3fs, point_s3fs_at, serve


@pytest.fixture(scope="session")
def running_server() -> Iterator[S3Server]:
    """The one server of all tests."""
    with serve() as running:
        yield running


@pytest.fixture
def server(running_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """A server with an empty bucket; only what is asked of it from now on is counted."""
    point_s3fs_at(running_server.url, monkeypatch)
    running_server.empty()
    fsspec.filesystem("s3").mkdir(BUCKET)
    running_server.asked.clear()
    yield running_server
    running_server.trouble = lambda request: None
    forget_s3fs()
