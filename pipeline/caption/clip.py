"""A CLIP in open_clip's layout: loaded from a local folder, asked about crops and about texts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.tokenizer import HFTokenizer
from PIL import Image
from torch import Tensor
from torchvision.transforms import Compose

from pipeline.sample import Pixels


@dataclass(frozen=True, kw_only=True)
class LoadedClip:
    """A CLIP with what prepares its inputs."""

    model: Any
    """open_clip's CLIP; it is not typed."""
    preprocess: Compose
    tokenizer: HFTokenizer
    device: str


def load(folder: Path, *, device: str = "cpu") -> LoadedClip:
    """Return the model in float32, in eval mode, with its preprocessing and tokenizer."""
    location = f"local-dir:{folder.resolve()}"
    model, _, preprocess = open_clip.create_model_and_transforms(location, precision="fp32", device=device)
    tokenizer = open_clip.get_tokenizer(location)
    return LoadedClip(model=model.eval(), preprocess=preprocess, tokenizer=tokenizer, device=device)


def load_tagged(architecture: str, tag: str, *, device: str = "cpu") -> LoadedClip:
    """Return the model that open_clip knows by name and tag of its weights, as `load` does."""
    model, _, preprocess = open_clip.create_model_and_transforms(
        architecture, pretrained=tag, precision="fp32", device=device
    )
    tokenizer = open_clip.get_tokenizer(architecture)
    return LoadedClip(model=model.eval(), preprocess=preprocess, tokenizer=tokenizer, device=device)


def images_to_input(preprocess: Compose, images: Sequence[Pixels]) -> Tensor:
    """Return images (`[h, w, 3]` uint8 RGB each) as `[B, 3, S, S]` float32, by open_clip's own rules."""
    return torch.stack([preprocess(Image.fromarray(image)) for image in images])


def encode_crops(loaded: LoadedClip, crops: Sequence[Pixels], *, batch_size: int = 64) -> Tensor:
    """Return `[N, D]` float32 normalised image features of crops (`[h, w, 3]` uint8 RGB each)."""
    batches = [crops[first : first + batch_size] for first in range(0, len(crops), batch_size)]
    with torch.inference_mode():
        inputs = (images_to_input(loaded.preprocess, batch).to(loaded.device) for batch in batches)
        return torch.cat([loaded.model.encode_image(images, normalize=True) for images in inputs])


def encode_captions(loaded: LoadedClip, captions: Sequence[str], *, batch_size: int = 256) -> Tensor:
    """Return `[N, D]` float32 normalised text features."""
    batches = [list(captions[first : first + batch_size]) for first in range(0, len(captions), batch_size)]
    with torch.inference_mode():
        tokens = (loaded.tokenizer(batch).to(loaded.device) for batch in batches)
        return torch.cat([loaded.model.encode_text(batch, normalize=True) for batch in tokens])
