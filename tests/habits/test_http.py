"""Plain web servers: what they can give is read; that they list no files is said."""

import http.server
import json
import re
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.read import open_source
from pipeline.read.base import InputError, SourceError
from pipeline.read.items import read_file
from pipeline.read.location import Location
from pipeline.read.remote import copied
from tests.builders import CHEAP, annotate, image_rows, jpeg, members, read_rows, run, write_files, write_tar
from tests.pipeline.read.source_builders import read_all, reasons


class PlainHandler(http.server.SimpleHTTPRequestHandler):
    """Python's own: it gives lengths and times, and ignores ranges."""

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


class RangeHandler(PlainHandler):
    """One that answers ranges, as nginx does."""

    def do_GET(self) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        path = Path(self.translate_path(self.path))
        if asked is None or not path.is_file():
            super().do_GET()
            return
        data = path.read_bytes()
        part = data[int(asked[1]) : int(asked[2]) + 1]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {asked[1]}-{asked[2]}/{len(data)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)


class LengthlessHandler(PlainHandler):
    """One that streams, and knows no lengths."""

    protocol_version = "HTTP/1.0"

    def _answer(self, *, body: bool) -> None:
        path = Path(self.translate_path(self.path))
        self.send_response(200 if path.is_file() else 404)
        self.end_headers()
        if body and path.is_file():
            for byte in range(0, path.stat().st_size, 1000):
                self.wfile.write(path.read_bytes()[byte : byte + 1000])
                self.wfile.flush()

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)


HANDLERS = [PlainHandler, RangeHandler, LengthlessHandler]


@pytest.fixture(params=HANDLERS, ids=lambda handler: handler.__name__)
def web(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of a server of `tmp_path / "web"`."""
    (tmp_path / "web").mkdir()
    handler = partial(request.param, directory=str(tmp_path / "web"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_parquet_is_read_with_ranges_or_without(web: str, tmp_path: Path):
    images = [jpeg(n, 200, 200) for n in range(40)]
    table = pa.table({"image": images, "text": [f"words {n}" for n in range(40)]})
    pq.write_table(table, tmp_path / "web" / "x.parquet", row_group_size=10)
    items = read_all(f"parquet:{web}/x.parquet", shard_size=7)
    assert [(item.data, item.drop) for item in items] == [(image, None) for image in images]
    assert [item.captions for item in items] == [(words,) for words in table["text"].to_pylist()]


def test_tars_are_read_by_name_and_by_range(web: str, tmp_path: Path):
    for number in range(3):
        write_tar(tmp_path / "web" / f"{number}.tar", [members(f"k{number}")])
    assert [item.key for item in read_all(f"{web}/1.tar")] == ["k1"]
    items = read_all(f"{web}/{{0..3}}.tar")
    assert [item.key for item in items] == ["k0", "k1", "k2", "3-missing"]
    assert reasons(items)[:3] == [None] * 3


def test_a_tar_whose_connection_breaks_is_fetched_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It was fetched from the start again. Megabytes: what the client holds of a reply that breaks is lost."""
    monkeypatch.setattr("schemas.store_errors._BACK_OFF_S", 0.001)
    image = jpeg(1, 1000, 1000)
    write_tar(tmp_path / "web" / "x.tar", [members(f"k{number}", image=image) for number in range(12)])
    content = (tmp_path / "web" / "x.tar").read_bytes()
    asked: list[str | None] = []

    class Breaking(PlainHandler):
        def do_GET(self) -> None:
            asked.append(self.headers.get("Range"))
            start = int((asked[-1] or "bytes=0-").removeprefix("bytes=").removesuffix("-"))
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            self.wfile.write(content[start:] if start else content[: len(content) // 2])

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Breaking) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        with copied(f"http://127.0.0.1:{server.server_port}/x.tar") as copy:
            assert copy.read() == content
        server.shutdown()
        thread.join()
    assert asked[0] is None and len(asked) == 2 and asked[1] != "bytes=0-"


def coco(folder: Path, names: list[str]) -> None:
    images = [{"id": number, "file_name": name} for number, name in enumerate(names)]
    boxes = [{"id": n, "image_id": n, "bbox": [1, 1, 20, 20]} for n in range(len(names))]
    captions = [{"id": n, "image_id": n, "caption": f"words {n}"} for n in range(len(names))]
    write_files(folder, {"ann/boxes.json": json.dumps({"images": images, "annotations": boxes}).encode()})
    write_files(folder, {"ann/captions.json": json.dumps({"images": images, "annotations": captions}).encode()})


def test_coco_is_read_with_its_images_beside_or_in_a_folder(web: str, tmp_path: Path):
    names = ["a.jpg", "b c.jpg", "ü#1.jpg", "gone.jpg"]
    pictures = {name: jpeg(number, 200, 200) for number, name in enumerate(names[:3])}
    write_files(tmp_path / "web" / "ann", pictures)
    write_files(tmp_path / "web" / "ann" / "pics", pictures)
    coco(tmp_path / "web", names)
    for options in ("?captions=captions.json", "?images=pics&captions=captions.json",
                    f"?images={web}/ann/pics&captions={web}/ann/captions.json"):  # fmt: skip
        items = {item.key: item for item in read_all(f"coco:{web}/ann/boxes.json{options}")}
        found = {item.data for item in items.values() if item.drop is None}
        assert found == set(pictures.values()), options
        assert {item.captions for item in items.values() if item.drop is None} == {(f"words {n}",) for n in range(3)}
        assert items["gone"].drop is not None
        assert all(len(item.given) == 1 for item in items.values() if item.drop is None)


def test_conversations_are_read_with_the_pictures_that_they_name(web: str, tmp_path: Path):
    row = {"image": "a%20b.jpg", "objects": {"ref": ["a cat"], "bbox": [[1, 2, 30, 40]]}}
    picture = jpeg(0, 200, 200)
    write_files(tmp_path / "web", {"x.jsonl": json.dumps(row).encode(), "a b.jpg": picture})
    (item,) = read_all(f"grounding:{web}/x.jsonl")
    assert (item.data, [region.caption for region in item.given]) == (picture, ["a cat"])
    with pytest.raises(SourceError, match="a web server lists no files"):
        read_all(f"flickr30k:{web}/")


def test_a_single_image_is_read(web: str, tmp_path: Path):
    write_files(tmp_path / "web", {"a.jpg": jpeg(1, 300, 300), "a.txt": b"words"})
    (item,) = read_all(f"{web}/a.jpg")
    assert (item.data, item.captions) == (jpeg(1, 300, 300), ("words",))


@pytest.mark.parametrize("rest", ["folder:{}/pics/", "{}/pics/", "{}/pics/*.jpg", "{}/*.tar", "parquet:{}/", "{}/"])
def test_a_server_lists_no_files_and_the_refusal_says_so(web: str, tmp_path: Path, rest: str):
    write_files(tmp_path / "web" / "pics", {"a.jpg": jpeg(1)})
    with pytest.raises(SourceError, match="a web server lists no files") as refused:
        list(open_source(rest.format(web)).files())
    assert "{000..127}" in str(refused.value)


def test_what_is_not_there_is_said(web: str):
    for spec in (f"{web}/gone.tar", f"parquet:{web}/gone.parquet", f"coco:{web}/gone.json"):
        with pytest.raises(SourceError, match="no such file"):
            list(open_source(spec).files())


def test_a_job_over_http_from_plan_to_resume(web: str, tmp_path: Path):
    write_files(tmp_path / "web" / "ann", {"a.jpg": jpeg(1), "b.jpg": jpeg(2)})
    coco(tmp_path / "web", ["a.jpg", "b.jpg"])
    spec = f"coco:{web}/ann/boxes.json"
    assert run("plan", spec, tmp_path / "out", *CHEAP).code == 0
    annotate(spec, tmp_path / "out")
    assert set(image_rows(tmp_path / "out")) == {"a", "b"}
    assert [row["status"] for row in read_rows(tmp_path / "out")] == ["ok"] * 4
    assert "Nothing to do" in annotate(spec, tmp_path / "out").out


def test_a_server_that_goes_away_is_the_inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("schemas.store_errors._BACK_OFF_S", 0.001)
    write_tar(tmp_path / "web" / "0.tar", [members("a")])
    handler = partial(PlainHandler, directory=str(tmp_path / "web"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        spec = f"http://127.0.0.1:{server.server_port}/0.tar"
        assert run("plan", spec, tmp_path / "out", *CHEAP).code == 0
        server.shutdown()
        thread.join()
    outcome = run("annotate", spec, tmp_path / "out", *CHEAP)
    assert outcome.code == 5, outcome
    assert spec in outcome.err
    assert "no such file" not in outcome.err


def test_a_server_that_goes_away_leaves_no_image_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """fsspec calls a file of a server that cannot be reached missing; its image would be dead for ever."""
    monkeypatch.setattr("schemas.store_errors._BACK_OFF_S", 0.001)
    write_files(tmp_path / "web", {"a.jpg": jpeg(1)})
    handler = partial(PlainHandler, directory=str(tmp_path / "web"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        location = Location.of(f"http://127.0.0.1:{server.server_port}/a.jpg")
        server.shutdown()
        thread.join()
    with pytest.raises(InputError, match="check the address and the network"):
        read_file(location, "a.jpg")
    with pytest.raises(InputError, match="check the address and the network"):
        location.files()


@pytest.mark.parametrize("status", [403, 500, 503])
def test_a_server_in_trouble_leaves_no_image_missing(tmp_path: Path, status: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("schemas.store_errors._BACK_OFF_S", 0.001)

    class Failing(PlainHandler):
        def do_GET(self) -> None:
            self.send_error(status)

        def do_HEAD(self) -> None:
            self.send_error(status)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Failing) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        location = Location(root=f"http://127.0.0.1:{server.server_port}", name="a.jpg")
        for look in (location.files, lambda: read_file(location, "a.jpg"), lambda: copied(str(location))):
            with pytest.raises(InputError, match=str(status)):
                look()
        server.shutdown()
        thread.join()
