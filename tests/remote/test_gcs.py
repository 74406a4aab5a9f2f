"""Google Cloud Storage, on an emulator behind the proxy: the data set of a folder, and a request a tar."""

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from tests.builders import CHEAP, data_files, run, write_tars
from tests.remote import servers
from tests.remote.proxy import Proxy, proxied, some
from tests.trainer.run.test_loop import assert_same_run, run_training
from tests.trainer.runs import RECIPE, change, write_data

pytestmark = pytest.mark.remote
pytest.importorskip("gcsfs", reason="NOT TESTED: Google Cloud Storage. Install gcsfs, as `make test-remote` does")
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
    monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    monkeypatch.setitem(fsspec.config.conf, "gs", {"token": "anon"})
    gcs = fsspec.get_filesystem_class("gs")
    gcs.clear_instance_cache()
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
    fs = fsspec.filesystem("gs")
    fs.invalidate_cache()
    found = {
        entry["name"].rpartition("/")[2]: fs.cat_file(entry["name"])
        for entry in fs.ls("bucket/out", detail=True)
        if entry["type"] == "file"
    }
    assert found == data_files(tmp_path / "local")


def test_a_stream_asks_for_each_tar_once_an_epoch(proxy: Proxy, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    write_data(tmp_path / "data", (9, 4, 6))
    url = put(tmp_path / "data", "data")
    proxy.forget()
    recipe = change(RECIPE, stream=True)
    run_training(url, tmp_path / "remote", recipe)
    assert sum(request.startswith("GET /download/") and request.endswith(".tar") for request in proxy.asked) == 6
    run_training(str(tmp_path / "data"), tmp_path / "local", recipe)
    assert_same_run(tmp_path / "remote", tmp_path / "local")
