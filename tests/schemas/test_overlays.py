import msgspec
import pyarrow as pa
import pytest

from schemas.dataset import Dataset, DatasetError
from schemas.overlays import CAPTION_COLUMNS, OverlayPlan, plan_name
from schemas.records import encode
from schemas.tables import REGION_SCHEMA
from tests.shards import caption_overlay, ids_of, tiny_sample, write_file, write_overlay, write_shard

SHARDS = [[tiny_sample("a"), tiny_sample("b")], [tiny_sample("c", num_regions=0), tiny_sample("d", num_regions=3)]]


@pytest.fixture
def url(tmp_path):
    return str(tmp_path)


@pytest.fixture
def markers(url):
    return [write_shard(url, samples, index=index, dead=["z"]) for index, samples in enumerate(SHARDS)]


def write_overlays(url, markers, name="blip", prefix="blip:"):
    for marker, samples in zip(markers, SHARDS, strict=True):
        write_overlay(url, marker, name, caption_overlay(samples, prefix))


def column_overlay(samples, **columns):
    """Return an overlay's table of one value a region, the same everywhere."""
    regions = [(sample.record.key, region.id) for sample in samples for region in sample.record.regions]
    ids = {"key": [key for key, _ in regions], "region_id": [region_id for _, region_id in regions]}
    types = {name: REGION_SCHEMA.field(name).type for name in columns if name in REGION_SCHEMA.names}
    values = {name: pa.array([value] * len(regions), types.get(name)) for name, value in columns.items()}
    return pa.table({**{name: pa.array(column, pa.string()) for name, column in ids.items()}, **values})


def test_an_overlay_replaces_columns_of_ok_regions_alone(url, markers):
    write_overlays(url, markers)
    base, seen = Dataset.open(url).regions(), Dataset.open(url, overlays=["blip"]).regions()
    for old, new in zip(base.to_pylist(), seen.to_pylist(), strict=True):
        if old["status"] == "ok" and old["region_id"]:
            assert (new["caption"], new["captioner"]) == (f"blip: {old['caption']}", "blip:")
            old = old | {name: new[name] for name in CAPTION_COLUMNS}
        assert new == old
    assert seen.schema.names == REGION_SCHEMA.names


def test_an_overlay_replaces_what_samples_say(url, markers):
    write_overlays(url, markers)
    dataset = Dataset.open(url, overlays=["blip"])
    for base, seen in zip(Dataset.open(url).samples("train-000001"), dataset.samples("train-000001"), strict=True):
        captions = [f"blip: {region.caption}" for region in base.record.regions]
        assert [region.caption for region in seen.record.regions] == captions
        assert [region.caption_score for region in seen.record.regions] == [0.4321] * len(captions)
        assert msgspec.structs.replace(seen.record, regions=base.record.regions) == base.record
        assert dataset.read_sample(seen.key) == seen


def test_an_added_column_is_null_where_there_is_no_ok_region(url, markers):
    for marker, samples in zip(markers, SHARDS, strict=True):
        write_overlay(url, marker, "clip", column_overlay(samples, clip_score=0.25))
    dataset = Dataset.open(url, overlays=["clip"])
    assert dataset.columns == (*REGION_SCHEMA.names, "clip_score")
    table = dataset.regions()
    ok = [row["status"] == "ok" and row["region_id"] is not None for row in table.to_pylist()]
    assert table["clip_score"].to_pylist() == [0.25 if is_ok else None for is_ok in ok]
    assert dataset.regions(columns=["clip_score"]) == table.select(["clip_score"])
    assert dataset.schema().equals(table.schema)
    assert list(dataset.samples("train-000000")) == list(Dataset.open(url).samples("train-000000"))


def test_an_overlay_takes_regions_away_by_their_status(url, markers):
    tables = [column_overlay(samples, status="ok", reason=None) for samples in SHARDS]
    dead = tables[0]["region_id"][0].as_py()
    status = pa.array(["dead", *["ok"] * (len(tables[0]) - 1)])
    tables[0] = tables[0].set_column(tables[0].column_names.index("status"), "status", status)
    for marker, table in zip(markers, tables, strict=True):
        write_overlay(url, marker, "gate", table)
    dataset = Dataset.open(url, overlays=["gate"])
    sample = dataset.read_sample("a")
    assert sample.record.num_regions == len(sample.record.regions) == 1
    assert dead not in [region.id for region in sample.record.regions]
    statuses = dict(zip(ids_of(dataset.regions()), dataset.regions()["status"].to_pylist(), strict=True))
    assert statuses[f"a/{dead}"] == "dead"


def test_a_later_overlay_wins(url, markers):
    write_overlays(url, markers, "one", "1")
    write_overlays(url, markers, "two", "2")
    assert Dataset.open(url, overlays=["one", "two"]).read_sample("a").record.regions[0].captioner == "2"
    assert Dataset.open(url, overlays=["two", "one"]).read_sample("a").record.regions[0].captioner == "1"


def test_a_partial_overlay_leaves_the_rest_as_it_was(url, markers):
    for marker, samples in zip(markers, SHARDS, strict=True):
        table = caption_overlay(samples, "x")
        table = table.append_column("note", pa.array(["n"] * len(table)))
        write_overlay(url, marker, "some", table.slice(1), partial=True)
    dataset = Dataset.open(url, overlays=["some"])
    captions = [region.caption for region in dataset.read_sample("d").record.regions]
    assert captions == ["x d shape 0", "x d shape 1", "d shape 2"]
    assert dataset.regions(columns=["note"])["note"].null_count == len(dataset.regions()) - 5


def test_only_overlays_that_hold_an_asked_column_are_read(url, markers, tmp_path):
    write_overlays(url, markers)
    dataset = Dataset.open(url, overlays=["blip"])
    for path in tmp_path.glob("*.blip.parquet"):
        path.unlink()
    assert len(dataset.regions(columns=["x0", "key"])) == len(Dataset.open(url).regions())
    with pytest.raises(DatasetError, match=r"train-000000\.blip\.parquet: not there"):
        dataset.regions(columns=["caption"])


def test_an_overlay_changes_the_fingerprint(url, markers):
    write_overlays(url, markers)
    plain, overlaid = Dataset.open(url), Dataset.open(url, overlays=["blip"])
    assert plain.data_fingerprint() != overlaid.data_fingerprint()


def test_an_overlay_without_all_shards_is_refused(url, markers, tmp_path):
    write_overlays(url, markers)
    (tmp_path / "train-000001.blip.json").unlink()
    with pytest.raises(DatasetError, match="overlay 'blip' covers 1 of 2 shards; make it for train-000001"):
        Dataset.open(url, overlays=["blip"])
    with pytest.raises(DatasetError, match=r"there is no overlay 'nothing'; there are blip$"):
        Dataset.open(url, overlays=["nothing"])
    with pytest.raises(DatasetError, match=r"'\.\./x' is not a name for an overlay"):
        Dataset.open(url, overlays=["../x"])


def test_an_overlay_whose_table_is_cut_is_refused(url, markers, tmp_path):
    write_overlays(url, markers)
    path = tmp_path / "train-000001.blip.parquet"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DatasetError, match=r"train-000001\.blip\.parquet: \d+ bytes where its marker says"):
        Dataset.open(url, overlays=["blip"])


def test_where_a_shard_has_changed_the_overlay_holds_for_what_is_still_there(url, markers, caplog):
    write_overlays(url, markers)
    write_shard(url, [SHARDS[0][0], tiny_sample("new")], index=0)
    dataset = Dataset.open(url, overlays=["blip"])
    assert "overlay 'blip' was made from other tables of train-000000 than are there now" in caplog.text
    captions = {key: [region.caption for region in dataset.read_sample(key).record.regions] for key in ("a", "new")}
    assert captions == {"a": ["blip: a shape 0", "blip: a shape 1"], "new": ["new shape 0", "new shape 1"]}
    assert dataset.read_sample("d").record.regions[0].caption == "blip: d shape 0"


def test_an_overlay_that_fits_is_opened_without_a_word(url, markers, caplog):
    write_overlays(url, markers)
    Dataset.open(url, overlays=["blip"])
    assert caplog.text == ""


def test_a_sparse_overlay_need_not_cover_all_shards(url, markers):
    table = caption_overlay(SHARDS[0], "x").append_column("note", pa.array(["n"] * 4))
    write_overlay(url, markers[0], "some", table, partial=True)
    with pytest.raises(DatasetError, match="covers 1 of 2 shards"):
        Dataset.open(url, overlays=["some"])
    plan = OverlayPlan(schema_version="1", overlay="some", tool="edits", fingerprint="f", configuration={}, sparse=True)
    write_file(url, plan_name("some"), msgspec.json.encode(plan))
    dataset = Dataset.open(url, overlays=["some"])
    assert [region.caption for region in dataset.read_sample("a").record.regions] == ["x a shape 0", "x a shape 1"]
    assert dataset.read_sample("d").record == Dataset.open(url).read_sample("d").record
    assert dataset.regions(columns=["note"])["note"].null_count == len(dataset.regions()) - 4


def test_an_overlays_marker_is_read_strictly(url, markers):
    write_overlays(url, markers)
    good = write_overlay(url, markers[0], "blip", caption_overlay(SHARDS[0], "x"))
    for change, message in (
        ({"schema_version": "2"}, "schema version '2'"),
        ({"overlay": "other"}, "is the marker of train-000000.other"),
        ({"num_rows": None}, "not a version 1 OverlayMarker: .*num_rows"),
        ({"columns": ["caption"]}, "other columns in train-000001"),
    ):
        changed = msgspec.json.decode(encode(good)) | change
        write_file(url, "train-000000.blip.json", msgspec.json.encode(changed))
        with pytest.raises(DatasetError, match=message):
            Dataset.open(url, overlays=["blip"])


def with_first_row(table, **values):
    """Return the table with a first row like its own first, but for `values`."""
    row = table.slice(0, 1).to_pylist()[0] | values
    return pa.concat_tables([pa.Table.from_pylist([row], schema=table.schema), table])


def filtered_region(url):
    rows = Dataset.open(url).regions().to_pylist()
    return next(row["region_id"] for row in rows if row["key"] == "a" and row["status"] == "filtered")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table, url: table.slice(1), "lacks b/[0-9a-f]{16}, and is not marked partial"),
        (lambda table, url: pa.concat_tables([table, table]), "more than one row for .*/.* and 1 more"),
        (lambda table, url: with_first_row(table, key="b!"), "no ok regions of the shard: b!/"),
        (lambda table, url: with_first_row(table, key="c"), "no ok regions of the shard: c/"),
        (
            lambda table, url: with_first_row(table, region_id="0" * 16),
            "no ok regions of the shard: b/0{16}",
        ),
        (lambda table, url: with_first_row(table, key="a", region_id=filtered_region(url)), "no ok regions .*: a/"),
        (lambda table, url: with_first_row(table, region_id=None), "1 rows lack key or region_id"),
    ],
)
@pytest.mark.parametrize("partial", [False, True])
def test_rows_that_do_not_match_are_named(url, markers, change, message, partial):
    write_overlays(url, markers)
    table = change(caption_overlay(SHARDS[0], "x"), url)
    write_overlay(url, markers[0], "blip", table, partial=partial)
    dataset = Dataset.open(url, overlays=["blip"])
    if partial and "partial" in message:
        assert len(dataset.regions()) == len(Dataset.open(url).regions())
        return
    with pytest.raises(DatasetError, match=rf"train-000000\.blip\.parquet: {message}"):
        dataset.regions()
    with pytest.raises(DatasetError, match=rf"train-000000\.blip\.parquet: {message}"):
        next(dataset.samples("train-000000"))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"x0": 1.0}, "overlay 'bad': holds x0, which an overlay cannot replace"),
        ({"caption": "c"}, "overlay 'bad': replaces caption but not captioner, caption_score, text_hash, text_sha256"),
    ],
)
def test_columns_that_would_mislead_are_refused(url, markers, columns, message):
    for marker, samples in zip(markers, SHARDS, strict=True):
        write_overlay(url, marker, "bad", column_overlay(samples, **columns))
    with pytest.raises(DatasetError, match=message):
        Dataset.open(url, overlays=["bad"])


def test_columns_of_another_type_are_refused(url, markers):
    for marker, samples in zip(markers, SHARDS, strict=True):
        table = column_overlay(samples)
        write_overlay(url, marker, "bad", table.append_column("label", pa.array(range(len(table)))))
    with pytest.raises(DatasetError, match="column label is int64, where string belongs"):
        Dataset.open(url, overlays=["bad"])


def test_a_column_that_is_there_twice_is_refused(url, markers):
    for samples, marker in zip(SHARDS, markers, strict=True):
        table = caption_overlay(samples, "x")
        write_overlay(url, marker, "blip", table.append_column("caption", table["caption"]))
    with pytest.raises(DatasetError, match=r"train-000000\.blip\.parquet: has 2 columns caption"):
        Dataset.open(url, overlays=["blip"]).regions()


def test_shards_of_an_overlay_agree_on_added_types(url, markers):
    write_overlay(url, markers[0], "new", column_overlay(SHARDS[0], extra=1.5))
    write_overlay(url, markers[1], "new", column_overlay(SHARDS[1], extra=1))
    dataset = Dataset.open(url, overlays=["new"])
    with pytest.raises(DatasetError, match=r"train-000001\.new\.parquet: column extra is int64, where double belongs"):
        dataset.regions(columns=["extra"])


def test_a_kept_region_needs_a_caption(url, markers):
    nothing = {"captioner": "x", "caption": None, "caption_score": None, "text_hash": None, "text_sha256": None}
    for marker, samples in zip(markers, SHARDS, strict=True):
        write_overlay(url, marker, "null", column_overlay(samples, **nothing))
    with pytest.raises(DatasetError, match=r"an overlay makes caption, text_hash of region a/[0-9a-f]{16} null"):
        next(Dataset.open(url, overlays=["null"]).samples("train-000000"))
