import multiprocessing
import pickle
from pathlib import Path

import fsspec
import msgspec
import pyarrow as pa
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from schemas.dataset import Dataset, DatasetError
from schemas.names import ShardName
from schemas.records import encode
from schemas.store_errors import StorageError
from schemas.tables import REGION_SCHEMA
from schemas.tar import BLOCK, END
from tests.shards import tar_members, tiny_sample, to_parquet, write_file, write_index, write_shard
from tests.unprivileged import modes_hold

SHARDS = {
    0: [tiny_sample("a"), tiny_sample("b", suffix="jpg", image_caption=None)],
    1: [tiny_sample("c", num_regions=0, num_filtered=0), tiny_sample("d", num_regions=3, suffix="webp")],
}


class UnlistedFileSystem(MemoryFileSystem):
    """A store without listing, as web servers are."""

    protocol = "unlisted"

    def ls(self, path, detail=True, **kwargs):
        raise NotImplementedError(path)


fsspec.register_implementation("unlisted", UnlistedFileSystem, clobber=True)


@pytest.fixture(params=["local", "memory", "unlisted"])
def url(request, tmp_path):
    if request.param == "local":
        yield str(tmp_path / "data set [1]")
        return
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]
    yield f"{request.param}://bucket/data"
    MemoryFileSystem.store.clear()


@pytest.fixture
def markers(url):
    written = [write_shard(url, samples, index=index, dead=["z"]) for index, samples in SHARDS.items()]
    write_index(url, [marker.shard for marker in written])
    return written


def all_samples():
    return [sample for samples in SHARDS.values() for sample in samples]


def test_shards_are_found_by_their_markers_in_order(url, markers):
    write_shard(url, [tiny_sample("v")], split="val", index=0)
    write_index(url, ["val-000000", "train-000001", "train-000000"])
    dataset = Dataset.open(url)
    assert dataset.shards == (ShardName("train", 0), ShardName("train", 1), ShardName("val", 0))
    assert dataset.markers[ShardName("train", 1)] == markers[1]


def test_samples_are_what_was_written(url, markers):
    dataset = Dataset.open(url)
    seen = [sample for shard in dataset.shards for sample in dataset.samples(shard, verify=True)]
    assert [(s.key, s.image, s.suffix, s.image_caption, s.record) for s in seen] == [
        (s.record.key, s.image, s.suffix, s.record.image_caption, s.record) for s in all_samples()
    ]


def test_random_access_and_ranges_give_what_the_sequential_read_gives(url, markers):
    dataset = Dataset.open(url)
    images = {row["key"]: row for row in dataset.regions().to_pylist() if row["region_id"] is None}
    for shard in dataset.shards:
        for sample in dataset.samples(shard):
            assert dataset.read_sample(sample.key, verify=True) == sample
            row = images[sample.key]
            image = dataset.read_image(row["shard"], tar_offset=row["tar_offset"], tar_size=row["tar_size"])
            assert image == sample.image


def test_an_image_costs_no_walk_over_the_shards(tmp_path):
    """A loader reads a million images of ten thousand shards."""
    write_shard(str(tmp_path), [tiny_sample("a")])
    dataset = Dataset.open(tmp_path)
    row = dataset.regions().to_pylist()[0]

    class Unwalkable(dict):
        def __iter__(self):
            raise AssertionError("all shards were looked at for an image of one")

        values = items = keys = __iter__

    dataset.markers, dataset._shards = Unwalkable(dataset.markers), Unwalkable(dataset._shards)
    assert dataset.read_image("train-000000", tar_offset=row["tar_offset"], tar_size=row["tar_size"])


def test_regions_have_a_row_an_image_and_a_row_a_region(url, markers):
    table = Dataset.open(url).regions()
    assert table.schema.equals(REGION_SCHEMA)
    # a: image, 2 regions, 1 filtered; b likewise; c: image; d: image, 3 regions, 1 filtered; z twice
    assert table["key"].to_pylist() == ["a"] * 4 + ["b"] * 4 + ["z"] + ["c"] + ["d"] * 5 + ["z"]
    captions = [caption for caption in table["caption"].to_pylist() if caption]
    assert captions == [region.caption for sample in all_samples() for region in sample.record.regions]


def test_batches_are_the_table_of_the_asked_columns(url, markers):
    dataset = Dataset.open(url)
    columns = ["caption", "x0"]
    batches = list(dataset.region_batches(columns=columns))
    assert pa.Table.from_batches(batches) == dataset.regions(columns=columns) == dataset.regions().select(columns)
    assert dataset.schema(columns) == batches[0].schema
    one = dataset.regions(columns=columns, shards=["train-000001"])
    assert one == pa.Table.from_batches(list(dataset.region_batches(columns, [ShardName("train", 1)])))
    assert dataset.regions(columns=columns, shards=[]).schema == one.schema


def test_only_the_asked_columns_are_read(tmp_path):
    marker = write_shard(str(tmp_path), [tiny_sample(f"k{i}") for i in range(300)])
    path = tmp_path / "train-000000.parquet"
    content = bytearray(path.read_bytes())
    metadata = pa.parquet.ParquetFile(path).metadata.row_group(0)
    chunks = {metadata.column(i).path_in_schema: metadata.column(i) for i in range(metadata.num_columns)}
    start, size = chunks["caption"].dictionary_page_offset, chunks["caption"].total_compressed_size
    content[start : start + size] = bytes(size)
    path.write_bytes(content)
    dataset = Dataset.open(tmp_path)
    assert dataset.regions(columns=["key", "x0"]).num_rows == marker.images.inputs + marker.regions.inputs
    with pytest.raises(DatasetError, match=r"train-000000\.parquet: not a readable Parquet file"):
        dataset.regions(columns=["caption"])


def test_it_is_pickled_without_open_files_or_caches(url, markers):
    dataset = Dataset.open(url)
    sample = dataset.read_sample("d")
    dataset.read_image("train-000000", tar_offset=0, tar_size=BLOCK)
    pickled = pickle.dumps(dataset)
    assert pickle.loads(pickled).read_sample("d") == sample
    assert len(pickled) < 10_000


def _read_in_child(dataset, queue):
    row = dataset.regions().to_pylist()[0]
    image = dataset.read_image(row["shard"], tar_offset=row["tar_offset"], tar_size=row["tar_size"])
    queue.put((image, dataset.read_sample("d").record.key))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_other_processes_read_for_themselves(tmp_path, method):
    for index, samples in SHARDS.items():
        write_shard(str(tmp_path), samples, index=index)
    dataset = Dataset.open(tmp_path)
    dataset.read_image("train-000000", tar_offset=0, tar_size=BLOCK)
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    child = context.Process(target=_read_in_child, args=(dataset, queue))
    child.start()
    assert queue.get(timeout=60) == (SHARDS[0][0].image, "d")
    child.join()
    queue.close()


def test_a_fork_does_not_use_its_parents_descriptors(tmp_path, monkeypatch):
    write_shard(str(tmp_path), SHARDS[0])
    folder = Dataset.open(tmp_path)._folder
    folder.read_range("train-000000.tar", offset=0, size=1)
    cached, fs = folder._descriptor, folder.fs
    monkeypatch.setattr("os.getpid", lambda: -1)
    assert folder.fs is not None
    assert folder._descriptor is not cached
    assert type(folder.fs) is type(fs)


def test_a_relative_path_stays_what_it_was(tmp_path, monkeypatch):
    write_shard(str(tmp_path / "data"), SHARDS[0])
    monkeypatch.chdir(tmp_path)
    pickled = pickle.dumps(Dataset.open("data"))
    monkeypatch.chdir(tmp_path.parent)
    assert pickle.loads(pickled).read_sample("a").key == "a"


def test_linked_files_are_files(tmp_path):
    write_shard(str(tmp_path / "blobs"), SHARDS[0])
    (tmp_path / "data").mkdir()
    for path in (tmp_path / "blobs").iterdir():
        (tmp_path / "data" / path.name).symlink_to(path)
    assert Dataset.open(tmp_path / "data").read_sample("a").key == "a"


def test_the_fingerprint_is_that_of_the_data(tmp_path, url, markers):
    fingerprint = Dataset.open(url).data_fingerprint()
    copy = str(tmp_path / "copy")
    write_shard(copy, SHARDS[1], index=1, dead=["z"])
    assert Dataset.open(copy).data_fingerprint() != fingerprint
    write_shard(copy, SHARDS[0], index=0, dead=["z"])
    assert Dataset.open(copy).data_fingerprint() == fingerprint
    write_shard(copy, [tiny_sample("a")], index=0)
    assert Dataset.open(copy).data_fingerprint() != fingerprint


@pytest.mark.parametrize("unknown", ["colour", "regions"])
def test_unknown_columns_shards_and_keys_are_named(url, markers, unknown):
    dataset = Dataset.open(url)
    with pytest.raises(DatasetError, match=f"no column {unknown}; there are key, region_id"):
        dataset.regions(columns=["x0", unknown])
    with pytest.raises(DatasetError, match="no shard train-000009 among the 2 here"):
        dataset.regions(shards=["train-000009"])
    with pytest.raises(DatasetError, match="no image 'nobody'"):
        dataset.read_sample("nobody")
    with pytest.raises(DatasetError, match="no image 'z'"):
        dataset.read_sample("z")


def test_nothing_there_says_what_to_give(tmp_path):
    with pytest.raises(DatasetError, match="no such folder; give the OUTPUT"):
        Dataset.open(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match="no shard here"):
        Dataset.open(tmp_path)
    with pytest.raises(DatasetError, match="cannot be opened: Protocol not known: ftpx"):
        Dataset.open("ftpx://host/data")
    with pytest.raises(DatasetError, match=r"cannot be listed there, and there is no dataset\.json"):
        Dataset.open("unlisted://nothing/here")


def test_a_growing_data_set_is_its_finished_shards(tmp_path):
    write_shard(str(tmp_path), SHARDS[0])
    write_shard(str(tmp_path), SHARDS[1], index=1)
    (tmp_path / "train-000001.json").unlink()
    (tmp_path / "_plan").mkdir()
    assert Dataset.open(tmp_path).shards == (ShardName("train", 0),)


def test_a_shard_that_the_index_names_must_be_there(url, markers):
    write_index(url, ["train-000000", "train-000001", "train-000002"])
    with pytest.raises(DatasetError, match=r"train-000002\.json: not there, but dataset\.json names it"):
        Dataset.open(url)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"schema_version": "1", "shards": ["train-1"]}', "'train-1' is not the name of a shard"),
        (b'{"schema_version": "1"}', "missing required field `shards`"),
        (b'{"schema_version": "2"}', "schema version '2', where this release reads '1'"),
        (b'{"schema_version": "1", "more": ' + b"[" * 100_000, "recursion"),
    ],
)
def test_a_broken_index_is_named(url, markers, content, message):
    write_file(url, "dataset.json", content)
    with pytest.raises(DatasetError, match=rf"dataset\.json: .*{message}"):
        Dataset.open(url)


def test_a_marker_of_another_version_or_shard_is_named(url, markers):
    other = msgspec.json.decode(encode(markers[0])) | {"schema_version": "2", "more": 1}
    write_file(url, "train-000001.json", msgspec.json.encode(other))
    with pytest.raises(DatasetError, match=r"train-000001\.json: schema version '2', where this release reads '1'"):
        Dataset.open(url)
    write_file(url, "train-000001.json", encode(markers[0]))
    with pytest.raises(DatasetError, match=r"train-000001\.json: is the marker of train-000000"):
        Dataset.open(url)
    write_file(url, "train-000001.json", b'{"schema_version": "1"}')
    with pytest.raises(DatasetError, match=r"train-000001\.json: not a version 1 ShardMarker: .*`shard`"):
        Dataset.open(url)


@pytest.mark.parametrize("suffix", ["tar", "parquet"])
def test_a_marker_without_its_files_is_refused_at_opening(tmp_path, suffix):
    write_shard(str(tmp_path), SHARDS[0])
    path = tmp_path / f"train-000000.{suffix}"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DatasetError, match=rf"train-000000\.{suffix}: \d+ bytes where its marker says \d+"):
        Dataset.open(tmp_path)
    path.unlink()
    with pytest.raises(DatasetError, match=rf"train-000000\.{suffix}: not there, but its marker is"):
        Dataset.open(tmp_path)


def read_all(folder: Path) -> None:
    """Read what a data set has, each file once at least."""
    dataset = Dataset.open(folder)
    list(dataset.samples("train-000000"))
    dataset.read_image("train-000000", tar_offset=0, tar_size=1)
    dataset.regions()


@pytest.mark.parametrize("name", ["dataset.json", "train-000000.json", "train-000000.parquet", "train-000000.tar"])
def test_what_may_not_be_read_is_named(tmp_path, name):
    write_shard(str(tmp_path), SHARDS[0])
    write_index(str(tmp_path), ["train-000000"])
    (tmp_path / name).chmod(0)
    with modes_hold(), pytest.raises(StorageError, match=rf"{name}: .*make it readable to you"):
        read_all(tmp_path)


def test_a_disk_that_fails_is_named_by_the_file(tmp_path, monkeypatch):
    write_shard(str(tmp_path), SHARDS[0])
    dataset = Dataset.open(tmp_path)

    def failing(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("os.pread", failing)
    with pytest.raises(StorageError, match=r"train-000000\.tar: Input/output error"):
        dataset.read_image("train-000000", tar_offset=0, tar_size=1)


def test_where_nothing_is_listed_a_missing_file_is_named_when_it_is_read(tmp_path):
    MemoryFileSystem.store.clear()
    url = "unlisted://bucket/lost"
    write_shard(url, SHARDS[0])
    write_index(url, ["train-000000"])
    dataset = Dataset.open(url)
    for suffix in ("tar", "parquet"):
        fsspec.core.url_to_fs(url)[0].rm(f"{url}/train-000000.{suffix}")
    with pytest.raises(DatasetError, match=r"train-000000\.tar: not there"):
        list(dataset.samples("train-000000"))
    with pytest.raises(DatasetError, match=r"train-000000\.tar: not there"):
        dataset.read_image("train-000000", tar_offset=0, tar_size=1)
    with pytest.raises(DatasetError, match=r"train-000000\.parquet: not there"):
        dataset.regions()


def test_a_table_of_other_columns_is_refused(tmp_path):
    write_shard(str(tmp_path), SHARDS[0])
    dataset = Dataset.open(tmp_path)
    table = dataset.regions().drop_columns(["status", "x0"]).append_column("x0", pa.nulls(8, pa.string()))
    (tmp_path / "train-000000.parquet").write_bytes(to_parquet(table))
    with pytest.raises(
        DatasetError, match=r"train-000000\.parquet: .*x0 is string, not float; lacking status; written by"
    ):
        dataset.regions(columns=["key"])


def test_columns_may_be_lacking_where_an_earlier_release_wrote_and_added_where_a_later_one_did(tmp_path):
    write_shard(str(tmp_path), SHARDS[0])
    dataset = Dataset.open(tmp_path)
    whole = dataset.regions()
    table = whole.drop_columns(["source_id", "mask_rle"]).append_column("mood", pa.nulls(8, pa.string()))
    (tmp_path / "train-000000.parquet").write_bytes(to_parquet(table))
    assert dataset.regions().equals(whole)
    assert dataset.regions(columns=["source_id", "key"]).equals(whole.select(["source_id", "key"]))


def replace_tar(path: Path, content: bytes) -> Dataset:
    """Return the data set of SHARDS[0], opened before its tar is replaced."""
    write_shard(str(path), SHARDS[0])
    dataset = Dataset.open(path)
    (path / "train-000000.tar").write_bytes(content)
    return dataset


def test_a_tar_that_lost_samples_is_found_out(tmp_path):
    dataset = replace_tar(tmp_path, tar_members(SHARDS[0][0]) + END)
    with pytest.raises(DatasetError, match=r"train-000000\.tar: 1 samples where the marker says 2"):
        list(dataset.samples("train-000000"))
    with pytest.raises(DatasetError, match=r"train-000000\.tar: key 'b' is not at byte \d+, where the table says"):
        dataset.read_sample("b")


def test_a_second_sample_of_a_key_is_found_out(tmp_path):
    dataset = replace_tar(tmp_path, tar_members(SHARDS[0][0]) * 2 + END)
    with pytest.raises(DatasetError, match="key 'a': a second sample of this key at byte"):
        list(dataset.samples("train-000000"))


def test_moved_samples_are_found_out_by_random_access(tmp_path):
    dataset = replace_tar(tmp_path, tar_members(SHARDS[0][1]) + tar_members(SHARDS[0][0]) + END)
    with pytest.raises(DatasetError, match="key 'a' is not at byte 512"):
        dataset.read_sample("a")


def test_a_key_in_two_shards_is_ambiguous(tmp_path):
    for index in range(2):
        write_shard(str(tmp_path), SHARDS[0], index=index)
    with pytest.raises(DatasetError, match="key 'b' is in train-000000 and train-000001; give the inputs different"):
        Dataset.open(tmp_path).read_sample("b")


def test_changed_pixels_are_found_out_when_asked(tmp_path):
    image = SHARDS[0][0].image
    changed = image[:-1] + bytes([image[-1] ^ 1])
    content = (tar_members(SHARDS[0][0]) + tar_members(SHARDS[0][1]) + END).replace(image, changed)
    dataset = replace_tar(tmp_path, content)
    assert len(list(dataset.samples("train-000000"))) == 2
    with pytest.raises(DatasetError, match="key 'a' at byte 512: the image's sha256 is not its record's"):
        list(dataset.samples("train-000000", verify=True))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b'"width":48', b'"width":"8', "not a version 1 ImageRecord|malformed"),
        (b'"num_regions":2', b'"num_regions":3', "num_regions: says 3, but there are 2"),
        (b'"key":"a"', b'"key":"x"', "its record is that of 'x'"),
        (
            b'"image_caption":"two shapes"',
            b'"image_caption":"two shapez"',
            "image_captions: the first is not image_caption",
        ),
        (b"two shapes", b"two shapez", "a.txt is not the record's image_caption"),
    ],
)
def test_a_wrong_record_is_named(tmp_path, old, new, message):
    content = tar_members(SHARDS[0][0])
    start = content.index(b"a.json")
    count = 1 if old.startswith(b'"') else -1
    content = content[:start] + content[start:].replace(old, new, count) + tar_members(SHARDS[0][1]) + END
    dataset = replace_tar(tmp_path, content)
    with pytest.raises(DatasetError, match=rf"train-000000\.tar: key 'a' at byte 512: .*({message})"):
        list(dataset.samples("train-000000"))


def test_a_range_beyond_the_end_is_refused(url, markers):
    dataset = Dataset.open(url)
    with pytest.raises(DatasetError, match=r"train-000000\.tar: 1024 bytes at byte \d+ where 1112 were asked for"):
        dataset.read_image("train-000000", tar_offset=markers[0].tar.size - 512, tar_size=600)
