"""Tiny data sets for the viewer: known captions, labels and scores, and one caption that is an attack."""

import dataclasses

import msgspec

from schemas.hashes import text_hash
from tests.shards import TinySample, tiny_sample, write_shard

ATTACK = "<img src=x onerror=document.title='owned'>"


def sample(key: str, *regions: dict, image_caption: str | None = "two shapes", **more) -> TinySample:
    """Return a sample whose regions have the given fields in place of `tiny_sample`'s."""
    made = tiny_sample(key, num_regions=len(regions), image_caption=image_caption, **more)
    pairs = zip(made.record.regions, regions, strict=True)
    changed = [_changed(region, fields) for region, fields in pairs]
    return dataclasses.replace(made, record=msgspec.structs.replace(made.record, regions=changed))


def _changed(region, fields):
    caption = fields.get("caption", region.caption)
    return msgspec.structs.replace(region, **fields, text_hash=text_hash(caption))


SHARDS = [
    [
        sample(
            "a", {"caption": "a red cat", "label": "cat", "proposal_score": 0.9}, {"caption": "a dog", "label": "dog"}
        ),
        sample("b", {"caption": "Red Square", "label": None, "proposal_score": 0.2}, image_caption="a quiet square"),
    ],
    [
        sample("c", num_filtered=0),
        sample("d", {"caption": ATTACK}, {"caption": "a dog", "label": "dog"}, {"caption": "100 % wool_len"}),
    ],
]


def write_data(url: str, shards=SHARDS, dead=("z",)):
    return [write_shard(url, samples, index=index, dead=dead) for index, samples in enumerate(shards)]


def region_id(key: str, position: int) -> str:
    record = next(one.record for samples in SHARDS for one in samples if one.record.key == key)
    return record.regions[position].id
