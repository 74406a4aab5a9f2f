"""Names of the files of a data set: shards, overlays and the folders the pipeline keeps beside them.

    OUTPUT/train-000000.tar .parquet .json     a shard; it exists when its .json does
    OUTPUT/train-000000.blip2.parquet .json    an overlay named "blip2" of that shard
    OUTPUT/dataset.json README.md sizes.json index.json
    OUTPUT/_overlays/blip2/plan.json           what made that overlay, and by which configuration
    OUTPUT/_card                               the picture of the card, README.md
    OUTPUT/_plan _attempts _commit _leases _proposals _run

Readers need the shards and their overlays only.
"""

import re
from dataclasses import dataclass

SCHEMA_VERSION = "1"
SCHEMA_REVISION = 2
"""Raised when fields and nullable columns are added. Readers take all revisions of a version; a job writes one."""

TRAIN = "train"
VAL = "val"

PLAN_DIR = "_plan"
ATTEMPTS_DIR = "_attempts"
COMMIT_DIR = "_commit"
LEASES_DIR = "_leases"
PROPOSALS_DIR = "_proposals"
RUN_DIR = "_run"
OVERLAYS_DIR = "_overlays"
CARD_DIR = "_card"

DATASET_JSON = "dataset.json"
CARD = "README.md"
SIZES_JSON = "sizes.json"
INDEX_JSON = "index.json"

KEY_PATTERN = r"[a-z0-9_-]+"
"""What a key may be: no dot (WebDataset splits there), no slash, no capital (case-insensitive file systems)."""

IMAGE_SUFFIXES = ("jpg", "png", "webp")
"""The image members a shard may hold, by WebDataset suffix."""

_SHARD = re.compile(r"(?P<split>train|val)-(?P<index>\d{6,})")
_REPAIR = re.compile(r"(?P<name>.+)\.r(?P<number>[1-9]\d*)\.json")
_OVERLAY = re.compile(r"(?P<shard>(?:train|val)-\d{6,})\.(?P<name>[a-z0-9][a-z0-9_-]*)\.(?:parquet|json)")


@dataclass(frozen=True, order=True)
class ShardName:
    """A shard's split and number; `str()` gives its stem, such as `train-000012`."""

    split: str
    index: int

    def __str__(self) -> str:
        return f"{self.split}-{self.index:06d}"

    @property
    def tar(self) -> str:
        """The name of the shard's tar."""
        return f"{self}.tar"

    @property
    def parquet(self) -> str:
        """The name of the shard's table of regions."""
        return f"{self}.parquet"

    @property
    def marker(self) -> str:
        """The name of the shard's marker, whose existence is the shard's."""
        return f"{self}.json"

    @classmethod
    def parse(cls, stem: str) -> "ShardName | None":
        """Return the shard named `stem` (no suffix), or None if it is not a shard's stem."""
        match = _SHARD.fullmatch(stem)
        return cls(match["split"], int(match["index"])) if match else None


def shard_of_marker(file_name: str) -> ShardName | None:
    """Return the shard whose marker is named `file_name`, or None for any other file (an overlay's marker too)."""
    return ShardName.parse(file_name.removesuffix(".json")) if file_name.endswith(".json") else None


def overlay_of_file(file_name: str) -> tuple[ShardName, str] | None:
    """Return (shard, overlay name) of an overlay's `.parquet` or `.json`, or None for any other file."""
    match = _OVERLAY.fullmatch(file_name)
    shard = ShardName.parse(match["shard"]) if match else None
    return (shard, match["name"]) if match and shard else None


def repair_of(file_name: str) -> tuple[str, int] | None:
    """Return (name, number) of a file of `_commit/` that decides a repair, or None for any other."""
    match = _REPAIR.fullmatch(file_name)
    return (match["name"], int(match["number"])) if match else None


def first_repair(shard: ShardName) -> str:
    """Return the name of the decision that is there once the shard was repaired."""
    return f"{COMMIT_DIR}/{shard}.r1.json"
