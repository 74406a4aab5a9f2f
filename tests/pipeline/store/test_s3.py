"""OUTPUT on S3: moto's server and the real client, with real errors of servers, networks and logins."""

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from botocore.exceptions import ClientError

from pipeline.store.storage import Storage, StorageError, open_storage, storage_errors
from schemas.folder import Folder
from schemas.store_errors import in_words, library_errors, retried
from tests.pipeline.store.s3_server import BUCKET, S3Server, Trouble, forget_credentials, point_s3fs_at


@pytest.fixture
def storage(server: S3Server) -> Storage:
    """An OUTPUT in the bucket."""
    return open_storage(f"s3://{BUCKET}/out")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither we nor the client try long."""
    monkeypatch.setattr("schemas.store_errors._BACK_OFF_S", 0.001)
    monkeypatch.setattr("s3fs.core.S3FileSystem.retries", 1)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")


def settled(storage: Storage, name: str, data: bytes, folder: Path) -> None:
    path = folder / "written"
    path.write_bytes(data)
    storage.settle(path, name)


def test_each_operation_is_one_request(storage: Storage, server: S3Server, tmp_path: Path) -> None:
    settled(storage, "_attempts/a", b"data", tmp_path)
    assert storage.decide("_commit/a", b"decided")
    storage.publish("_attempts/a", "a.tar")
    storage.replace("b", b"replaced")
    assert storage.read("a.tar") == b"data"
    with pytest.raises(FileNotFoundError):
        storage.read("none")
    assert storage.size("a.tar") == 4
    assert storage.sizes("") == {"a.tar": 4, "b": 8}
    storage.remove("_attempts/a", "b", "none")
    assert server.asked == [
        "PUT /bucket/out/_attempts/a",
        "PUT /bucket/out/_commit/a",
        "COPY /bucket/out/a.tar",
        "PUT /bucket/out/b",
        "GET /bucket/out/a.tar",
        "GET /bucket/out/none",
        "HEAD /bucket/out/a.tar",
        "LIST /bucket?out%2F",
        "POST /bucket",
    ]
    assert storage.names("") == ["a.tar"]


def test_a_file_is_read_by_ranges(storage: Storage, server: S3Server) -> None:
    storage.replace("a", bytes(range(256)) * 20_000)
    server.asked.clear()
    with storage.open("a") as file:
        file.seek(-100, 2)
        assert file.read() == bytes(range(156, 256))
        file.seek(256)
        assert file.read(3) == b"\0\1\2"
    assert server.asked == ["HEAD /bucket/out/a", "GET /bucket/out/a", "GET /bucket/out/a"]


def test_an_empty_object_is_read(storage: Storage) -> None:
    storage.replace("empty", b"")
    assert storage.read("empty") == b""


def test_a_listing_goes_on_where_it_is_told_to(
    storage: Storage, server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "20")
    names = [f"train-{number:06d}.json" for number in range(30)]
    fs = fsspec.filesystem("s3")
    fs.pipe({f"{BUCKET}/out/{name}": b"{}" for name in names})
    server.asked.clear()
    assert list(storage.sizes("")) == names
    assert server.count("LIST") == 2, "a page holds 20 here, and a thousand at S3"
    server.asked.clear()
    assert list(storage.sizes("", after="train-000019.json")) == names[20:]
    assert server.count("LIST") == 1


def test_many_are_removed_at_once_whatever_they_are_called(storage: Storage, server: S3Server) -> None:
    names = ["a*.json", "b?.json", "c[1].json"]
    for name in [*names, "kept.json"]:
        storage.replace(f"x/{name}", b"{}")
    server.asked.clear()
    storage.remove(*(f"x/{name}" for name in [*names, "gone.json"]))
    assert server.count("POST") == len(server.asked) == 1
    assert storage.names("x") == ["kept.json"]


def test_one_that_the_store_keeps_is_told_of(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(method: str, **asked: Any) -> Any:
        assert method == "delete_objects"
        return {"Errors": [{"Key": "out/x", "Code": "AccessDenied", "Message": "a policy"}]}

    monkeypatch.setattr(storage._fs, "call_s3", refuse)  # type: ignore[attr-defined]
    with pytest.raises(StorageError, match=r"out/x was not deleted: AccessDenied a policy; permission denied"):
        storage.remove("x", "y")


def test_a_store_that_ignores_the_condition_is_refused(storage: Storage, server: S3Server) -> None:
    storage.check()
    server.trouble = lambda request: "ignores conditions"
    with pytest.raises(StorageError, match="s3://bucket/out: the store replaces an object"):
        storage.check()
    assert storage.names("_attempts") == []


@pytest.mark.parametrize("trouble", ["500", "reset"])
@pytest.mark.usefixtures("impatient")
def test_trouble_that_passes_is_not_noticed(storage: Storage, server: S3Server, trouble: Trouble) -> None:
    storage.replace("a", b"data")
    left = iter(range(2))
    server.trouble = lambda request: trouble if next(left, None) is not None else None
    assert storage.read("a") == b"data"
    assert next(left, None) is None


def test_a_lost_reply_to_our_own_decision_does_not_make_us_second(storage: Storage, server: S3Server) -> None:
    replies: Iterator[Trouble] = iter(("lost reply",))
    server.trouble = lambda request: next(replies, None)
    assert storage.decide("_commit/a.json", b"ours")
    assert server.count("PUT") > 1, "the client has tried again, and was told that the object is there"
    assert not storage.decide("_commit/a.json", b"theirs")


@pytest.mark.parametrize("trouble", ["500", "reset"])
@pytest.mark.usefixtures("impatient")
def test_trouble_that_stays_is_a_sentence(storage: Storage, server: S3Server, trouble: Trouble) -> None:
    server.trouble = lambda request: trouble
    with pytest.raises(
        StorageError, match=r"^s3://bucket/out/a: .*; .*run the same command again.* \(tried for"
    ) as raised:
        storage.read("a")
    assert not raised.value.may_pass, "it was waited for already"


@pytest.mark.usefixtures("impatient")
def test_nobody_listening_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    point_s3fs_at(f"http://127.0.0.1:{port}", monkeypatch)
    with pytest.raises(StorageError, match=rf"^s3://bucket/out/a: .*{port}.*check the address and the network"):
        open_storage(f"s3://{BUCKET}/out").read("a")


def test_no_credentials_are_a_sentence(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    forget_credentials(monkeypatch)
    with pytest.raises(StorageError, match=r"NoCredentialsError: .*; give the store's credentials") as raised:
        open_storage(f"s3://{BUCKET}/out").read("a")
    assert not raised.value.may_pass
    assert server.asked == []


@pytest.mark.parametrize("read", ["sizes", "size", "read", "read_range", "stream", "table"])
def test_readers_of_a_data_set_say_so_too(server: S3Server, monkeypatch: pytest.MonkeyPatch, read: str) -> None:
    forget_credentials(monkeypatch)
    folder = Folder(f"s3://{BUCKET}/out")
    reads: dict[str, Callable[[], object]] = {
        "sizes": folder.sizes,
        "size": lambda: folder.size("a"),
        "read": lambda: folder.read(["a"]),
        "read_range": lambda: folder.read_range("a", offset=0, size=1),
        "stream": lambda: folder.stream("a").__enter__(),
        "table": lambda: folder.table("a", columns=[], check=lambda *_: None),
    }
    with pytest.raises(StorageError, match="give the store's credentials"):
        reads[read]()


def test_a_bucket_that_is_not_there_is_a_sentence(server: S3Server) -> None:
    storage = open_storage("s3://nosuch/out")
    with pytest.raises(StorageError, match="bucket does not exist"), storage_errors(storage.url):
        storage.check()


def test_a_reader_takes_one_request_for_a_small_file(server: S3Server) -> None:
    storage = open_storage(f"s3://{BUCKET}/out")
    storage.replace("a.json", b"{}")
    storage.replace("empty", b"")
    folder = Folder(f"s3://{BUCKET}/out")
    server.asked.clear()
    assert folder.read(["a.json", "none"]) == [b"{}", None]
    assert sorted(server.asked) == ["GET /bucket/out/a.json", "GET /bucket/out/none"]
    assert folder.read(["empty"]) == [b""]


def test_a_reader_sees_what_has_changed_since_the_folder_was_listed(server: S3Server) -> None:
    """The client remembers a listing for as long as the process lives."""
    folder, storage = Folder(f"s3://{BUCKET}/out"), open_storage(f"s3://{BUCKET}/out")
    storage.replace("old.json", b"{}")
    assert folder.sizes() == {"old.json": 2}
    other = fsspec.filesystem("s3", skip_instance_cache=True)
    other.pipe_file(f"{BUCKET}/out/new.json", b"new")
    with folder.stream("new.json") as file:
        assert file.read() == b"new"
    assert folder.sizes() == {"new.json": 3, "old.json": 2}
    other.pipe_file(f"{BUCKET}/out/old.json", b"longer")
    assert folder.size("old.json") == 6


def test_folders_that_a_console_made_are_not_in_the_way(server: S3Server) -> None:
    storage = open_storage(f"s3://{BUCKET}/out")
    for key in ("out/", "out/_leases/"):
        fsspec.filesystem("s3").call_s3("put_object", Bucket=BUCKET, Key=key, Body=b"")
    assert storage.names("") == storage.names("_leases") == []
    assert Folder(f"s3://{BUCKET}/out").sizes() == {}


@pytest.mark.parametrize("code", ["ExpiredToken", "InvalidAccessKeyId", "SignatureDoesNotMatch"])
def test_a_login_that_has_run_out_is_no_question_of_rights(code: str) -> None:
    """The client calls it a PermissionError, and another OUTPUT would not help."""
    cause = ClientError({"Error": {"Code": code, "Message": "the token has expired"}}, "PutObject")
    error = PermissionError("the token has expired")
    error.__cause__ = cause
    assert "give the store's credentials" in str(in_words(error, "s3://bucket/out/a"))
    assert "choose an OUTPUT that you may write" in str(in_words(PermissionError("no"), "s3://bucket/out/a"))


def test_what_google_calls_a_bad_request_is_a_sentence() -> None:
    """gcsfs raises ValueError for it."""
    with pytest.raises(StorageError, match=r"gs://b/a: .*\n?invalid bucket name"), library_errors("gs://b/a"):
        raise ValueError("Bad Request: b/a\ninvalid bucket name")
    with pytest.raises(ValueError, match="ours"), library_errors("gs://b/a"):
        raise ValueError("ours")


@pytest.mark.usefixtures("impatient")
def test_small_files_that_come_together_are_waited_for_one_by_one(storage: Storage, server: S3Server) -> None:
    for name in ("a", "b", "c"):
        storage.replace(name, name.encode())
    folder, left = Folder(f"s3://{BUCKET}/out"), iter(range(3))
    server.trouble = lambda request: "500" if next(left, None) is not None else None
    assert folder.read(["a", "b", "none", "c"]) == [b"a", b"b", None, b"c"]
    server.trouble = lambda request: "500"
    with pytest.raises(StorageError, match=r"^s3://bucket/out/a: .*\(tried for"):
        folder.read(["a"])


@pytest.mark.usefixtures("impatient")
def test_a_store_that_was_given_up_is_not_asked_again_at_once(
    storage: Storage, server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a command does while it ends waited for the same store again, and again."""
    monkeypatch.setattr("schemas.stores._NOT_ASKED", 1000)
    storage.replace("a", b"data")
    server.trouble = lambda request: "500"
    with pytest.raises(StorageError, match="out/a: "):
        storage.read("a")
    server.asked.clear()
    with pytest.raises(StorageError, match="out/a: "):
        retried(lambda: storage.remove("b"))
    assert server.asked == []
    monkeypatch.setattr("schemas.stores._NOT_ASKED", 0)
    server.trouble = lambda request: None
    assert storage.read("a") == b"data"


@pytest.mark.usefixtures("impatient")
def test_who_waits_is_told_why(
    storage: Storage, server: S3Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("schemas.stores._TOLD_AFTER_S", 0)
    storage.replace("a", b"data")
    left = iter(range(2))
    server.trouble = lambda request: "500" if next(left, None) is not None else None
    assert storage.read("a") == b"data"
    assert [record.getMessage().partition(" (")[0] for record in caplog.records] == ["s3://bucket does not answer"]
