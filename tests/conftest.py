"""What holds for every test."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

settings.register_profile("fineclip", deadline=None)  # a busy machine is no failure
settings.load_profile("fineclip")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the models' golden answers of the tests, and of the commands they start, out of the user's cache."""
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["XDG_CACHE_HOME"]
    else:
        os.environ["XDG_CACHE_HOME"] = before
