import msgspec

from tests.pipeline.viewer.data import write_data


def test_totals_balance_and_everything_is_named(session, url):
    page = session.overview(0)
    images, regions = page["totals"]
    assert (images["inputs"], images["ok"], images["dead"], images["balanced"]) == (6, 4, {"decode": 2}, True)
    assert (regions["inputs"], regions["ok"], regions["filtered"]) == (9, 6, {"small": 3})
    assert [row["shard"] for row in page["shards"]] == ["train-000000", "train-000001"]
    assert page["provenance"] == [
        {"num_shards": 2, "fingerprint": "f" * 64, "provenance": {"captioner": {"name": "rule"}}}
    ]
    assert page["licenses"] == {"looked_at": 4, "licenses": [("CC0-1.0", 4)]}
    assert dict(page["labels"])["dog"] == 2
    assert page["regions_an_image"][:4] == [1, 1, 1, 1]
    assert msgspec.json.encode(page)


def test_repeated_captions_are_counted(session):
    repeated = session.overview(0)["repeated"]
    assert (repeated["num_captions"], repeated["num_regions"]) == (1, 2)
    assert repeated["captions"][0]["caption"] == "a dog"


def test_a_data_set_without_any_region_has_a_page(tmp_path, open_session):
    write_data(str(tmp_path), [[]], dead=("z",))
    page = open_session(str(tmp_path)).overview(0)
    assert page["histograms"] == {} and page["repeated"]["num_captions"] == 0
