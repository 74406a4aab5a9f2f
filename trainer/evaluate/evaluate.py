"""Evaluation: embed a data set once, then compute a task's metrics.

    regions            boxes against the names of their labels (region_accuracy, mean over classes too)
    retrieval          images and their captions, both ways
    region-retrieval   boxes and their captions, both ways
    zeroshot           images against class names, which are their captions

Texts equal after normalisation are one text: finding it is right wherever it stands. Every process embeds its share.
Accuracies come with what guessing among the classes would reach (chance).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from schemas.dataset import Dataset
from trainer.data.batch import LoadedBatch
from trainer.data.batches import Batches, load_batches
from trainer.data.index import SampleIndex
from trainer.data.pixels import Preparation
from trainer.errors import TrainingError
from trainer.evaluate.metrics import classification, recall_at
from trainer.evaluate.settings import EvaluateSettings, RegionFeature, Task
from trainer.evaluate.zeroshot import DEFAULT_TEMPLATES, class_features
from trainer.hyperparameters import OrderSettings, SampleSettings
from trainer.loss.gather import exchange_counts, gather_ids, gather_rows, rank, world_size
from trainer.model.backbone import Backbone, normalise, pool_regions
from trainer.model.open import LoadedModel
from trainer.model.student import embed_crops, encode_text

_KS = (1, 5, 10)
_QUERIES = 1024
"""Rows of similarities in memory at a time."""


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
    training = backbone.training
    backbone.eval()
    with torch.inference_mode():
        found = [
            _embed_batch(backbone, preparation, batch.to(device), settings.region_feature if regions else None)
            for batch in loaded
        ]
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


def evaluate(
    task: Task,
    embedded: Embedded,
    model: LoadedModel,
    *,
    device: torch.device,
    templates: Sequence[str] = DEFAULT_TEMPLATES,
) -> dict[str, float]:
    """Return a task's metrics by name, each in [0, 1]. Raises TrainingError where the data has nothing to measure."""
    return _TASKS[task](embedded, model, device, templates)


def _regions(
    embedded: Embedded, model: LoadedModel, device: torch.device, templates: Sequence[str]
) -> dict[str, float]:
    assert embedded.region is not None
    labels = embedded.index.labels.take(pa.array(embedded.region_rows))
    return _classified(embedded.region, labels, model, device, templates, what="region")


def _zeroshot(
    embedded: Embedded, model: LoadedModel, device: torch.device, templates: Sequence[str]
) -> dict[str, float]:
    names = embedded.index.image_captions.take(pa.array(embedded.image_rows))
    return _classified(embedded.image, names, model, device, templates, what="image")


def _classified(
    features: Tensor,
    names: pa.ChunkedArray,
    model: LoadedModel,
    device: torch.device,
    templates: Sequence[str],
    *,
    what: str,
) -> dict[str, float]:
    """Classify rows by name among all names there are; rows without one are left out."""
    classes = _classes(names, what)
    named = pc.is_valid(names).to_numpy()
    at = pc.index_in(names.drop_null(), value_set=pa.array(classes)).to_numpy()
    labels = torch.from_numpy(at.astype(np.int64))
    texts = class_features(model, classes, templates, device=device).cpu()
    rows = features[torch.from_numpy(named)]
    return {
        **classification(rows @ texts.T, labels, what),
        f"num_{what}s": float(len(labels)),
        "num_classes": float(len(classes)),
    }


def _classes(names: pa.ChunkedArray, what: str) -> list[str]:
    """Return the distinct names, sorted. Raises TrainingError where there are not two: any model would be right."""
    classes = sorted(pc.unique(names).drop_null().to_pylist())
    if not classes:
        raise TrainingError(f"no {what} of the data has a class name: there is nothing to classify")
    if len(classes) == 1:
        named, remedy = {
            "region": ("label", "annotate with a proposer that names classes, or take --task region-retrieval"),
            "image": ("caption", "take images whose captions are their class names, or --task retrieval"),
        }[what]
        raise TrainingError(
            f"every {what} of the data has the same {named}, {classes[0]!r}, so any model would classify all of them "
            f"right: {remedy}"
        )
    return classes


def _retrieval(
    embedded: Embedded, model: LoadedModel, device: torch.device, templates: Sequence[str]
) -> dict[str, float]:
    index = embedded.index
    rows = embedded.image_rows
    captioned = index.has_caption[rows]
    captions = index.image_captions.take(pa.array(rows[captioned]))
    ids = index.image_text_ids[rows[captioned]]
    return _both_ways(embedded.image[torch.from_numpy(captioned)], captions, ids, model, device, what="image")


def _region_retrieval(
    embedded: Embedded, model: LoadedModel, device: torch.device, templates: Sequence[str]
) -> dict[str, float]:
    assert embedded.region is not None
    captions = embedded.index.region_captions.take(pa.array(embedded.region_rows))
    ids = embedded.index.region_text_ids[embedded.region_rows]
    return _both_ways(embedded.region, captions, ids, model, device, what="region")


def _both_ways(
    features: Tensor,
    captions: pa.ChunkedArray,
    ids: npt.NDArray[np.int64],
    model: LoadedModel,
    device: torch.device,
    *,
    what: str,
) -> dict[str, float]:
    """Return recalls of finding the text of a row `[N, D]` among the distinct ones, and a row of a text."""
    if not len(ids):
        raise TrainingError(f"no {what} of the data has a caption: there is nothing to retrieve")
    _, first, of_row = np.unique(ids, return_index=True, return_inverse=True)
    distinct: list[str] = captions.take(pa.array(first)).to_pylist()
    texts = _encode(distinct, model, device)
    owner = torch.from_numpy(of_row.astype(np.int64))
    to_text = _recalls(features, texts, lambda rows: owner[rows, None] == torch.arange(len(texts))[None])
    to_row = _recalls(texts, features, lambda rows: torch.arange(len(texts))[rows, None] == owner[None])
    names = {f"{what}_to_text_recall@{k}": value for k, value in to_text.items()}
    names |= {f"text_to_{what}_recall@{k}": value for k, value in to_row.items()}
    return {**names, f"num_{what}s": float(len(owner)), "num_texts": float(len(texts))}


def _recalls(queries: Tensor, keys: Tensor, matches_of: Callable[[slice], Tensor]) -> dict[int, float]:
    hits: dict[int, int] = dict.fromkeys(_KS, 0)
    for rows in _portions(len(queries)):
        similarities, matches = queries[rows] @ keys.T, matches_of(rows)
        for k in _KS:
            hits[k] += int(recall_at(similarities, matches, k).sum())
    return {k: count / len(queries) for k, count in hits.items()}


def _portions(count: int) -> Iterator[slice]:
    yield from (slice(first, min(first + _QUERIES, count)) for first in range(0, count, _QUERIES))


def _encode(texts: list[str], model: LoadedModel, device: torch.device) -> Tensor:
    portions = [texts[first : first + 256] for first in range(0, len(texts), 256)]
    with torch.inference_mode():
        return torch.cat([encode_text(model.clip, model.tokenize(part).to(device)).float().cpu() for part in portions])


_TASKS: dict[Task, Callable[[Embedded, LoadedModel, torch.device, Sequence[str]], dict[str, float]]] = {
    "regions": _regions,
    "retrieval": _retrieval,
    "region-retrieval": _region_retrieval,
    "zeroshot": _zeroshot,
}


def check_task(task: Task, index: SampleIndex) -> None:
    """Raise TrainingError where it is known before anything is embedded that there is nothing to classify."""
    if task == "regions":
        _classes(index.labels, "region")
    if task == "zeroshot":
        _classes(index.image_captions, "image")


def needs_regions(task: Task) -> bool:
    """Say whether a task looks at regions."""
    return task in ("regions", "region-retrieval")
