"""Made-up WebDataset tars of small JPEGs with given regions, for benchmarks: quick to make, cheap to process."""

import json
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from schemas.tar import END, padding, tar_member_header

_NUM_DISTINCT = 300
"""Images encoded; more samples than this reuse them under other keys."""
_WORDS = ("cat", "dog", "tree", "red car", "person")


def make_tars(folder: Path, num_images: int, per_tar: int, regions: tuple[int, int] = (2, 4)) -> None:
    """Write `num_images` samples (image, caption, JSON with `regions`, fewest to most) in tars of `per_tar`."""
    folder.mkdir(parents=True)
    pool = [_sample(np.random.default_rng(seed), regions) for seed in range(_NUM_DISTINCT)]
    for start in range(0, num_images, per_tar):
        with (folder / f"{start // per_tar:05d}.tar").open("wb") as tar:
            for index in range(start, min(start + per_tar, num_images)):
                for suffix, data in pool[index % _NUM_DISTINCT].items():
                    tar.write(tar_member_header(f"{index:08d}.{suffix}", len(data)) + data + bytes(padding(len(data))))
            tar.write(END)


def _sample(rng: np.random.Generator, num_regions: tuple[int, int]) -> dict[str, bytes]:
    """Return the members of a sample by suffix: a smooth image of 64 to 96 pixels a side, as photographs are."""
    width, height = rng.integers(64, 97, size=2).tolist()
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    image = BytesIO()
    coarse.resize((width, height), Image.Resampling.BICUBIC).save(image, "JPEG", quality=85)
    regions = [_region(rng, width, height) for _ in range(rng.integers(num_regions[0], num_regions[1] + 1))]
    record = {"width": width, "height": height, "regions": regions}
    caption = f"A {_WORDS[rng.integers(len(_WORDS))]} beside a {_WORDS[rng.integers(len(_WORDS))]}."
    return {"jpg": image.getvalue(), "txt": caption.encode(), "json": json.dumps(record).encode()}


def _region(rng: np.random.Generator, width: int, height: int) -> dict[str, object]:
    x0, y0 = rng.uniform(0, width / 2), rng.uniform(0, height / 2)
    sides = rng.uniform(10, 32, size=2)
    return {"box": [x0, y0, x0 + sides[0], y0 + sides[1]], "label": _WORDS[rng.integers(len(_WORDS))]}
