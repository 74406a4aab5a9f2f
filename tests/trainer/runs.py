"""Tiny data sets and recipes for tests of steps and runs."""

import dataclasses
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from schemas.hashes import text_hash
from tests.shards import TinySample, tiny_sample, write_shard
from tests.trainer.towers import VIT
from trainer.hyperparameters import LossSettings, ModelSettings, OptimSettings, OrderSettings, SampleSettings
from trainer.recipes import TrainRecipe

COLOURS = ("red", "green", "blue")
RECIPE = TrainRecipe(
    model=ModelSettings(model=VIT, image_size=64, crop_size=32, train_text=True),
    samples=SampleSettings(max_regions=3),
    order=OrderSettings(global_batch_size=6),
    loss=LossSettings(),
    optim=OptimSettings(epochs=2, lr=1e-3, warmup_steps=2, clip_norm=1.0, precision="fp32"),
)


def change(recipe: TrainRecipe, **fields: object) -> TrainRecipe:
    """Return the recipe with fields replaced, in whichever part has them."""
    parts = {}
    for part in dataclasses.fields(TrainRecipe):
        settings = getattr(recipe, part.name)
        own = {name: fields[name] for name in fields if hasattr(settings, name)}
        parts[part.name] = replace(settings, **own)
    return TrainRecipe(**parts)


def coloured(sample: TinySample, number: int) -> TinySample:
    """Return the sample with captions that repeat, as scenes' do, and labels."""
    regions = []
    for region in sample.record.regions:
        name = COLOURS[(number + len(regions)) % 3]
        caption = f"a {name} shape"
        regions.append(msgspec.structs.replace(region, caption=caption, text_hash=text_hash(caption), label=name))
    caption = _caption(number)
    captions = [] if caption is None else [caption]
    record = msgspec.structs.replace(sample.record, regions=regions, image_caption=caption, image_captions=captions)
    return replace(sample, record=record)


def _caption(number: int) -> str | None:
    """One image in seven has no caption."""
    return None if number % 7 == 3 else f"{number % 5} shapes"


def write_data(folder: Path, sizes: Sequence[int] = (9, 4), *, val: int = 0) -> str:
    """Write shards of so many images; image i has i modulo 4 regions."""
    number = 0
    for shard, size in enumerate(sizes):
        samples = []
        for _ in range(size):
            samples.append(coloured(tiny_sample(f"key-{number}", num_regions=number % 4), number))
            number += 1
        write_shard(str(folder), samples, index=shard)
    if val:
        held_out = [coloured(tiny_sample(f"val-{i}", num_regions=1 + i % 3), i) for i in range(val)]
        write_shard(str(folder), held_out, split="val")
    return str(folder)
