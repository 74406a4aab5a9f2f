"""The sample of captions that a region's own is compared with: seeded, the same whatever the order of the shards.

The first driver writes it down beside the overlay's plan, so shards that are appended later meet the same rivals.
"""

from collections.abc import Iterable

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.store.storage import Storage, StorageError
from schemas.dataset import Dataset
from schemas.hashes import canonical_json, sha256
from schemas.names import OVERLAYS_DIR
from schemas.reasons import Status


def kept_rivals(storage: Storage, overlay: str, dataset: Dataset, *, num: int, seed: int) -> list[str]:
    """Return the rivals of an overlay; they are sampled by whoever comes first. Raises StorageError."""
    name = f"{OVERLAYS_DIR}/{overlay}/rivals.json"
    try:
        found = storage.read(name)
    except FileNotFoundError:
        sample = sample_captions(_captions(dataset), num=num, seed=seed)
        storage.decide(name, canonical_json(sample))
        found = storage.read(name)
    try:
        return msgspec.json.decode(found, type=list[str])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StorageError(f"{storage.url}: {name} is damaged ({error}); restore it from a copy") from error


def sample_captions(tables: Iterable[pa.Table], *, num: int, seed: int) -> list[str]:
    """Return at most `num` captions that differ in their `text_hash`: those with the smallest seeded hash of it.

    `tables` hold `caption` and `text_hash`. Each different text is as likely, however often it occurs.
    """
    mask = np.uint64(int(sha256(f"rivals {seed}".encode())[:16], 16))
    chosen: dict[int, str] = {}
    for table in tables:
        unique = table.group_by("text_hash").aggregate([("caption", "min")])
        hashes = unique["text_hash"].to_pylist()
        order = np.frombuffer(bytes.fromhex("".join(hashes)), ">u8").astype(np.uint64) ^ mask
        nearest = np.argsort(order)[:num]
        captions = unique["caption_min"].take(pa.array(nearest)).to_pylist()
        for place, caption in zip(order[nearest].tolist(), captions, strict=True):
            chosen[place] = min(caption, chosen.get(place, caption))
        chosen = {place: chosen[place] for place in sorted(chosen)[:num]}
    return list(chosen.values())


def _captions(dataset: Dataset) -> Iterable[pa.Table]:
    for shard in dataset.shards:
        rows = dataset.regions(["status", "region_id", "caption", "text_hash"], [shard])
        ok = pc.and_(pc.equal(rows["status"], Status.OK.value), pc.is_valid(rows["region_id"]))
        yield rows.filter(pc.and_(ok, pc.is_valid(rows["text_hash"])))
