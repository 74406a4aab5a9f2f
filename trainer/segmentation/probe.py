"""The raw cost volume measured, without any training: what a CLIP itself knows of pixels.

Of all names, which is the most similar to a pixel's patch? Similarities are resized to the image, bilinear.
"""

from typing import cast

import torch
from torch import nn
from torch.nn.functional import interpolate

from trainer.data.decode import Pixels
from trainer.errors import TrainingError
from trainer.evaluate.class_figures import Figures, Watch
from trainer.evaluate.metrics import Ints
from trainer.model.backbone import check_size
from trainer.model.open import LoadedModel
from trainer.model.taps import Residual, tapped
from trainer.model.text import embed_texts
from trainer.model.towers import UnsupportedTowerError, tower_of
from trainer.segmentation.cost import cost_volume
from trainer.segmentation.data import SegmentData
from trainer.segmentation.evaluate import measured
from trainer.segmentation.segmenter import sentence
from trainer.segmentation.settings import SegmentInputs
from trainer.segmentation.views import resized


def probe(
    clip: LoadedModel,
    data: SegmentData,
    inputs: SegmentInputs,
    *,
    residual: Residual,
    device: torch.device,
    workers: int,
    watch: Watch = lambda done, total: None,
) -> Figures:
    """Return the mean IoU of each pixel's most similar name; images are squashed to the input's size.

    Raises TrainingError where the tower has no dense map, the size does not fit, or nothing can be measured.
    """
    visual = cast(nn.Module, clip.clip.to(device).eval().visual)
    side = inputs.image_size
    try:
        tower = tower_of(visual)
        check_size((side, side), tower.patch_size)
    except UnsupportedTowerError as error:
        raise TrainingError(f"{clip.name}: {error}") from error
    except ValueError as error:
        raise TrainingError(f"--image-size {side}: {error}") from error
    mean, std = (torch.tensor(values, device=device).reshape(3, 1, 1) * 255 for values in (clip.mean, clip.std))
    texts = embed_texts(clip, [sentence(inputs.template, name) for name in data.classes], device).to(device)

    @torch.no_grad()
    def label(pixels: Pixels) -> Ints:
        image = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float().to(device)
        seen = tapped(tower, (resized(image, (side, side), antialias=True) - mean) / std, (), residual=residual)
        cost = cost_volume(seen.dense_features, texts)
        whole = interpolate(cost, size=image.shape[2:], mode="bilinear", align_corners=False)
        return whole[0].argmax(dim=0).cpu().numpy()

    return measured(data, label, workers=workers, watch=watch)
