"""Small sources, configurations and looks at an OUTPUT, shared by the tests of the pipeline."""

import contextlib
import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

import fineclip
from pipeline.caption.rule import RuleConfig
from pipeline.propose.manual import ManualConfig
from pipeline.sample import DecodedImage, GivenRegion, Pixels, SourceItem
from pipeline.settings import Configuration
from schemas.names import DATASET_JSON, shard_of_marker
from schemas.records import Counts, ShardMarker, decode_shard_marker

Members = list[tuple[str, bytes]]

BOXES = ((2.0, 2.0, 30.3, 40.0), (3.0, 2.0, 31.0, 40.0), (50.0, 10.0, 90.0, 60.0), (0.0, 0.0, 4.0, 4.0))
"""Of a 96 x 64 image: two that overlap, one apart, one too small. So 2 of 4 are ok, and none is dead."""


def jpeg(seed: int, width: int = 96, height: int = 64) -> bytes:
    """A JPEG of noise, another for every seed."""
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def members(key: str, *, image: bytes | None = None, boxes: Iterable[Iterable[float]] = BOXES) -> Members:
    """The members of a WebDataset sample: image, caption, given regions."""
    record = {"regions": [{"box": list(box), "label": "cat"} for box in boxes]}
    image = jpeg(sum(key.encode())) if image is None else image
    return [
        (f"{key}.jpg", image),
        (f"{key}.txt", f"image {key}".encode()),
        (f"{key}.json", json.dumps(record).encode()),
    ]


def write_tar(path: Path, samples: Iterable[Members]) -> Path:
    """Write a source tar of the samples' members."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in (member for sample in samples for member in sample):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def write_tars(folder: Path, num_tars: int, num_images: int) -> Path:
    """Write `num_tars` source tars of `num_images` images each; returns the folder."""
    for tar in range(num_tars):
        write_tar(folder / f"{tar:05d}.tar", (members(f"{tar:05d}{image:04d}") for image in range(num_images)))
    return folder


def configuration(**changes: Any) -> Configuration:
    """Return the configuration of `manual` + `rule`, with some fields changed."""
    return Configuration(
        **{
            "proposer": "manual",
            "propose": ManualConfig(),
            "captioner": "rule",
            "caption": RuleConfig(),
            **changes,
        }
    )


def digests(output: Path) -> dict[str, str]:
    """Return the sha256 of every file below OUTPUT but the logs, and "folder" for every folder."""
    found = {}
    for path in sorted(output.rglob("*")):
        name = path.relative_to(output).as_posix()
        if name.split("/")[0] != "_run":
            found[name] = "folder" if path.is_dir() else hashlib.sha256(path.read_bytes()).hexdigest()
    return found


CHEAP = ("--proposer", "manual", "--captioner", "rule")
"""Flags of `configuration()`: no weights and no search, the regions that the source brings."""

SEARCH = ("--proposer", "selective_search", "--captioner", "rule")
"""Flags for inputs that bring no boxes, which `manual` refuses."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run of the command came to."""

    code: int
    out: str
    err: str


def run(*arguments: str | Path) -> Outcome:
    """Run `fineclip ARGUMENTS` in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = fineclip.main([str(argument) for argument in arguments])
        except SystemExit as ended:
            assert isinstance(ended.code, int)
            code = ended.code
    return Outcome(code=code, out=out.getvalue(), err=err.getvalue())


def annotate(*arguments: str | Path, flags: Iterable[str] = CHEAP) -> Outcome:
    """Run `fineclip annotate` with `CHEAP` and no limit on what is dead. It must end well, its output balanced."""
    outcome = run("annotate", *arguments, *flags, "--max-dead", "1")
    assert outcome.code == 0, outcome
    return outcome


def image_bytes(image_format: str, *, mode: str = "RGB", width: int = 96, height: int = 64, **save: Any) -> bytes:
    """Return an image file of noise, in any format and mode of Pillow's."""
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, image_format, **save)
    return buffer.getvalue()


def write_files(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Write files by relative path; returns the folder."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def write_photos(folder: Path, num_images: int) -> Path:
    """Write `000.jpg`, `001.jpg`, ... with a caption and a record without regions each; returns the folder."""
    for number in range(num_images):
        caption = f"photo {number}".encode()
        write_files(folder, {f"{number:03d}.jpg": jpeg(number), f"{number:03d}.txt": caption})
        write_files(folder, {f"{number:03d}.json": b'{"regions": []}'})
    return folder


def read_rows(output: Path) -> list[dict[str, Any]]:
    """Return the rows of all tables of a data set, in order of shard."""
    tables = (pq.read_table(path, partitioning=None) for path in sorted(output.glob("*.parquet")))
    return [row for table in tables for row in table.to_pylist()]


def image_rows(output: Path) -> dict[str, dict[str, Any]]:
    """Return the rows of images by key, where keys do not repeat."""
    rows = [row for row in read_rows(output) if row["region_id"] is None]
    by_key = {row["key"]: row for row in rows}
    assert len(by_key) == len(rows)
    return by_key


def read_markers(output: Path) -> list[ShardMarker]:
    """Return the markers of a data set, in order of shard."""
    paths = [path for path in sorted(output.glob("*.json")) if shard_of_marker(path.name)]
    return [decode_shard_marker(path.read_bytes(), str(path)) for path in paths]


def check_balance(output: Path) -> None:
    """Check that inputs = ok + filtered + dead in every marker, and that tables and `dataset.json` say the same."""
    images, regions = Counts(), Counts()
    for marker in read_markers(output):
        assert marker.images.balanced, marker
        assert marker.regions.balanced, marker
        images.add(marker.images)
        regions.add(marker.regions)
    dataset = json.loads((output / DATASET_JSON).read_text())
    rows = read_rows(output)
    for name, counts in (("images", images), ("regions", regions)):
        mine = [row for row in rows if (row["region_id"] is None) == (name == "images")]
        assert dataset[name] == {
            "inputs": sum(row["count"] for row in mine),
            "ok": sum(row["status"] == "ok" for row in mine),
            "filtered": counts.filtered,
            "dead": counts.dead,
        }
        assert dataset[name]["inputs"] == counts.inputs


def data_files(output: Path) -> dict[str, bytes]:
    """Return the files right in OUTPUT by name: what a copy of the data set consists of."""
    return {path.name: path.read_bytes() for path in sorted(output.iterdir()) if path.is_file()}


def decoded_image(pixels: Pixels, given: tuple[GivenRegion, ...] = (), key: str = "k") -> DecodedImage:
    """Pixels as a decoded image; what steps after decoding do not read is empty."""
    return DecodedImage(
        item=SourceItem(key=key, index=0, uri=f"{key}.png", data=None),
        width=pixels.shape[1],
        height=pixels.shape[0],
        pixels=pixels,
        stored=b"",
        suffix="png",
        reencoded=False,
        sha256="",
        given=given,
    )
