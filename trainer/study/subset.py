"""`fineclip study subset DATA --share S --out FILE`: a filter list that leaves a share of the images, by hash of key.

A smaller share is a part of a larger one, whatever the shards.
"""

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow.compute as pc

from schemas.dataset import Dataset
from schemas.hashes import sha256
from trainer.errors import DONE


def keeps(key: str, share: float) -> bool:
    """Return whether an image is in the share."""
    return int(sha256(key.encode())[:8], 16) < share * 2**32


def left_out(keys: Iterable[str], share: float) -> list[str]:
    """Return the keys that are not in the share."""
    return [key for key in keys if not keeps(key, share)]


def main(arguments: Sequence[str]) -> int:
    """Write the list and return the exit code. Raises DatasetError."""
    parser = argparse.ArgumentParser(prog="fineclip study subset", description=__doc__, allow_abbrev=False)
    parser.add_argument("data", metavar="DATA", help="data set of fineclip annotate")
    parser.add_argument("--share", type=float, required=True, help="of the images, above 0 and up to 1")
    parser.add_argument("--out", metavar="FILE", type=Path, required=True, help="filter list to write (.jsonl)")
    options = parser.parse_args(arguments)
    if not 0 < options.share <= 1:
        parser.error(f"--share {options.share}: give a number above 0 and up to 1")
    rows = Dataset.open(options.data).regions(["key", "region_id"])
    keys = rows.filter(pc.is_null(rows["region_id"]))["key"].to_pylist()
    lines = (json.dumps({"key": key, "region_id": None, "keep": False}) for key in left_out(keys, options.share))
    options.out.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return DONE
