"""Stores: a server of S3 on this machine against its disk, for a job, both training loaders and the viewer.

    python -m benchmarks.remote [--tars 8] [--images 48] [--workers 2] [--latency 0.02] [--runs 5]

The server is versitygw where FINECLIP_VERSITYGW names its binary or Go is there to build it, else moto, which is
slower; it shares the cores. Loopback has no distance, so the loaders are measured once more through a proxy that holds
each request back, as a store at a distance does: that is what a stream is for. Requests are counted in a round of their
own.

Needs what `make test` needs.
"""

import argparse
import contextlib
import functools
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest
import torch

from benchmarks.loader import loader_sample
from benchmarks.report import Row, measure, report
from pipeline.viewer.session import Session
from schemas.dataset import Dataset
from tests.builders import CHEAP, run, write_tars
from tests.pipeline.store.s3_server import BUCKET, forget_s3fs, point_s3fs_at
from tests.pipeline.viewer.serving import serving
from tests.remote import servers
from tests.remote.proxy import Proxy, proxied
from tests.shards import write_shard
from trainer.data.batches import Batches
from trainer.data.index import build_index
from trainer.data.streams import StreamedBatches
from trainer.hyperparameters import OrderSettings, SampleSettings

_BATCH, _REGIONS = 32, 4
_DISK, _S3 = "a disk", "S3"
_OUTPUTS = itertools.count()

Way = Callable[[str], None]
"""What is done with a folder of this machine, or a URL."""


def annotate(root: str) -> None:
    """Annotate the tars into an OUTPUT beside them."""
    forget_s3fs()
    ended = run("annotate", f"{root}/tars", f"{root}/out{next(_OUTPUTS)}", *CHEAP, "--max-dead", "1")
    assert ended.code == 0, ended.err


def load(root: str, *, kind: type[Batches], workers: int) -> None:
    """Load an epoch as training does, tables included."""
    forget_s3fs()
    dataset = Dataset.open(f"{root}/shards")
    index = build_index(dataset, "train")
    order = OrderSettings(global_batch_size=_BATCH, stream=kind is StreamedBatches)
    batches = kind(dataset, index, order=order, samples=SampleSettings())
    seen = sum(len(batch.keys) for batch in batches.loaded(0, batches.first_step(1), workers))
    assert seen == len(index)


def view(root: str) -> None:
    """Open the gallery, and the images of its first page."""
    forget_s3fs()
    session = Session(f"{root}/shards")
    try:
        with serving(session) as client:
            items = client.get("/api/page").json["items"]
            assert items
            for item in items:
                assert client.get(f"/image/a/{item['shard']}/{item['key']}").status == 200
    finally:
        session.close()


def ways_of(workers: int) -> dict[str, Way]:
    """Return what is measured, by name."""
    return {
        "annotate": annotate,
        "training by ranges": functools.partial(load, kind=Batches, workers=workers),
        "training by streams": functools.partial(load, kind=StreamedBatches, workers=workers),
        "viewer, a page": view,
    }


@contextlib.contextmanager
def server_of(folder: Path) -> Iterator[tuple[str, str]]:
    """Run a server of S3; yield its name and its address."""
    (folder / "server").mkdir()
    if os.environ.get("FINECLIP_VERSITYGW") or shutil.which("go"):
        with servers.versitygw(folder / "server") as url:
            yield "versitygw", url
    else:
        with servers.moto() as url:
            yield "moto", url


def write_data(root: str, num_tars: int, num_images: int) -> None:
    """Write tars to annotate, and shards to train on and to look at."""
    with tempfile.TemporaryDirectory() as folder:
        fs, path = fsspec.core.url_to_fs(f"{root}/tars")
        fs.put(str(write_tars(Path(folder) / "tars", num_tars, num_images)), path, recursive=True)
    for shard in range(num_tars):
        samples = [loader_sample(shard * num_images + image, _REGIONS) for image in range(num_images)]
        write_shard(f"{root}/shards", samples, index=shard)


def counted(proxy: Proxy, way: Way) -> dict[str, int]:
    """Return how many requests of each kind a way takes on S3."""
    proxy.forget()
    way(f"s3://{BUCKET}")
    kinds = [request.partition(" ")[0] for request in proxy.asked]
    return {kind: kinds.count(kind) for kind in sorted(set(kinds))} | {"all": len(kinds)}


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tars", type=int, default=8, help="of the input, and shards of the data set")
    parser.add_argument("--images", type=int, default=48, help="in each of them")
    parser.add_argument("--workers", type=int, default=2, help="of a loader")
    parser.add_argument("--latency", type=float, default=0.02, help="seconds by which the proxy holds requests back")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path(), help="where to make a temporary folder")
    options = parser.parse_args()
    torch.set_num_threads(1)  # the cores are the workers'
    ways, s3 = ways_of(options.workers), f"s3://{BUCKET}"
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=options.folder))).resolve()
        name, url = stack.enter_context(server_of(folder))
        proxy = stack.enter_context(proxied(url))
        environment = stack.enter_context(pytest.MonkeyPatch.context())
        point_s3fs_at(url, environment)
        fsspec.filesystem("s3").mkdir(BUCKET)
        for root in (str(folder), s3):
            write_data(root, options.tars, options.images)
        both: dict[str, Callable[[], object]] = {
            f"{what}, {place}": functools.partial(way, root)
            for what, way in ways.items()
            for place, root in ((_DISK, str(folder)), (_S3, s3))
        }
        seconds = measure(both, options.runs)
        point_s3fs_at(proxy.url, environment)
        requests = {what: counted(proxy, way) for what, way in ways.items()}
        proxy.forget()
        proxy.latency_s = options.latency
        far = {what: functools.partial(way, s3) for what, way in ways.items() if what.startswith("training")}
        seconds |= {f"{what}, far S3": times for what, times in measure(far, options.runs).items()}
        forget_s3fs()
    rows = [
        Row(name=what, seconds=times, against=None if what.endswith(_DISK) else seconds[_disk(what)])
        for what, times in seconds.items()
    ]
    title = f"{name} on this machine against its disk: {options.tars} tars of {options.images} images"
    report(title, rows, {"requests": requests, "latency of far S3, s": options.latency})


def _disk(what: str) -> str:
    """Return the name of the same on a disk."""
    return f"{what.rpartition(', ')[0]}, {_DISK}"


if __name__ == "__main__":
    main()
