import threading

import pytest

from pipeline.viewer.marks import Marks
from pipeline.viewer.selection import parse
from schemas.dataset import Dataset
from schemas.folder import DatasetError
from tests.pipeline.viewer.data import region_id


def test_marks_are_a_filter_list_of_the_data_set(url, session):
    session.mark("train-000000", "a", region_id("a", 0), keep=False, note=None)
    session.mark("train-000000", "b", None, keep=None, note="  tilted ")
    path = f"{url}/marks.jsonl"
    dataset = Dataset.open(url, filters=[path])
    assert [region.caption for region in dataset.read_sample("a").record.regions] == ["a dog"]
    assert dataset.read_sample("b").record.num_regions == 1
    assert [(row.key, row.keep, row.note) for row in Marks(session.marks.path).rows()] == [
        ("a", False, None),
        ("b", True, "tilted"),
    ]


def test_marks_can_be_filtered_by_at_once(session):
    session.mark("train-000000", "a", region_id("a", 0), keep=False, note=None)
    session.mark("train-000001", "d", region_id("d", 0), keep=True, note="odd")

    def shown(query):
        return [
            (image.key, [region.id for region in image.regions if region.hit])
            for image in session.page(parse(query))["items"]
        ]

    assert shown("mark=bad") == [("a", [region_id("a", 0)])]
    assert shown("mark=keep") == shown("mark=note") == [("d", [region_id("d", 0)])]
    assert [key for key, _ in shown("mark=none")] == ["a", "b", "c", "d"]
    assert session.summary(parse("mark=bad"))["regions"] == 1
    session.mark("train-000000", "a", region_id("a", 0), keep=None, note=None)
    assert shown("mark=bad") == [] and session.summary(parse("mark=bad"))["regions"] == 0


def test_marks_of_two_viewers_at_once_are_all_kept(tmp_path):
    viewers = [Marks(tmp_path / "marks.jsonl") for _ in range(4)]

    def mark(number):
        for position in range(5):
            viewers[number].put(f"key-{number}-{position}", None, keep=True, note=None)

    threads = [threading.Thread(target=mark, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(Marks(tmp_path / "marks.jsonl").rows()) == 20
    assert [path.name for path in tmp_path.iterdir()] == ["marks.jsonl"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [("marks.jsonl", b"{", "not JSON lines"), ("marks.txt", None, "jsonl"), ("no/marks.jsonl", None, "folder")],
)
def test_marks_that_cannot_be_read_or_kept_are_an_error(tmp_path, name, content, said):
    if content:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DatasetError, match=said):
        Marks(tmp_path / name)


def test_too_long_a_note_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="2000"):
        Marks(tmp_path / "marks.jsonl").put("a", None, keep=None, note="x" * 2001)
