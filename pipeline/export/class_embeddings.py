"""What the names of classes are to a CLIP's text tower, as the RegionCLIP baseline reads it: a `.npy`, a row a class.

Each name is put into ViLD's 63 sentences. Their normalised features are averaged, and the mean is normalised.
"""

from collections.abc import Sequence
from io import BytesIO

import numpy as np

from pipeline.backends import require
from pipeline.models.weights import ModelFiles, find_model
from schemas.class_sentences import VILD, sentences

FLAG = "--embeddings"
_MINI = "clip"
_CLASSES = 16
"""Classes whose sentences are in memory at a time."""


def find_clip(name: str) -> ModelFiles:
    """Return the files of a CLIP: `mini`, a folder in open_clip's layout, or a hub id.

    Raises ImportError where open_clip is missing, WeightsNotFoundError where the CLIP is.
    """
    require("open_clip", what=FLAG, install="pip install open_clip_torch")
    return find_model(name, mini=_MINI, flag=FLAG)


def embed_classes(model: str, classes: Sequence[str]) -> bytes:
    """Return a `.npy` file of `[C, D]` float32, rows of length 1 in the order of `classes`. Raises as `find_clip`."""
    files = find_clip(model)
    import torch

    from pipeline.caption import clip  # heavy, and of no use to an export without embeddings

    loaded = clip.load(files.path)
    rows = []
    for start in range(0, len(classes), _CLASSES):
        names = classes[start : start + _CLASSES]
        features = clip.encode_captions(loaded, [text for name in names for text in sentences(VILD, name)])
        means = features.view(len(names), len(VILD), -1).mean(dim=1)
        rows.append(torch.nn.functional.normalize(means, dim=-1).cpu().numpy())
    buffer = BytesIO()
    np.save(buffer, np.concatenate(rows).astype(np.float32))
    return buffer.getvalue()
