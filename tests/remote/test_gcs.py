"""Google Cloud Storage, on an emulator behind the proxy: the same data set, training and answers as of a folder."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from schemas import stores
from tests.builders import CHEAP, SEARCH, data_files, image_rows, jpeg, read_rows, run, write_files, write_tars
from tests.pipeline.viewer.data import write_data as write_view
from tests.remote import servers
from tests.remote.proxy import Proxy, proxied, some
from tests.remote.test_viewer import answers
from tests.trainer.run.test_loop import assert_same_run, run_training
from tests.trainer.runs import RECIPE, change, write_data

pytestmark = pytest.mark.remote
if importlib.util.find_spec("gcsfs") is None:  # importing it here would be too early for what `proxy` sets
    pytest.skip("NOT TESTED: Google Cloud Storage. Install gcsfs, as `make test-remote` does", allow_module_level=True)
BUCKET = "gs://bucket"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """An emulator behind a proxy."""
    with servers.fake_gcs(tmp_path_factory.mktemp("gcs")) as upstream, proxied(upstream) as proxy:
        yield proxy


@pytest.fixture
def proxy(running: Proxy, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """An empty bucket behind a proxy; only what is asked of it from now on is counted."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", running.url)
    monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")  # an emulator does not speak gRPC
    monkeypatch.setitem(fsspec.config.conf, "gs", {"token": "anon"})
    gcs = fsspec.get_filesystem_class("gs")
    gcs.clear_instance_cache()
    monkeypatch.setattr(stores, "_stores", {})
    fs = fsspec.filesystem("gs")
    if fs.exists("bucket"):
        fs.rm("bucket", recursive=True)
    fs.mkdir("bucket")
    running.forget()
    yield running
    running.forget()
    gcs.clear_instance_cache()


def put(folder: Path, name: str) -> str:
    fs = fsspec.filesystem("gs")
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            fs.pipe_file(f"bucket/{name}/{path.relative_to(folder)}", path.read_bytes())
    fs.invalidate_cache()
    return f"{BUCKET}/{name}"


def files(folder: str) -> dict[str, bytes]:
    """Return the files right in a folder of the bucket."""
    fs = fsspec.filesystem("gs")
    fs.invalidate_cache()
    found = [entry["name"] for entry in fs.ls(f"bucket/{folder}", detail=True) if entry["type"] == "file"]
    return {name.rpartition("/")[2]: fs.cat_file(name) for name in found}


@pytest.mark.parametrize("share", [0.0, 0.05])
def test_input_and_output(proxy: Proxy, tmp_path: Path, share: float) -> None:
    source = put(write_tars(tmp_path / "tars", num_tars=6, num_images=2), "tars")
    assert run("annotate", source, tmp_path / "local", *CHEAP, "--max-dead", "1").code == 0
    proxy.forget()
    proxy.trouble = some(1, share)
    ended = run("annotate", source, f"{BUCKET}/out", *CHEAP, "--max-dead", "1")
    assert ended.code == 0, ended.err
    assert bool(proxy.struck) == bool(share)
    proxy.forget()
    assert files("out") == data_files(tmp_path / "local")
    checked = run("doctor", f"{BUCKET}/out")
    assert (checked.code, "in 6 shards" in checked.out) == (0, True), checked


def test_images_of_a_folder(proxy: Proxy, tmp_path: Path) -> None:
    """Names are what browsers and shells trip over."""
    names = ("a b.jpg", "50%25.jpg", "x+y.jpg", "ü#1.jpg", "q?.jpg", "sub/c.jpg")
    folder = write_files(tmp_path / "photos", {name: jpeg(number) for number, name in enumerate(names)})
    source = put(folder, "photos")
    for place, name in ((source, "found"), (folder, "local")):
        ended = run("annotate", place, tmp_path / name, *SEARCH, "--max-dead", "1")
        assert ended.code == 0, ended.err
    found, local = data_files(tmp_path / "found"), data_files(tmp_path / "local")
    assert found["train-000000.tar"] == local["train-000000.tar"]
    assert sorted(image_rows(tmp_path / "found")) == sorted(image_rows(tmp_path / "local"))
    assert not [row for row in read_rows(tmp_path / "found") if row["status"] == "dead"]


@pytest.fixture
def data(proxy: Proxy, tmp_path: Path) -> tuple[str, Path]:
    """A data set on the emulator, and where it is here."""
    (tmp_path / "data").mkdir()
    write_data(tmp_path / "data", (9, 4, 6))
    url = put(tmp_path / "data", "data")
    proxy.forget()
    return url, tmp_path / "data"


@pytest.mark.parametrize(("stream", "requests"), [(True, 6), (False, 2 * 19)])
def test_training_asks_for_each_tar_or_for_each_image(
    proxy: Proxy, data: tuple[str, Path], tmp_path: Path, stream: bool, requests: int
) -> None:
    url, folder = data
    recipe = change(RECIPE, stream=stream)
    run_training(url, tmp_path / "remote", recipe)
    asked = [request for request in proxy.asked if request.endswith(".tar") and request.startswith("GET")]
    assert len(asked) == requests, "two epochs"
    run_training(str(folder), tmp_path / "local", recipe)
    assert_same_run(tmp_path / "remote", tmp_path / "local")


def test_the_viewer_shows_what_it_shows_of_a_folder(proxy: Proxy, tmp_path: Path) -> None:
    (tmp_path / "view").mkdir()
    write_view(str(tmp_path / "view"))
    url = put(tmp_path / "view", "view")
    proxy.trouble = some(7, 0.1)
    found, expected = answers(url), answers(str(tmp_path / "view"))
    assert [answer.status for answer in found] == [200] * len(found)
    local = str(tmp_path / "view").encode()
    assert [answer.body.replace(url.encode(), local) for answer in found] == [answer.body for answer in expected]
