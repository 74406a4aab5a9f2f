"""True boxes scored with the dense map, without any training: what a CLIP itself knows of regions.

Of all classes of the split, which is a true box's? Boxes are pooled from the dense map of the detector's own input.
"""

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from torch import nn

from trainer.data.batches import load_in_order
from trainer.detection.annotations import Bools, DetectionData
from trainer.detection.batches import MeasuredCanvases
from trainer.detection.canvas import normalised
from trainer.detection.evaluate import counts, groups_of
from trainer.detection.fusion import clip_probabilities
from trainer.detection.run import classes_of, colours_of
from trainer.detection.settings import InputSettings
from trainer.errors import TrainingError
from trainer.evaluate.class_figures import Figures, Watch, check_read
from trainer.evaluate.class_split import ClassSplit
from trainer.evaluate.metrics import Ints
from trainer.model.backbone import check_size
from trainer.model.open import LoadedModel
from trainer.model.taps import FrozenTower

_AT_A_TIME = 8
"""Images."""


def probe(
    clip: LoadedModel,
    data: DetectionData,
    split: ClassSplit,
    inputs: InputSettings,
    *,
    device: torch.device,
    workers: int,
    watch: Watch = lambda done, total: None,
) -> Figures:
    """Return the share of true boxes whose own class is the most similar of all, by group; crowds are left out.

    `GROUP_accuracy@1` counts boxes alike, `GROUP_mean_class_accuracy@1` classes alike. Raises TrainingError.
    """
    tower = FrozenTower(cast(nn.Module, clip.clip.to(device).visual), ())
    side = inputs.image_size
    try:
        check_size((side, side), tower.patch_size)
    except ValueError as error:
        raise TrainingError(f"--image-size {side}: {error}") from error
    mean, std = (torch.tensor(values, device=device).reshape(3, 1, 1) * 255 for values in colours_of(clip, inputs))
    texts = classes_of(clip, data.classes, data.is_base.tolist(), inputs, device=device).texts
    right: list[Bools] = []
    labels: list[Ints] = []
    skipped: list[tuple[str, str]] = []
    num_images = 0
    batches = MeasuredCanvases(data, side=side, batch_size=_AT_A_TIME)
    for batch in load_in_order(batches, range(len(batches)), workers):
        skipped += batch.skipped
        num_images += len(batch.keys)
        if batch.keys:
            canvases = normalised(batch.canvases.to(device), batch.sizes, mean, std)
            boxes = [one.to(device) for one in batch.boxes]
            dense = tower(canvases).dense_features
            scored = clip_probabilities(dense, boxes, texts, side=side, clip_scale=1.0)
            single = ~np.concatenate([image.is_crowd for image in batch.images])
            true = torch.cat(batch.labels).numpy()
            right.append((scored[:, :-1].argmax(dim=1).cpu().numpy() == true)[single])
            labels.append(true[single])
        watch(num_images + len(skipped), len(data))
    check_read(num_images, skipped)
    by_class = class_accuracies(np.concatenate(right), np.concatenate(labels), len(data.classes))
    return Figures(
        metrics={
            **accuracies(np.concatenate(right), np.concatenate(labels), groups_of(data.classes, split)),
            **counts(data, split, num_images),
        },
        by_class=dict(zip(data.classes, by_class, strict=True)),
        skipped=tuple(skipped),
    )


def class_accuracies(right: Bools, labels: Ints, num_classes: int) -> list[float]:
    """Return `[K]`: the share of each class's boxes that are `right` (`[N]`); NaN for classes without a box."""
    return [float(right[labels == label].mean()) if (labels == label).any() else np.nan for label in range(num_classes)]


def accuracies(right: Bools, labels: Ints, groups: dict[str, list[int]]) -> dict[str, float]:
    """Return the accuracy of each group of classes and of `all`, over boxes and over classes that have some."""
    found = {}
    every: Sequence[int] = sorted({label for group in groups.values() for label in group})
    by_class = np.array(class_accuracies(right, labels, max(every) + 1))
    for name, group in (*groups.items(), ("all", every)):
        mine = np.isin(labels, group)
        known = by_class[group][~np.isnan(by_class[group])]
        found[f"{name}_accuracy@1"] = float(right[mine].mean()) if mine.any() else np.nan
        found[f"{name}_mean_class_accuracy@1"] = float(known.mean()) if len(known) else np.nan
    return found
