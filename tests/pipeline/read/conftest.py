from collections.abc import Iterator

import fsspec
import pytest


@pytest.fixture
def bucket() -> Iterator[str]:
    """The URL of an empty remote folder."""
    store = fsspec.filesystem("memory")
    store.mkdirs("/bucket", exist_ok=True)
    yield "memory://bucket"
    store.rm("/bucket", recursive=True)


@pytest.fixture
def store() -> fsspec.AbstractFileSystem:
    """The file system of `bucket`."""
    return fsspec.filesystem("memory")
