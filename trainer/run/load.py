"""A model from whatever names one: a run, its checkpoint, an open_clip folder, or open_clip's names."""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, cast

from torch import nn

from trainer.errors import TrainingError
from trainer.hyperparameters import ModelSettings
from trainer.model.export import average_weights
from trainer.model.formats import CONFIG, LOCAL_DIR
from trainer.model.open import LoadedModel, load_model, load_weights
from trainer.model.towers import can_be_taken_apart
from trainer.run.assemble import load_start
from trainer.run.checkpoints import load_checkpoint
from trainer.run.files import find_checkpoint


@dataclass(frozen=True, kw_only=True)
class LoadedCheckpoint:
    """A model with the settings that prepare its inputs."""

    model: LoadedModel
    settings: ModelSettings


def load_any(
    name: str,
    *,
    image_size: int | tuple[int, int] | None = None,
    alpha: float | None = None,
    any_tower: bool = False,
) -> LoadedCheckpoint:
    """Load the model that `name` means.

    `image_size` replaces that of the run, or the model's own; `alpha` the run's share of trained weights; `any_tower`
    takes models of open_clip's that cannot be trained here. Raises TrainingError where nothing is found, or `alpha` is
    given for what is no run.
    """
    checkpoint = find_checkpoint(name)
    if checkpoint is not None:
        return _of_run(checkpoint, image_size, alpha)
    if (Path(name) / CONFIG).is_file():
        return _fresh(ModelSettings(model=f"{LOCAL_DIR}{name}"), image_size, alpha, any_tower)
    model, _, pretrained = name.partition(":")
    if model == LOCAL_DIR.rstrip(":"):
        model, pretrained = name, ""
    return _fresh(ModelSettings(model=model, pretrained=pretrained or None), image_size, alpha, any_tower)


def _of_run(path: Path, image_size: int | tuple[int, int] | None, alpha: float | None) -> LoadedCheckpoint:
    checkpoint = load_checkpoint(path)
    known = {field.name for field in fields(ModelSettings)}
    plain = {name: value for name, value in checkpoint.recipe.items() if name in known}
    if isinstance(plain["image_size"], list):
        plain["image_size"] = tuple(plain["image_size"])
    settings = ModelSettings(**plain)
    share = settings.alpha if alpha is None else alpha
    # Weights of the start are needed only to average with; otherwise the architecture is enough.
    seed = int(checkpoint.recipe["seed"])
    if share == 1:
        model = load_model(replace(settings, pretrained=None), seed=seed)
    else:
        model = load_start(settings, seed=seed, expected=checkpoint.start_fingerprint)
    state = average_weights(checkpoint.model, model.clip.state_dict(), share)
    load_weights(model.clip, state, str(path))
    return LoadedCheckpoint(model=model, settings=_sized(settings, image_size))


def _fresh(
    settings: ModelSettings, image_size: int | tuple[int, int] | None, alpha: float | None, any_tower: bool
) -> LoadedCheckpoint:
    if alpha is not None:
        raise TrainingError(f"--alpha {alpha}: only a run knows the weights it started from; give its folder")
    # The model's own size is known once it is built: any size of whole patches will do until then.
    patches = replace(settings, image_size=16 * 14)
    model = load_model(patches, any_tower=any_tower)
    own = cast(Any, model.clip.visual).image_size
    native = tuple(own) if isinstance(own, (tuple, list)) else (own, own)
    size = native if image_size is None else image_size
    asked = size if isinstance(size, tuple) else (size, size)
    if asked != native and not can_be_taken_apart(cast(nn.Module, model.clip.visual)):
        raise TrainingError(f"--image-size {image_size}: {settings.model} takes {native[0]} x {native[1]} alone")
    return LoadedCheckpoint(model=model, settings=_sized(patches, size))


def _sized(settings: ModelSettings, image_size: int | tuple[int, int] | None) -> ModelSettings:
    return settings if image_size is None else replace(settings, image_size=image_size)
