"""Class names as features: each put into sentences, whose features are averaged."""

from collections.abc import Sequence

import torch
from torch import Tensor

from trainer.model.open import LoadedModel
from trainer.model.student import encode_text

DEFAULT_TEMPLATES = ("a photo of a {}.", "a photo of the {}.", "there is a {} in the scene.", "a {} in the picture.")


def class_features(
    model: LoadedModel, names: Sequence[str], templates: Sequence[str], *, device: torch.device
) -> Tensor:
    """Return `[C, D]` float32 normalised features of class names; a template has `{}` where the name goes."""
    rows = []
    with torch.no_grad():
        for name in names:
            sentences = [template.replace("{}", name) for template in templates]
            mean = encode_text(model.clip, model.tokenize(sentences).to(device)).float().mean(dim=0, keepdim=True)
            rows.append(torch.nn.functional.normalize(mean))
    return torch.cat(rows)
