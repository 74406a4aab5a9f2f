"""The viewer on 1,000,000 regions: time to the first page, filtered pages, searches, resident memory.

    python -m benchmarks.viewer [--regions 1000000]
    python -m benchmarks.viewer --data FOLDER           a data set that is there

The data set is made on the fly: real tables and markers, but every row of a shard points at one of a few images, so
that the tars stay small (the viewer asks a tar for nothing but the bytes of the images on a page). The viewer runs as
people run it, `fineclip view`, in a process of its own; each query is asked once, so no answer comes from its caches.
"""

import argparse
import importlib.metadata
import itertools
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import requests
from PIL import Image

from benchmarks.processes import peak_mib
from benchmarks.report import Row, report
from schemas.hashes import sha256
from schemas.names import ShardName
from schemas.records import Counts, FileDigest, ShardMarker, encode
from schemas.tables import REGION_SCHEMA
from schemas.tar import BLOCK, END, padding, tar_member_header

_IMAGES_A_SHARD = 1000
_REGIONS_AN_IMAGE = 4
_COLOURS = ("red", "orange", "golden", "green", "teal", "blue", "purple", "pink", "black", "white", "gray", "brown")
_THINGS = ("cat", "dog", "car", "tree", "bench", "person", "kite", "boat", "horse", "bicycle", "sign", "window", "bird")
_PLACES = ("on the grass", "near a wall", "in the water", "under a bridge", "beside the road", "on a wooden table")


@dataclass(frozen=True)
class Goals:
    """The largest median times in seconds, and the largest resident set in units of 10^6 bytes."""

    open_s: float
    page_s: float
    search_s: float
    memory_mb: float


A_MILLION = Goals(open_s=2.0, page_s=0.150, search_s=0.300, memory_mb=500)
TEN_MILLION = Goals(open_s=2.0, page_s=0.300, search_s=1.0, memory_mb=1000)
_MANY = 3_000_000
"""Regions from which on the goals are those of ten million."""


@dataclass(frozen=True)
class Words:
    """What a data set can be asked for."""

    labels: list[str]
    frequent: list[str]
    """Phrases of many captions."""
    rare: list[str]
    """Phrases of few."""


@dataclass(frozen=True)
class Measured:
    """Of one data set."""

    opened: list[float]
    """Seconds from the command to the first page of the gallery."""
    by_kind: dict[str, list[float]]
    """Seconds of each query, by kind."""
    peak_mb: float
    """Resident set after all of it, in units of 10^6 bytes."""


def make_data(folder: Path, num_regions: int) -> None:
    """Write a data set of `num_regions` regions, four an image, a thousand images a shard."""
    folder.mkdir(parents=True)
    num_images = num_regions // _REGIONS_AN_IMAGE
    for index, start in enumerate(range(0, num_images, _IMAGES_A_SHARD)):
        _write_shard(folder, ShardName("train", index), start, min(_IMAGES_A_SHARD, num_images - start))


def _write_shard(folder: Path, shard: ShardName, first: int, num_images: int) -> None:
    rng = np.random.default_rng(shard.index)
    member = _image_member(rng)
    table = _table(rng, shard, first=first, num_images=num_images, tar_size=len(member) - BLOCK)
    pq.write_table(table, folder / shard.parquet, compression="zstd")
    (folder / shard.tar).write_bytes(member + bytes(padding(len(member))) + END)
    marker = ShardMarker(
        schema_version="1",
        shard=str(shard),
        fingerprint="f" * 64,
        images=Counts(inputs=num_images, ok=num_images),
        regions=Counts(inputs=num_images * _REGIONS_AN_IMAGE, ok=num_images * _REGIONS_AN_IMAGE),
        tar=_digest(folder / shard.tar),
        parquet=_digest(folder / shard.parquet),
        sources=[],
        provenance={"captioner": {"name": "made up"}, "proposer": {"name": "made up"}},
    )
    (folder / shard.marker).write_bytes(encode(marker))


def _image_member(rng: np.random.Generator) -> bytes:
    file = BytesIO()
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    coarse.resize((640, 480), Image.Resampling.BICUBIC).save(file, "JPEG", quality=80)
    data = file.getvalue()
    return tar_member_header("image.jpg", len(data)) + data


def _digest(path: Path) -> FileDigest:
    content = path.read_bytes()
    return FileDigest(sha256=sha256(content), size=len(content))


def _table(rng: np.random.Generator, shard: ShardName, *, first: int, num_images: int, tar_size: int) -> pa.Table:
    """Return the shard's table: an image's row, then its regions', as `fineclip annotate` writes them."""
    rows_an_image = 1 + _REGIONS_AN_IMAGE
    num_rows = num_images * rows_an_image
    is_image = np.arange(num_rows) % rows_an_image == 0
    keys = np.repeat([f"{number:09d}" for number in range(first, first + num_images)], rows_an_image)
    left, top = rng.uniform(0, 400, num_rows), rng.uniform(0, 300, num_rows)
    colours, things = rng.choice(_COLOURS, num_rows), rng.choice(_THINGS, num_rows)
    captions = [
        f"A {colour} {thing} {place} number {number}."
        for colour, thing, place, number in zip(
            colours, things, rng.choice(_PLACES, num_rows), rng.integers(0, 100_000, num_rows), strict=True
        )
    ]
    image_captions = np.repeat([f"Photograph {number} of a quiet afternoon." for number in range(num_images)], 5)
    of_regions: dict[str, Iterable[Any]] = {
        "region_id": [f"{number:016x}" for number in rng.integers(0, 2**63, num_rows)],
        "x0": left,
        "y0": top,
        "x1": left + rng.uniform(16, 240, num_rows),
        "y1": top + rng.uniform(16, 180, num_rows),
        "label": things,
        "proposer": ["made-up"] * num_rows,
        "proposal_score": rng.beta(5, 2, num_rows).round(4),
        "captioner": ["made-up"] * num_rows,
        "caption": captions,
        "caption_score": rng.normal(-1, 0.4, num_rows).round(4),
        "text_hash": [sha256(caption.encode())[:16] for caption in captions],
        "text_sha256": [sha256(caption.encode()) for caption in captions],
    }
    of_all: dict[str, Iterable[Any]] = {
        "key": keys,
        "width": [640] * num_rows,
        "height": [480] * num_rows,
        "status": ["ok"] * num_rows,
        "count": [1] * num_rows,
        "image_caption": image_captions,
        "tar_offset": [BLOCK] * num_rows,
        "tar_size": [tar_size] * num_rows,
        "shard": [str(shard)] * num_rows,
    }
    arrays = {name: pa.array(values, REGION_SCHEMA.field(name).type) for name, values in of_all.items()}
    for name, values in of_regions.items():
        arrays[name] = pa.array(values, REGION_SCHEMA.field(name).type, mask=is_image)
    columns = [arrays.get(field.name, pa.nulls(num_rows, field.type)) for field in REGION_SCHEMA]
    return pa.Table.from_arrays(columns, schema=REGION_SCHEMA)


@contextmanager
def _viewer(data: Path) -> Iterator[tuple[int, str, float]]:
    """Run `fineclip view`; yield its process id, its address and the seconds to the first page of the gallery."""
    started = time.perf_counter()
    command = [Path(sys.executable).with_name("fineclip"), "view", data]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        for path in ("", "api/about", "api/page"):
            requests.get(url + path, timeout=60).raise_for_status()
        yield process.pid, url, time.perf_counter() - started
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


def made_up_words(rng: np.random.Generator, count: int) -> Words:
    """Return what `make_data` has written: about 10 captions of a million hold a rare phrase."""
    words = [f"{colour} {thing}" for colour in _COLOURS for thing in _THINGS]
    rare = [f"number {number}." for number in rng.integers(0, 100_000, count)]
    return Words(list(_THINGS), rng.choice(words, count, replace=False).tolist(), rare)


def words_of(data: Path, rng: np.random.Generator, count: int) -> Words:
    """Return the labels of a data set's first shard, pairs of words that are frequent there, and whole captions."""
    rows = pq.read_table(next(iter(sorted(data.glob("train-*.parquet")))), columns=["label", "caption"])
    captions = [caption for caption in rows["caption"].to_pylist() if caption]
    pairs = Counter(f"{one} {two}" for caption in captions for one, two in itertools.pairwise(caption.split()))
    frequent = [pair for pair, _ in pairs.most_common(count)]
    seldom = [caption for caption, _ in reversed(Counter(captions).most_common())][: 4 * count]
    labels = sorted({label for label in rows["label"].to_pylist() if label})
    return Words(labels, frequent, rng.choice(seldom, count, replace=False).tolist())


def _queries(rng: np.random.Generator, words: Words, count: int) -> dict[str, list[dict[str, Any]]]:
    """Return `count` different queries of each kind: nothing is asked twice."""

    def low() -> str:
        return f"{rng.uniform(0.5, 0.9):.4f}.."

    return {
        "filtered page": [
            {"label": rng.choice(words.labels), "proposal_score": low(), "page": int(rng.integers(1, 20))}
            for _ in range(count)
        ],
        "sorted page": [
            {"label": rng.choice(words.labels), "proposal_score": low(), "sort": "-caption_score"} for _ in range(count)
        ],
        "search, a common phrase": [{"q": phrase} for phrase in words.frequent],
        "search, a rare one": [{"q": phrase} for phrase in words.rare],
        "search, nothing there": [{"q": f"zebra {number}"} for number in range(count)],
    }


def _seconds(session: requests.Session, url: str) -> float:
    started = time.perf_counter()
    session.get(url, timeout=60).raise_for_status()
    return time.perf_counter() - started


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--regions", type=int, default=1_000_000)
    parser.add_argument("--data", type=Path, help="a data set that is there, instead of a made-up one")
    parser.add_argument("--queries", type=int, default=40, help="of each kind")
    parser.add_argument("--opens", type=int, default=5)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(prefix="fineclip-bench-") as name:
        data, num_regions = arguments.data, arguments.regions
        if data is None:
            data, words = Path(name) / "data", made_up_words(rng, arguments.queries)
            make_data(data, num_regions)
        else:
            words = words_of(data, rng, arguments.queries)
            num_regions = json.loads((data / "dataset.json").read_bytes())["regions"]["ok"]
        measured = measure_viewer(data, words, rng, opens=arguments.opens, queries=arguments.queries)
    goals = TEN_MILLION if num_regions >= _MANY else A_MILLION
    report(f"Viewer: {num_regions:,} regions", rows_of(measured, goals), met(measured, goals))


def measure_viewer(data: Path, words: Words, rng: np.random.Generator, *, opens: int, queries: int) -> Measured:
    """Open the data set `opens` times, and ask the last viewer `queries` of each kind."""
    opened = [_open_once(data) for _ in range(opens - 1)]
    with _viewer(data) as (pid, url, seconds), requests.Session() as session:
        opened.append(seconds)
        by_kind = {
            kind: [_seconds(session, f"{url}api/page?{urlencode(query)}") for query in asked]
            for kind, asked in _queries(rng, words, queries).items()
        }
        by_kind["search"] = [seconds for kind in by_kind if kind.startswith("search") for seconds in by_kind[kind]]
        by_label = [urlencode({"label": label}) for label in words.labels]
        by_kind["page of crops"] = [_seconds(session, f"{url}api/crops?{label}") for label in by_label]
        by_kind["count and histograms"] = [_seconds(session, f"{url}api/summary?{label}") for label in by_label]
        by_kind["data set page"] = [_seconds(session, f"{url}api/overview/a")]
        return Measured(opened, by_kind, peak_mib(pid) * 2**20 / 1e6)


def _open_once(data: Path) -> float:
    with _viewer(data) as (_, _, seconds):
        return seconds


def rows_of(measured: Measured, goals: Goals) -> list[Row]:
    """Return the rows of a report."""
    of_kind = {"filtered page": goals.page_s, "search": goals.search_s}
    rows = [Row(name="open, to the first page", seconds=measured.opened, note=f"goal {goals.open_s} s")]
    for kind, seconds in measured.by_kind.items():
        rows.append(Row(name=kind, seconds=seconds, note=f"goal {of_kind[kind]} s" if kind in of_kind else ""))
    return rows


def met(measured: Measured, goals: Goals) -> Mapping[str, Any]:
    """Return memory, and which goals were met."""
    return {
        "peak_resident_mb": round(measured.peak_mb),
        "opens_met": statistics.median(measured.opened) < goals.open_s,
        "page_met": statistics.median(measured.by_kind["filtered page"]) < goals.page_s,
        "search_met": statistics.median(measured.by_kind["search"]) < goals.search_s,
        "memory_met": measured.peak_mb < goals.memory_mb,
        "versions": {name: importlib.metadata.version(name) for name in ("duckdb", "starlette", "uvicorn")},
    }


if __name__ == "__main__":
    main()
