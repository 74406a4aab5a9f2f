"""The viewer on a data set on S3, through trouble on the way: the same answers as on a folder."""

from pathlib import Path

from pipeline.viewer.session import Session
from tests.pipeline.viewer.data import write_data
from tests.pipeline.viewer.serving import Answer, serving
from tests.remote.conftest import Store
from tests.remote.proxy import some

PATHS = [
    "/api/page",
    "/api/page?q=shape",
    "/api/overview/a",
    "/image/a/train-000000/a?side=64",
    "/image/a/train-000000/a",
]


def answers(url: str) -> list[Answer]:
    session = Session(url)
    try:
        with serving(session) as client:
            return [client.get(path) for path in PATHS for _ in range(2)]
    finally:
        session.close()


def test_pages_and_images_are_those_of_a_folder(store: Store, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    write_data(str(tmp_path / "data"))
    url = store.put(tmp_path / "data", "data")
    store.proxy.trouble = some(7, share=0.15)
    found, expected = answers(url), answers(str(tmp_path / "data"))
    assert sum(store.proxy.struck.values()) >= 2
    assert [answer.status for answer in found] == [200] * len(found)
    local = str(tmp_path / "data").encode()
    assert [answer.body.replace(url.encode(), local) for answer in found] == [answer.body for answer in expected]
