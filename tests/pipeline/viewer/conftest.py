import pytest

from pipeline.viewer.session import Session
from tests.pipeline.viewer.data import write_data
from tests.pipeline.viewer.serving import serving


@pytest.fixture
def url(tmp_path):
    # DuckDB takes file names for patterns.
    folder = tmp_path / "it's data [1]*"
    write_data(str(folder))
    return str(folder)


@pytest.fixture
def open_session():
    opened = []

    def open_(*arguments, **settings):
        opened.append(Session(*arguments, **settings))
        return opened[-1]

    yield open_
    for session in opened:
        session.close()


@pytest.fixture
def session(url, open_session):
    return open_session(url)


@pytest.fixture
def client(session):
    with serving(session) as running:
        yield running
