"""A data set's features: every process embeds its share, and all get all of it."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from schemas.dataset import Dataset
from trainer.data.batch import LoadedBatch
from trainer.data.batches import Batches, load_batches
from trainer.data.index import SampleIndex
from trainer.data.pixels import Preparation
from trainer.evaluate.settings import EvaluateSettings, RegionFeature
from trainer.hyperparameters import OrderSettings, SampleSettings
from trainer.loss.gather import exchange_counts, gather_ids, gather_rows, rank, world_size
from trainer.model.backbone import Backbone, normalise, pool_regions
from trainer.model.student import embed_crops


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """The features of a data set, normalised float32, on the CPU; rows follow the index."""

    index: SampleIndex
    image: Tensor
    """`[I', D]`: of the images that could be decoded."""
    image_rows: npt.NDArray[np.int64]
    """`[I']`: which they are."""
    region: Tensor | None
    """`[R', D]`; None where no task asked."""
    region_rows: npt.NDArray[np.int64]
    """`[R']`."""


def embed(
    backbone: Backbone,
    preparation: Preparation,
    dataset: Dataset,
    index: SampleIndex,
    *,
    settings: EvaluateSettings,
    regions: bool,
    device: torch.device,
) -> Embedded:
    """Embed all images of an index and, with `regions`, all their regions. Every process must call it."""
    batches = Batches(
        dataset,
        index,
        order=OrderSettings(global_batch_size=settings.batch_size),
        samples=SampleSettings(max_regions=None, crop_scale=settings.crop_scale),
        rank=rank(),
        world_size=world_size(),
    )
    loaded = load_batches(batches, first_step=0, last_step=batches.steps_per_epoch, num_workers=settings.workers)
    feature = settings.region_feature if regions else None
    training = backbone.training
    backbone.eval()
    with torch.inference_mode():
        found = [_embed_batch(backbone, preparation, batch.to(device), feature) for batch in loaded]
    backbone.train(training)
    image, image_rows, region, region_rows = (torch.cat(part) for part in zip(*found, strict=True))
    image, image_rows = _everyone(image, image_rows)
    region, region_rows = _everyone(region, region_rows)
    return Embedded(
        index=index,
        image=image,
        image_rows=image_rows.numpy(),
        region=region if regions else None,
        region_rows=region_rows.numpy(),
    )


def _embed_batch(
    backbone: Backbone, preparation: Preparation, batch: LoadedBatch, feature: RegionFeature | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return a batch's image features, their rows in the index, and those of regions (none without `feature`)."""
    embeddings = backbone(preparation.images(batch), dense=feature == "roi")
    image = normalise(embeddings.image_features)
    region_rows = batch.region_index
    if feature == "roi":
        region = pool_regions(embeddings.dense_features, batch.boxes_norm, batch.region_image_index.to(batch.device))
    elif feature == "crop":
        region = embed_crops(backbone, preparation.crops(batch))
    else:
        region, region_rows = image[:0], region_rows[:0]
    return image, batch.image_index, region, region_rows


def _everyone(features: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return what all processes embedded, in the order of the index, on the CPU."""
    counts = exchange_counts([len(rows)], features.device)
    (joined,) = gather_rows([features], counts)
    joined_rows = gather_ids(rows.to(features.device), [row[0] for row in counts]).cpu()
    order = joined_rows.argsort()
    return joined.cpu()[order], joined_rows[order]
