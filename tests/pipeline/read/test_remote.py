"""INPUTs on S3 (moto): requests are counted, a store that fails is told of, and what is read is of one version."""

import io
import os
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest

from pipeline.errors import InputError
from pipeline.read.items import SampleError, read_file, read_image_file
from pipeline.read.location import Location
from pipeline.read.remote import copied
from schemas.reasons import Reason
from tests.builders import CHEAP, data_files, jpeg, read_rows, run, write_files, write_photos, write_tars
from tests.pipeline.store.conftest import running_server, server  # noqa: F401
from tests.pipeline.store.s3_server import BUCKET, S3Server, forget_credentials, forget_s3fs

FOUND = ("--proposer", "selective_search", "--captioner", "rule", "--max-dead", "1")


def put(folder: Path, name: str) -> str:
    """Copy a folder into the bucket; nothing of it is remembered by the client."""
    fs = fsspec.filesystem("s3")
    for path in folder.rglob("*"):
        if path.is_file():
            fs.pipe_file(f"{BUCKET}/{name}/{path.relative_to(folder)}", path.read_bytes())
    forget_s3fs()
    return f"s3://{BUCKET}/{name}"


def is_shared_by_threads() -> bool:
    """Whether the threads of a process have one client, and so one memory of listings: not before fsspec 2026.6."""
    with ThreadPoolExecutor(1) as other:
        return fsspec.filesystem("s3") is other.submit(fsspec.filesystem, "s3").result()


def bytes_of(output: Path) -> dict[str, bytes]:
    return {name: data for name, data in data_files(output).items() if name.endswith((".tar", ".parquet"))}


def test_a_folder_is_listed_once_and_an_image_takes_one_request(server: S3Server, tmp_path: Path) -> None:  # noqa: F811
    photos = write_photos(tmp_path / "photos", 12)
    write_files(photos, {f"{path.stem}.txt": b"words" for path in sorted(photos.glob("*.jpg"))})
    url = put(photos, "photos")
    num_files = len(list(photos.iterdir()))
    server.asked.clear()
    assert run("plan", url, tmp_path / "remote", *FOUND, "--shard-size", "3").code == 0
    assert (server.count("LIST"), server.count("HEAD")) == (2, 1), "what it is, and what it holds"
    forget_s3fs()
    server.asked.clear()
    assert run("annotate", url, tmp_path / "remote", *FOUND, "--shard-size", "3").code == 0
    more = 0 if is_shared_by_threads() else 1  # by the thread that reads
    assert (server.count("LIST"), server.count("HEAD")) == (2 + more, 1 + more)
    assert server.count("GET") == num_files, "one for each image, and for each file beside it"
    assert run("annotate", photos, tmp_path / "local", *FOUND, "--shard-size", "3").code == 0
    assert [len(data) for data in bytes_of(tmp_path / "remote").values()] == [
        len(data) for data in bytes_of(tmp_path / "local").values()
    ]


def test_tars_are_fetched_whole_in_one_request_each(server: S3Server, tmp_path: Path) -> None:  # noqa: F811
    tars = write_tars(tmp_path / "tars", num_tars=3, num_images=2)
    url = put(tars, "tars")
    server.asked.clear()
    assert run("annotate", url, tmp_path / "remote", *CHEAP).code == 0
    more = 0 if is_shared_by_threads() else 1 + 3  # by the thread that reads, which looks beside each tar too
    assert (server.count("GET"), server.count("HEAD"), server.count("LIST")) == (3, 1 + more, 2 + more)
    assert run("annotate", tars, tmp_path / "local", *CHEAP).code == 0
    remote, local = bytes_of(tmp_path / "remote"), bytes_of(tmp_path / "local")
    assert {name: remote[name] for name in remote if name.endswith(".tar")} == {
        name: local[name] for name in local if name.endswith(".tar")
    }


@pytest.mark.parametrize("size", [0, 1, 999, 1000, 1001, 4000, 4567])
def test_a_tar_is_fetched_in_ranges(
    server: S3Server,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    size: int,
) -> None:
    monkeypatch.setattr("pipeline.read.remote._RANGE", 1000)
    data = bytes(index * 7 % 251 for index in range(size))
    fsspec.filesystem("s3").pipe_file(f"{BUCKET}/x.tar", data)
    server.asked.clear()
    with copied(f"s3://{BUCKET}/x.tar") as copy:
        assert copy.read() == data
    assert server.count("GET") == max(1, -(-size // 1000))


def test_a_disk_that_takes_a_part_of_a_range_gets_the_rest(
    server: S3Server,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, start: write(file, bytes(data)[:300], start))
    data = bytes(range(250)) * 4
    fsspec.filesystem("s3").pipe_file(f"{BUCKET}/x.tar", data)
    with copied(f"s3://{BUCKET}/x.tar") as copy:
        assert copy.read() == data


def test_ranges_are_of_one_version(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """A mixture of two tars would be read as a damaged one."""
    monkeypatch.setattr("pipeline.read.remote._RANGE", 1000)
    monkeypatch.setattr("schemas.store_errors._BACK_OFF_S", 0.001)
    fs = fsspec.filesystem("s3")
    fs.pipe_file(f"{BUCKET}/x.tar", b"a" * 3000)
    seen = iter(range(100))

    def replace_it(request: str) -> None:
        if request.startswith("GET") and next(seen) == 1:
            fs_too = fsspec.filesystem("s3", skip_instance_cache=True)
            fs_too.pipe_file(f"{BUCKET}/x.tar", b"b" * 3000)

    server.trouble = replace_it
    with pytest.raises(InputError, match=r"x\.tar"):
        copied(f"s3://{BUCKET}/x.tar")


def test_a_range_that_breaks_off_is_asked_for_again(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setattr("pipeline.read.remote._RANGE", 1000)
    monkeypatch.setattr("schemas.store_errors._BACK_OFF_S", 0.001)
    data = bytes(range(250)) * 20
    fsspec.filesystem("s3").pipe_file(f"{BUCKET}/x.tar", data)
    asked = iter(range(100))
    server.trouble = lambda request: "reset" if next(asked) % 3 == 2 else None
    with copied(f"s3://{BUCKET}/x.tar") as copy:
        assert copy.read() == data


def test_a_damaged_tar_is_told_of_as_a_local_one_is(
    server: S3Server,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pipeline.read.remote._RANGE", 5000)
    tars = write_tars(tmp_path / "tars", num_tars=2, num_images=6)
    first, second = sorted(tars.glob("*.tar"))
    data = bytearray(first.read_bytes())
    data[3000:6000] = bytes(3000)
    first.write_bytes(data)
    second.write_bytes(second.read_bytes()[:9000])
    url = put(tars, "tars")
    for place, name in ((url, "remote"), (str(tars), "local")):
        assert run("annotate", place, tmp_path / name, *CHEAP, "--max-dead", "1").code == 0
    remote, local = ([(row["key"], row["reason"]) for row in read_rows(tmp_path / n)] for n in ("remote", "local"))
    assert remote == local
    assert {reason for _, reason in local} > {None}, "something is damaged"


def test_empty_and_missing_images_are_rows(server: S3Server) -> None:  # noqa: F811
    """S3 has no range of an empty object: it answers 416."""
    fs = fsspec.filesystem("s3")
    fs.pipe_file(f"{BUCKET}/photos/empty.jpg", b"")
    fs.pipe_file(f"{BUCKET}/photos/a.jpg", b"bytes")
    location = Location.of(f"s3://{BUCKET}/photos")
    assert read_file(location, "empty.jpg") == b""
    server.asked.clear()
    assert read_file(location, "a.jpg") == b"bytes"
    assert server.asked == ["GET /bucket/photos/a.jpg"]
    for name, reason in (("empty.jpg", Reason.EMPTY_FILE), ("gone.jpg", Reason.MISSING)):
        with pytest.raises(SampleError) as raised:
            read_image_file(location, name)
        assert raised.value.reason is reason


def test_more_than_the_limit_is_not_fetched(server: S3Server) -> None:  # noqa: F811
    fsspec.filesystem("s3").pipe_file(f"{BUCKET}/a.jpg", b"0123456789")
    assert Location.of(f"s3://{BUCKET}/a.jpg").read("a.jpg", 4) == b"0123"


def test_a_file_that_was_replaced_is_noticed_in_the_same_process(server: S3Server, tmp_path: Path) -> None:  # noqa: F811
    """fsspec remembers listings, and with them sizes and etags."""
    url = put(write_tars(tmp_path / "tars", num_tars=2, num_images=2), "tars")
    names = [entry.rsplit("/", 1)[-1] for entry in sorted(fsspec.filesystem("s3").ls(f"{BUCKET}/tars"))]
    spec = f"{url}/{{00000..00001}}.tar"
    assert names == ["00000.tar", "00001.tar"]
    assert run("annotate", spec, tmp_path / "out", *CHEAP).code == 0
    other = fsspec.filesystem("s3", skip_instance_cache=True)
    buffer = io.BytesIO()
    tarfile.open(fileobj=buffer, mode="w").close()
    other.pipe_file(f"{BUCKET}/tars/00001.tar", buffer.getvalue())
    refused = run("annotate", spec, tmp_path / "out", *CHEAP)
    assert refused.code == 3, refused
    assert "1 changed" in refused.err


@pytest.mark.parametrize("rest", ["photos", "photos/a.jpg", "photos/*.jpg", "{0..1}.tar", "boxes.json"])
def test_no_credentials_are_a_sentence_for_each_kind_of_input(
    server: S3Server,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rest: str,
) -> None:
    forget_credentials(monkeypatch)
    refused = run("plan", f"s3://{BUCKET}/{rest}", tmp_path / "out", *FOUND)
    assert refused.code == 5
    assert "give the store's credentials" in refused.err


def test_a_store_that_fails_while_images_are_read_is_no_dead_image(
    server: S3Server,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("schemas.store_errors._BACK_OFF_S", 0.001)
    monkeypatch.setattr("s3fs.core.S3FileSystem.retries", 1)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    photos = write_files(tmp_path / "photos", {f"{n:02}.jpg": jpeg(n) for n in range(12)})
    url = put(photos, "photos")
    assert run("plan", url, tmp_path / "out", *FOUND).code == 0
    server.trouble = lambda request: "500" if request.startswith("GET") else None
    failed = run("annotate", url, tmp_path / "out", *FOUND)
    assert failed.code == 5, failed
    assert f"s3://{BUCKET}/photos/" in failed.err
    server.trouble = lambda request: None
    done = run("annotate", url, tmp_path / "out", *FOUND)
    assert done.code == 0, done


def test_objects_that_stand_for_folders_are_no_files(server: S3Server, tmp_path: Path) -> None:  # noqa: F811
    """Consoles make `photos/`, other tools an empty `photos`; either hid the pictures or was listed among them."""
    fs = fsspec.filesystem("s3")
    photos = write_files(tmp_path / "photos", {"a.jpg": jpeg(1), "sub/b.jpg": jpeg(2)})
    put(photos, "photos")
    put(photos, "twin")
    for key in ("photos/", "photos/sub/", "photos/none/", "twin"):
        fs.call_s3("put_object", Bucket=BUCKET, Key=key, Body=b"")
    forget_s3fs()
    for name in ("photos", "photos/", "twin", "twin/"):
        location = Location.of(f"s3://{BUCKET}/{name}")
        assert [file.uri for file in location.files()] == ["a.jpg", "sub/b.jpg"], name
    fs.pipe_file(f"{BUCKET}/empty.jpg", b"")
    assert Location.of(f"s3://{BUCKET}/empty.jpg").name == "empty.jpg"
