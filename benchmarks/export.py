"""Export: time and memory of each format, each in a process of its own.

    python -m benchmarks.export [--regions 1000000] [--runs 1] [--folder .] [--formats hf,crops]

The data set has 4 regions of 8 pixels or more in each image of about 4 KB (random, 64 to 96 pixels; 300 different ones,
reused under other keys), 1000 images a shard. Memory is the peak of the process's resident set; the second size, a
tenth, tells what grows with the data. CPU seconds, user and system, are the command's own, which other work on the
machine hardly changes. A line is printed after each export: what was measured is there if the run is ended early.
Images of real sizes cost what reading and writing their bytes costs, and `crops` decodes them.
"""

import argparse
import functools
import subprocess
import sys
import tempfile
import time
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.report import Row, measure, report
from pipeline.export.formats import FORMATS
from pipeline.store.storage import LocalStorage
from pipeline.write.shard_writer import ShardWriter
from schemas.boxes import as_boxes
from schemas.hashes import region_id, sha256, text_hash
from schemas.names import ShardName
from schemas.reasons import Status
from schemas.records import ImageRecord, ImageSource, Region, ShardMarker, encode
from schemas.tables import RegionRow

_PER_SHARD = 1000
_PER_IMAGE = 4
_NUM_DISTINCT = 300
_EXPORT = (
    "import resource, sys, fineclip; code = fineclip.main(sys.argv[1:]); "
    "used = resource.getrusage(resource.RUSAGE_SELF); "
    "sys.stderr.write(f'{used.ru_maxrss} {used.ru_utime + used.ru_stime}'); sys.exit(code)"
)


def _image(seed: int) -> tuple[bytes, int, int]:
    rng = np.random.default_rng(seed)
    width, height = rng.integers(64, 97, size=2).tolist()
    file = BytesIO()
    Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(file, "JPEG", quality=60)
    return file.getvalue(), width, height


def _record(key: str, image: bytes, width: int, height: int) -> ImageRecord:
    boxes = [(float(n), 2.0, n + 20.5, 40.0625) for n in range(_PER_IMAGE)]
    regions = [
        Region(
            id=region_id(key, as_boxes(box)[0], "manual", 0),
            box=box,
            label=("cat", "dog", "tree")[position % 3],
            proposer="manual",
            proposal_score=0.5,
            caption=(caption := f"region {position} of {key}"),
            captioner="rule",
            caption_score=None,
            text_hash=text_hash(caption),
        )
        for position, box in enumerate(boxes)
    ]
    return ImageRecord(
        schema_version="1",
        key=key,
        width=width,
        height=height,
        image_sha256=sha256(image),
        reencoded=False,
        image_caption=f"a picture called {key}",
        source=ImageSource(uri=f"{key}.jpg", index=0, url=None, license=None),
        num_regions=len(regions),
        regions=regions,
        image_captions=[f"a picture called {key}"],
    )


def make_data(folder: Path, num_regions: int, *, distinct: int = _NUM_DISTINCT) -> None:
    """Write a data set of at least `num_regions` regions, whole shards, of `distinct` different pictures."""
    image_of = functools.lru_cache(_NUM_DISTINCT)(_image)
    storage = LocalStorage(str(folder))
    for number in range(-(-num_regions // (_PER_SHARD * _PER_IMAGE))):
        shard = ShardName("train", number)
        writer = ShardWriter(shard, storage.scratch, "bench")
        for index in range(_PER_SHARD):
            image, width, height = image_of((number * _PER_SHARD + index) % distinct)
            record = _record(f"{number:05d}{index:04d}", image, width, height)
            offset, size = writer.add_sample(record, image, "jpg")
            common = {"key": record.key, "shard": str(shard), "status": Status.OK.value, "tar_offset": offset}
            writer.add_row(RegionRow(**common, tar_size=size, width=width, height=height))
            for region in record.regions:
                x0, y0, x1, y1 = region.box
                said = {"label": region.label, "caption": region.caption, "text_hash": region.text_hash}
                known = {"width": width, "height": height, "proposal_score": region.proposal_score}
                writer.add_row(RegionRow(**common, **known, **said, region_id=region.id, x0=x0, y0=y0, x1=x1, y1=y1))
        writer.images.inputs, writer.regions.inputs = writer.images.ok, writer.regions.ok
        files = writer.finish()
        marker = ShardMarker(
            schema_version="1",
            shard=str(shard),
            fingerprint="0" * 64,
            images=writer.images,
            regions=writer.regions,
            tar=files[shard.tar].digest,
            parquet=files[shard.parquet].digest,
            sources=[],
            provenance={},
        )
        for name, file in files.items():
            storage.settle(file.path, name)
        storage.replace(shard.marker, encode(marker))


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--regions", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path(), help="where to write: its disk is measured")
    parser.add_argument("--formats", default=",".join(FORMATS), help="which, with commas")
    arguments = parser.parse_args()
    rows, memory, cpu = [], {}, {}
    with tempfile.TemporaryDirectory(prefix="fineclip-bench-", dir=arguments.folder) as folder:
        for num_regions in (arguments.regions // 10, arguments.regions):
            data = Path(folder) / f"data-{num_regions}"
            make_data(data, num_regions)
            ways = {to: _Way(data, to, num_regions) for to in arguments.formats.split(",")}
            seconds = measure({to: way.run for to, way in ways.items()}, arguments.runs)
            for to, way in ways.items():
                name = f"{to}, {num_regions:,} regions"
                rows.append(Row(name=name, seconds=seconds[to], items=num_regions))
                memory[name] = f"{max(way.peaks_mib):.0f} MiB"
                cpu[name] = f"{min(way.cpu_s):.1f} s"
    report("Export: regions per second", rows, {"peak memory": memory, "CPU time": cpu})


class _Way:
    """One format: exports to a new folder each time, which is removed after."""

    def __init__(self, data: Path, to: str, num_regions: int) -> None:
        self.peaks_mib: list[float] = []
        self.cpu_s: list[float] = []
        self._data, self._to, self._num_regions = data, to, num_regions

    def run(self) -> None:
        """Export, and note the peak and the CPU time of the process."""
        started = time.perf_counter()
        with tempfile.TemporaryDirectory(dir=self._data.parent) as out:
            command = ["export", str(self._data), f"{out}/out", "--to", self._to]
            done = subprocess.run([sys.executable, "-c", _EXPORT, *command], capture_output=True, text=True, check=True)
            peak, seconds = done.stderr.split()[-2:]
            self.peaks_mib.append(int(peak) / 2**10)
            self.cpu_s.append(float(seconds))
        told = f"{time.perf_counter() - started:.1f} s, {self.cpu_s[-1]:.1f} s of CPU, {self.peaks_mib[-1]:.0f} MiB"
        print(f"{self._to}, {self._num_regions:,} regions: {told}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
