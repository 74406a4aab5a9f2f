import dataclasses

import msgspec
import pytest

from pipeline.viewer.compare import Pair, pair
from pipeline.viewer.gallery import ShownRegion
from pipeline.viewer.selection import parse
from pipeline.viewer.table import NotHereError
from tests.pipeline.viewer.data import SHARDS, sample, write_data
from tests.shards import caption_overlay, write_overlay


def region(name, box, caption="same", label=None):
    fields = {"caption": caption, "label": label, "status": "ok"}
    return ShownRegion(id=name, box=box, count=1, hit=True, fields=fields)


def test_equal_ids_pair_first_then_the_best_overlap():
    ours = [region("1", (0, 0, 10, 10)), region("2", (20, 0, 30, 10)), region("3", (50, 50, 60, 60))]
    theirs = [
        region("9", (20, 0, 30, 9), "other"),
        region("8", (20, 0, 30, 6)),
        region("1", (0, 0, 10, 10)),
        region("7", (50, 50, 60, 54)),
    ]
    assert pair(ours, theirs) == [
        Pair(ours=0, theirs=2, iou=1.0, differences=()),
        Pair(ours=1, theirs=0, iou=0.9, differences=("box", "caption")),
        Pair(ours=2, theirs=None, iou=None, differences=()),
        Pair(ours=None, theirs=1, iou=None, differences=()),
        Pair(ours=None, theirs=3, iou=None, differences=()),
    ]


def test_regions_without_a_box_pair_by_id_alone():
    ours, theirs = [region("1", None), region("2", None)], [region("2", None, label="cat")]
    assert pair(ours, theirs) == [
        Pair(ours=1, theirs=0, iou=None, differences=("label",)),
        Pair(ours=0, theirs=None, iou=None, differences=()),
    ]
    assert pair([], []) == []


@pytest.fixture
def overlaid(url, open_session):
    for marker, samples in zip(write_data(url), SHARDS, strict=True):
        changed = [s for s in samples if s.record.key in ("a", "d")]
        write_overlay(url, marker, "loud", caption_overlay(changed, "LOUD"), partial=True)
    return open_session(url, other="loud")


def test_an_overlay_is_compared_with_what_it_replaces(overlaid):
    page = overlaid.compared_page(parse(""))
    differing = {item["ours"].key: [p.differences for p in item["pairs"]] for item in page["items"]}
    assert differing["a"] == [("caption",), ("caption",)] and differing["b"] == [()] and differing["c"] == []
    assert page["items"][0]["theirs"].regions[0].fields["caption"] == "LOUD a red cat"


def test_images_that_differ_can_be_picked_and_counted(overlaid):
    assert [item["ours"].key for item in overlaid.compared_page(parse("diff=changed"))["items"]] == ["a", "d"]
    assert overlaid.summary(parse("diff=changed"))["images"] == 2
    assert overlaid.differences() == {
        "images_changed": 2,
        "images_only_first": 0,
        "images_only_second": 0,
        "regions_first": 6,
        "regions_second": 6,
        "regions_same_box": 6,
        "captions_changed": 5,
    }


def test_another_data_set_is_matched_by_key(url, open_session, tmp_path):
    changed = dataclasses.replace(SHARDS[0][0])
    others = [[sample("e", {}), changed], [sample("d", {"caption": "new"})]]
    write_data(str(tmp_path / "other"), others, dead=())
    session = open_session(url, other=str(tmp_path / "other"))
    items = {item["ours"].key: item for item in session.compared_page(parse(""))["items"]}
    assert items["a"]["theirs"].shard == "train-000000" and [p.differences for p in items["a"]["pairs"]] == [(), ()]
    assert items["b"]["theirs"] is None and items["d"]["theirs"].regions[0].fields["caption"] == "new"
    counted = session.differences()
    assert (counted["images_only_first"], counted["images_only_second"]) == (2, 1)
    assert counted["images_changed"] == 4
    assert session.overview(1)["title"] == "other"


def test_without_a_second_data_set_there_is_nothing_to_compare(session):
    for ask in (session.differences, lambda: session.compared_page(parse("diff=changed")), lambda: session.overview(1)):
        with pytest.raises(NotHereError, match="--compare"):
            ask()


def test_a_selection_of_changes_needs_a_second_data_set(session):
    with pytest.raises(NotHereError, match="--compare"):
        session.page(parse("diff=changed"))


def test_pages_can_be_encoded(overlaid):
    assert b"LOUD a red cat" in msgspec.json.encode(overlaid.compared_page(parse("")))
