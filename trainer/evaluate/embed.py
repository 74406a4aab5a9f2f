"""A truth's features: every process embeds its share of the images, and all get all of it."""

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from trainer.data.batches import load_batches
from trainer.data.pixels import Preparation
from trainer.errors import TrainingError
from trainer.evaluate.batches import MeasuredBatch, MeasuredBatches
from trainer.evaluate.metrics import Ints, finite
from trainer.evaluate.settings import EvaluateSettings, RegionFeature
from trainer.evaluate.towers import ImageTower, grid_of, has_dense_map, pool_masks
from trainer.evaluate.truth import Truth
from trainer.loss.gather import exchange_counts, gather_ids, gather_rows, rank, world_size
from trainer.model.backbone import normalise, pool_regions

Watch = Callable[[int, int], None]
"""Told how many of how many are done."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Features `[N, D]`, normalised float32, on the CPU, and `[N]` which rows of the truth they are, ascending."""

    features: Tensor
    at: Ints

    def having(self, kept: Ints) -> "Rows":
        """Return those at positions `kept` of these rows."""
        return Rows(features=self.features[torch.from_numpy(kept)], at=self.at[kept])


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """The features of a truth."""

    truth: Truth
    image: Rows
    """Of the images that could be read."""
    regions: Mapping[RegionFeature, Rows]
    """Of their regions, as far as a task asked; for `mask`, of those that have one."""
    skipped: tuple[tuple[str, str], ...] = ()
    """(key, why) of images that could not be used."""

    def only(self, feature: RegionFeature) -> "Embedded":
        """Return it with regions' features of one kind."""
        return dataclasses.replace(self, regions={feature: self.regions[feature]})

    @property
    def region(self) -> Rows:
        """The regions' features of the first kind."""
        return next(iter(self.regions.values()))


def embed(
    tower: ImageTower,
    preparation: Preparation,
    truth: Truth,
    *,
    settings: EvaluateSettings,
    features: Collection[RegionFeature],
    device: torch.device,
    watch: Watch = lambda done, total: None,
) -> Embedded:
    """Embed all images of a truth and, by each of `features`, all their regions. Every process must call it.

    Raises TrainingError where the tower has no dense map that `features` need.
    """
    needs_map = bool({"roi", "mask"} & set(features))
    if needs_map and not has_dense_map(tower):
        raise TrainingError("this vision tower has no dense map: take --region-feature crop")
    batches = MeasuredBatches(
        truth,
        batch_size=settings.batch_size,
        crop_scale=settings.crop_scale,
        grid=grid_of(tower, preparation.image_size) if "mask" in features else None,
        rank=rank(),
        world_size=world_size(),
    )
    loaded = load_batches(batches, first_step=0, last_step=batches.num_batches, num_workers=settings.workers)
    kinds: tuple[RegionFeature, ...] = tuple(dict.fromkeys(features))
    found: list[list[tuple[Tensor, Tensor]]] = []
    skipped: list[tuple[str, str]] = []
    training = tower.training
    tower.eval()
    with torch.inference_mode():
        for number, batch in enumerate(loaded, 1):
            assert isinstance(batch, MeasuredBatch)
            found.append(list(_embed_batch(tower, preparation, batch, kinds, device)))
            skipped += batch.skipped
            watch(min(number * settings.batch_size, len(truth.images)), len(truth.images))
    tower.train(training)
    image, *regions = (_everyone(*map(torch.cat, zip(*of_kind, strict=True))) for of_kind in zip(*found, strict=True))
    for what, rows in zip(("images", *(f"regions, by {kind}," for kind in kinds)), (image, *regions), strict=True):
        finite(rows.features, what)
    return Embedded(
        truth=truth, image=image, regions=dict(zip(kinds, regions, strict=True)), skipped=_all_skipped(skipped)
    )


def _embed_batch(
    tower: ImageTower,
    preparation: Preparation,
    on_host: MeasuredBatch,
    kinds: Collection[RegionFeature],
    device: torch.device,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield features and their rows in the truth: of a batch's images, then of its regions by each kind."""
    batch = on_host.to(device)
    embeddings = tower(preparation.images(batch), dense=bool({"roi", "mask"} & set(kinds)))
    yield normalise(embeddings.image_features), batch.image_index
    owner = batch.region_image_index.to(batch.device)
    for kind in kinds:
        if kind == "crop":
            yield normalise(tower(preparation.crops(batch)).image_features), batch.region_index
        elif kind == "roi":
            yield pool_regions(embeddings.dense_features, batch.boxes_norm, owner), batch.region_index
        else:
            masked = on_host.mask_shares.sum(dim=1) > 0
            shares, mine = on_host.mask_shares[masked].to(batch.device), owner[masked.to(batch.device)]
            yield pool_masks(embeddings.dense_features, shares, mine), batch.region_index[masked]


def _everyone(features: Tensor, rows: Tensor) -> Rows:
    """Return what all processes embedded, in the order of the truth."""
    counts = exchange_counts([len(rows)], features.device)
    (joined,) = gather_rows([features], counts)
    joined_rows = gather_ids(rows.to(features.device), [row[0] for row in counts]).cpu()
    order = joined_rows.argsort()
    return Rows(features=joined.float().cpu()[order], at=joined_rows[order].numpy().astype(np.int64))


def _all_skipped(mine: list[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    if world_size() == 1:
        return tuple(mine)
    everyone: list[list[tuple[str, str]]] = [[] for _ in range(world_size())]
    dist.all_gather_object(everyone, mine)
    return tuple(sorted(skipped for part in everyone for skipped in part))
