import io
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

from pipeline.viewer import gallery
from pipeline.viewer.pixels import decode
from pipeline.viewer.selection import Selection, parse
from tests.pipeline.viewer.data import ATTACK, region_id, write_data


def keys(session, query, **more):
    found, _ = gallery.find_images(session.tables[0], parse(query), **more)
    return [key for _, key in found]


def hits(session, query):
    return {
        image.key: [region.fields["caption"] for region in image.regions if region.hit]
        for image in session.page(parse(query))["items"]
    }


def test_what_is_ok_is_shown_in_the_order_of_the_data(session):
    shown = hits(session, "")
    assert list(shown) == ["a", "b", "c", "d"]
    assert shown["a"] == ["a red cat", "a dog"] and shown["c"] == []


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("q=red", {"a": ["a red cat"], "b": ["Red Square"]}),
        ("q=red+cat", {"a": ["a red cat"]}),
        ('q="cat+red"', {}),
        ("q=quiet", {"b": []}),
        ("q=100+%25", {"d": ["100 % wool_len"]}),
        ("q=l_l", {"d": ["100 % wool_len"]}),
        ("q=w.ol", {}),
        ("q=onerror%3D", {"d": [ATTACK]}),
        ("label=dog", {"a": ["a dog"], "d": ["a dog"]}),
        ("label=cat&label=", {"a": ["a red cat"], "b": ["Red Square"]}),
        ("proposal_score=0.88..0.95", {"a": ["a red cat"]}),
        ("proposal_score=..0.3", {"b": ["Red Square"]}),
        ("caption_length=..5", {"a": ["a dog"], "d": ["a dog"]}),
        ("key=c", {"c": []}),
        ("shard=train-000001&label=dog", {"d": ["a dog"]}),
        ("status=dead", {"z": []}),
        ("captioner=other", {}),
        ("area=0.9..", {}),
    ],
)
def test_filters_choose_regions(session, query, expected):
    assert hits(session, query) == expected


def test_a_reason_shows_the_regions_that_were_filtered_for_it(session):
    page = session.page(parse("reason=small"))["items"]
    assert [image.key for image in page] == ["a", "b", "d"]
    assert [region.fields["reason"] for region in page[0].regions if region.hit] == ["small"]


def test_pages_part_the_images(session):
    found = [gallery.find_images(session.tables[0], parse(f"page={page}"), limit=3) for page in (1, 2, 3)]
    assert [[key for _, key in ids] for ids, _ in found] == [["a", "b", "c"], ["d"], []]
    assert [more for _, more in found] == [True, False, False]


def test_many_hits_of_one_image_do_not_end_the_page(tmp_path, open_session, monkeypatch):
    monkeypatch.setattr(gallery, "_ROWS_AN_IMAGE", 1)
    write_data(str(tmp_path))
    session = open_session(str(tmp_path))
    assert keys(session, "", limit=2) == ["a", "b"] and keys(session, "page=2", limit=2) == ["c", "d"]


def test_images_stand_where_their_best_region_does(session):
    assert keys(session, "sort=-proposal_score") == ["a", "d", "b"]
    assert keys(session, "sort=proposal_score") == ["b", "a", "d"]


def test_a_random_sample_is_decided_by_its_seed(session):
    orders = {seed: keys(session, f"sort=random&seed={seed}") for seed in range(8)}
    assert all(sorted(order) == ["a", "b", "c", "d"] for order in orders.values())
    assert len({tuple(order) for order in orders.values()}) > 1
    assert orders[3] == keys(session, "sort=random&seed=3")
    assert orders[3][:2] + keys(session, "sort=random&seed=3&page=2", limit=2) == orders[3]


def test_the_summary_counts_what_is_selected(session):
    everything = session.summary(Selection())
    assert (everything["images"], everything["regions"]) == (4, 6)
    assert all(sum(counts) == 6 for counts in everything["histograms"].values())
    some = session.summary(parse("q=red&sort=-area&page=9"))
    assert (some["images"], some["regions"]) == (2, 2)


def test_regions_without_a_value_are_in_no_bar(session):
    filtered = session.summary(parse("status=filtered"))
    assert filtered["regions"] == 3
    assert sum(filtered["histograms"]["caption_length"]) == 0 and sum(filtered["histograms"]["area"]) == 3


def crops(session, query, **more):
    found, more_follow = gallery.load_crops(session.tables[0], parse(query), **more)
    return [(crop.key, crop.regions[0].fields["caption"]) for crop in found], more_follow


def test_crops_are_the_regions_of_a_selection_in_its_order(session):
    everything, more = crops(session, "")
    assert (len(everything), more) == (6, False) and everything[:3] == [
        ("a", "a red cat"),
        ("a", "a dog"),
        ("b", "Red Square"),
    ]
    assert crops(session, "label=dog")[0] == [("a", "a dog"), ("d", "a dog")]
    assert crops(session, "sort=-proposal_score")[0][0] == ("a", "a red cat")
    assert crops(session, "q=quiet")[0] == [] and crops(session, "status=dead")[0] == []
    parts = [crops(session, f"page={page}", limit=4) for page in (1, 2, 3)]
    assert [more for _, more in parts] == [True, False, False]
    assert [crop for found, _ in parts for crop in found] == everything


def test_a_random_order_of_crops_mixes_images_and_is_decided_by_its_seed(session):
    orders = {seed: crops(session, f"sort=random&seed={seed}")[0] for seed in range(12)}
    assert orders[3] == crops(session, "sort=random&seed=3")[0]
    assert (
        all(sorted(order) == sorted(orders[0]) for order in orders.values())
        and len(set(map(tuple, orders.values()))) > 4
    )
    apart = [[key for key, _ in order] for order in orders.values()]
    assert any(order.index("a") + 1 != len(order) - order[::-1].index("a") - 1 for order in apart)


def test_a_page_of_crops_has_what_it_shows(session):
    page = session.crops(parse("key=a"))
    crop = page["items"][0]
    assert (crop.stored, crop.fields["width"], crop.regions[0].box) == (True, 48, (0.0, 2.0, 10.5, 20.0625))
    data = session.crop(0, crop.shard, crop.key, max_side=360, box=crop.regions[0].box)
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.size) == ("JPEG", (11, 19))


def test_crops_of_an_image_are_cut_from_one_decoding(session, monkeypatch):
    decoded = []
    monkeypatch.setattr(
        "pipeline.viewer.session.decode", lambda *given, **more: decoded.append(given[1]) or decode(*given, **more)
    )
    boxes = [(number, 2, number + 9, 20) for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        cut = list(pool.map(lambda box: session.crop(0, "train-000000", "a", box=box, max_side=100), boxes))
    assert len(decoded) == 1 and len(set(cut)) == 8


def test_the_filters_offer_what_is_there(session):
    offered = session.values()
    assert offered["values"]["label"][:2] == [("shape", 2), ("dog", 2)] or offered["values"]["label"][0][1] >= 2
    assert dict(offered["values"]["status"]) == {"ok": 10, "filtered": 3, "dead": 2}
    assert offered["bounds"]["caption_length"] == (5, len(ATTACK))


def test_one_image_comes_with_all_its_regions(session):
    (image,) = session.image("train-000000", "a")["items"]
    assert [region.fields["status"] for region in image.regions] == ["ok", "ok", "filtered"]
    assert image.regions[0].id == region_id("a", 0) and image.regions[0].box == (0.0, 2.0, 10.5, 20.0625)
    assert session.record(0, "train-000000", "a").source.license == "CC0-1.0"


def test_overlays_and_filter_lists_change_what_is_shown(url, open_session, tmp_path):
    from tests.pipeline.viewer.data import SHARDS
    from tests.shards import caption_overlay, write_overlay

    markers = write_data(url)
    for marker, samples in zip(markers, SHARDS, strict=True):
        write_overlay(url, marker, "loud", caption_overlay(samples, "LOUD"))
    listed = tmp_path / "list.jsonl"
    listed.write_text('{"key":"a","region_id":null,"keep":false}\n')
    session = open_session(url, overlays=["loud"], filters=[str(listed)])
    assert hits(session, "q=loud+red") == {"b": ["LOUD Red Square"]}
    assert keys(session, "") == ["b", "c", "d"]
