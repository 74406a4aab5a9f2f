"""From a name to a model: open_clip's own and `local-dir:` ones, with weights by tag, from a file, or random.

Weights from files are read without unpickling code, and every name must match: nothing missing, nothing left over.
"""

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import open_clip
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from schemas.hashes import fingerprint
from trainer.data.pixels import Preparation
from trainer.errors import TrainingError
from trainer.hyperparameters import ModelSettings
from trainer.model.backbone import check_size
from trainer.model.context import stretch_context
from trainer.model.eva_weights import State, is_original_layout, to_open_clip
from trainer.model.formats import CONFIG, LOCAL_DIR
from trainer.model.pretrained import check_available
from trainer.model.saved_file import load_saved
from trainer.model.towers import UnsupportedTowerError, tower_of

open_clip.add_model_config(Path(__file__).with_name("model_configs"))

Tokenize = Callable[[list[str]], Tensor]
"""Texts to tokens `[N, L]` int64."""

_HUB = "hf-hub:"


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A model with what prepares its inputs."""

    name: str
    clip: nn.Module
    tokenize: Tokenize
    mean: tuple[float, float, float]
    """Of the red, green and blue that the vision tower expects, in 0..1."""
    std: tuple[float, float, float]
    config: dict[str, Any]
    """`model_cfg` and `preprocess_cfg`, as a `local-dir:` folder states them."""

    def preparation(self, settings: ModelSettings) -> Preparation:
        """Return how pixels become this model's input."""
        return Preparation(
            mean=self.mean,
            std=self.std,
            image_size=settings.input_size,
            crop_size=settings.crop_side,
            interpolation=settings.interpolation,
        )

    def tokenizer_fingerprint(self) -> str:
        """Return a hash of what the tokenizer makes of a few texts and of the text tower's configuration."""
        probe = self.tokenize(["a photo of a cat", "two red squares, é and 猫", "x" * 400])
        return fingerprint([probe.tolist(), self.config["model_cfg"].get("text_cfg")])


def load_model(settings: ModelSettings, *, seed: int = 0, any_tower: bool = False) -> LoadedModel:
    """Return the model that `settings` name, on the CPU in float32, in eval mode; `seed` draws random weights.

    With `any_tower`, vision towers that cannot be taken apart here are loaded too, for their own input size alone.

    Raises TrainingError for unknown models and tags, unreadable files, names that do not match, a vision tower that is
    not one of EVA02's or OpenAI's, and input sizes that are not whole patches.
    """
    with torch.random.fork_rng(devices=[]), _quiet():
        torch.manual_seed(seed)
        clip = _create(settings)
    if settings.pretrained is not None and Path(settings.pretrained).is_file():
        load_weights(clip, read_state(settings.pretrained), settings.pretrained)
    try:
        patch_size = tower_of(cast(nn.Module, clip.visual)).patch_size
        for size in (settings.input_size, (settings.crop_side, settings.crop_side)):
            check_size(size, patch_size)
    except UnsupportedTowerError as error:
        if not any_tower:
            raise TrainingError(f"{settings.model}: {error}") from error
    except ValueError as error:
        raise TrainingError(f"{settings.model}: {error}") from error
    config = _model_config(settings.model)
    length = settings.context_length
    if length is not None:
        stretch_context(clip, length)
        config = {**config, "text_cfg": {**config["text_cfg"], "context_length": length}}
    preprocess = cast(Any, clip.visual).preprocess_cfg
    # Images are squashed here, whatever the weights were first trained with.
    prepared: dict[str, Any] = {name: list(preprocess[name]) for name in ("mean", "std")}
    prepared |= {"interpolation": "bilinear", "resize_mode": "squash"}
    return LoadedModel(
        name=settings.model,
        clip=clip.eval(),
        tokenize=open_clip.get_tokenizer(settings.model, context_length=length),
        mean=tuple(preprocess["mean"]),
        std=tuple(preprocess["std"]),
        config={"model_cfg": config, "preprocess_cfg": prepared},
    )


def _create(settings: ModelSettings) -> nn.Module:
    pretrained = settings.pretrained
    from_file = pretrained is not None and Path(pretrained).is_file()
    if pretrained is not None and not from_file and ("/" in pretrained or settings.model.startswith(LOCAL_DIR)):
        raise TrainingError(f"weights {pretrained}: there is no such file")
    if pretrained is not None and not from_file:
        check_available(settings.model, pretrained)
    is_timm = "timm_model_name" in _model_config(settings.model).get("vision_cfg", {})
    try:
        return cast(
            nn.Module,
            open_clip.create_model(
                settings.model,
                pretrained=None if from_file else pretrained,
                load_weights=not from_file,
                force_patch_dropout=None if is_timm else 0.0,
            ),
        )
    except (RuntimeError, FileNotFoundError, ValueError) as error:
        raise TrainingError(f"model {settings.model} with weights {pretrained}: {error}") from error


def _model_config(name: str) -> dict[str, Any]:
    """Return the architecture of a model, as open_clip's JSON files state it. Raises TrainingError."""
    if name.startswith(_HUB):
        raise TrainingError(f"model {name}: download the folder and give it as {LOCAL_DIR}FOLDER")
    if name.startswith(LOCAL_DIR):
        path = Path(name.removeprefix(LOCAL_DIR)) / CONFIG
        try:
            return cast(dict[str, Any], json.loads(path.read_text(encoding="utf-8"))["model_cfg"])
        except (OSError, ValueError, KeyError) as error:
            raise TrainingError(f"{path}: not the configuration of an open_clip model: {error}") from error
    config = open_clip.get_model_config(name)
    if config is None:
        raise TrainingError(
            f"{name}: no such file or folder here, and no such model of open_clip's (open_clip.list_models() names "
            f"them); a folder in open_clip's form is given as {LOCAL_DIR}FOLDER"
        )
    return cast(dict[str, Any], config)


def read_state(path: str) -> State:
    """Return the tensors of a checkpoint file by name. Raises TrainingError where it holds anything that is code."""
    state: Mapping[str, Any]
    if path.endswith(".safetensors"):
        try:
            state = safetensors.torch.load_file(path)
        except (OSError, SafetensorError) as error:
            raise TrainingError(f"{path}: not a checkpoint that can be read: {error}") from error
    else:
        state = load_saved(path, "a checkpoint that can be read without running its code")
    for wrapper in ("state_dict", "model", "module"):
        inner = state.get(wrapper)
        state = inner if isinstance(inner, Mapping) else state
    return {_own_name(name): tensor for name, tensor in state.items() if isinstance(tensor, Tensor)}


def _own_name(name: str) -> str:
    """Return a tensor's name without what `torch.compile` and DDP put before it, in whichever order."""
    return name.replace("_orig_mod.", "").removeprefix("module.")


def load_weights(clip: nn.Module, state: State, where: str) -> None:
    """Load a state in open_clip's or the original EVA-CLIP layout into `clip`.

    Raises TrainingError, naming `where` and the first few names, unless every tensor of the one is in the other.
    """
    if is_original_layout(state):
        state = to_open_clip(state, clip)
    elif "positional_embedding" in state and not hasattr(clip, "positional_embedding"):
        state = open_clip.model.convert_to_custom_text_state_dict(state)
    else:
        state = dict(state)
    open_clip.model.resize_pos_embed(state, clip, antialias=False)
    state = {name: tensor for name, tensor in state.items() if not name.endswith(("position_ids", "attn_mask"))}
    missing, unexpected = _differences(clip.state_dict(), state)
    if missing or unexpected:
        raise TrainingError(
            f"{where}: not this model's weights: missing {_first(missing)}; unexpected {_first(unexpected)}"
        )
    clip.load_state_dict(state)


def _differences(wanted: State, given: State) -> tuple[list[str], list[str]]:
    fitting = {name for name, tensor in given.items() if name in wanted and tensor.shape == wanted[name].shape}
    return sorted(wanted.keys() - fitting), sorted(given.keys() - fitting)


def _first(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3]) or "nothing"
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep open_clip from warning, on the root logger, of the random weights that were asked for."""
    logger = logging.getLogger()
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
