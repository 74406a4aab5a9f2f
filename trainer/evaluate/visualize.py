"""What models see in images: the clusters of their patches, and the patches' similarity to prompts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from PIL import Image

from trainer.data.decode import Pixels, UnusableSampleError
from trainer.errors import TrainingError
from trainer.evaluate.clusters import cluster, like_first
from trainer.evaluate.figure import Panel, cluster_panel, draw, image_panel, similarity_panel
from trainer.evaluate.pixels import decode_upright, image_files
from trainer.evaluate.settings import VisualizeSettings
from trainer.evaluate.towers import image_tower
from trainer.model.backbone import Backbone, normalise
from trainer.model.text import embed_texts
from trainer.run.load import load_any


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """What a model sees in an image."""

    clusters: torch.Tensor
    """`[rows, columns]` int64."""
    similarities: torch.Tensor
    """`[prompts, rows, columns]` float32."""


def read_images(folder: str, limit: int) -> list[tuple[str, Pixels]]:
    """Return name and pixels of the first images of a folder, by name. Raises TrainingError where there is none."""
    images = []
    for name, file in list(image_files(folder).items())[:limit]:
        try:
            images.append((name, decode_upright(file.read_bytes())[0]))
        except (OSError, UnusableSampleError) as error:
            raise TrainingError(f"--images {folder}: {name}: {error}; take it out of the folder") from error
    return images


def figure(
    models: Sequence[str],
    images: Sequence[tuple[str, Pixels]],
    settings: VisualizeSettings,
    *,
    prompts: Sequence[str],
    image_size: int | tuple[int, int] | None,
    device: torch.device,
    told: Callable[[str], None] = lambda line: None,
) -> Image.Image:
    """Return the figure: a row an image, with its clusters by each model and, by prompt, each model's similarities.

    Raises TrainingError for models that have no dense map.
    """
    seen = []
    count = f"{len(images)} image{'' if len(images) == 1 else 's'}"
    for number, model in enumerate(models, 1):
        told(f"embedding {count} by {model}, model {number} of {len(models)}")
        seen.append(_see(model, images, settings, prompts=prompts, image_size=image_size, device=device))
    names = [_title(model) for model in models]
    titles = [["image"], *([name] for name in names), *([f"“{prompt}”", name] for prompt in prompts for name in names)]
    rows = []
    for at, (_, pixels) in enumerate(images):
        of_models = [by_image[at] for by_image in seen]
        rows.append([image_panel(pixels), *_clusters(pixels, of_models), *_similarities(pixels, of_models, prompts)])
    return draw(titles, rows)


def _clusters(pixels: Pixels, of_models: Sequence[_Seen]) -> list[Panel]:
    """Return the clusters by each model, coloured as those of the first that they overlap most."""
    first = of_models[0].clusters
    panels = []
    for seen in of_models:
        owner = seen.clusters
        if owner.shape == first.shape:
            owner = like_first(owner.flatten(), first.flatten()).reshape(first.shape)
        panels.append(cluster_panel(pixels, owner.numpy()))
    return panels


def _similarities(pixels: Pixels, of_models: Sequence[_Seen], prompts: Sequence[str]) -> list[Panel]:
    return [
        similarity_panel(pixels, seen.similarities[prompt].numpy())
        for prompt in range(len(prompts))
        for seen in of_models
    ]


def _see(
    name: str,
    images: Sequence[tuple[str, Pixels]],
    settings: VisualizeSettings,
    *,
    prompts: Sequence[str],
    image_size: int | tuple[int, int] | None,
    device: torch.device,
) -> list[_Seen]:
    loaded = load_any(name, image_size=image_size, any_tower=True)
    tower = image_tower(loaded.model.clip.to(device)).eval()
    if not isinstance(tower, Backbone):
        raise TrainingError(f"{name}: its vision tower has no dense map, so its patches cannot be shown")
    preparation = loaded.model.preparation(loaded.settings)
    texts = embed_texts(loaded.model, list(prompts), device) if prompts else torch.zeros(0, 0)
    found = []
    for _, pixels in images:
        with torch.inference_mode():
            prepared = preparation.squashed(torch.from_numpy(pixels.copy()).permute(2, 0, 1).to(device))
            dense = cast(Any, tower(prepared[None], dense=True).dense_features)
            maps = normalise(dense)[0].cpu()
        grid = maps.shape[1:]
        patches = maps.flatten(1).T
        similarities = (texts @ maps.flatten(1)).reshape(len(prompts), *grid) if prompts else torch.zeros(0, *grid)
        clusters = cluster(patches, settings.clusters).reshape(grid)
        found.append(_Seen(clusters=clusters, similarities=similarities))
    return found


def _title(model: str) -> str:
    """Return what a model is called in the figure: the last two parts of a path."""
    return "/".join(Path(model.removeprefix("local-dir:")).parts[-2:])
