"""From a recipe to the parts of a run: model, teacher, objective, texts, optimizer, and the step that joins them."""

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from trainer.data.index import SampleIndex
from trainer.errors import TrainingError
from trainer.evaluate.zeroshot import DEFAULT_TEMPLATES, class_features
from trainer.loss.gather import world_size
from trainer.loss.objective import Objective
from trainer.model.eva_weights import State
from trainer.model.open import LoadedModel, load_model
from trainer.model.student import SeparateTeacher, Student
from trainer.model.text import FrozenText, TrainedText, text_parameters
from trainer.recipes import TrainRecipe
from trainer.run.optim import make_optimizer
from trainer.run.step import BatchTexts, TrainStep


@dataclass(frozen=True, kw_only=True)
class Parts:
    """A run, assembled at its start."""

    model: LoadedModel
    """Its `clip` is the one being trained."""
    step: TrainStep
    start_fingerprint: str
    """Of the weights at the start."""


def assemble(
    recipe: TrainRecipe,
    index: SampleIndex,
    *,
    device: torch.device,
    text_cache: str,
    max_images: int,
    compile_blocks: bool = False,
    watch_texts: Callable[[int, int], None] = lambda done, total: None,
) -> Parts:
    """Build all parts of a run on `device`. Every process must call it. Raises TrainingError for unusable settings."""
    model = load_model(recipe.model, seed=recipe.order.seed)
    start = state_fingerprint(model.clip.state_dict())
    model.clip.to(device)
    student = Student(model.clip, gradient_checkpointing=recipe.model.gradient_checkpointing)
    logit_scale = _freeze(student, recipe)
    objective, labels = _objective(recipe, index, model, device)
    # Text features are computed by the start's weights, before the student enters training mode.
    texts = BatchTexts(index, _text_source(recipe, index, model, text_cache, device, watch_texts), labels=labels)
    teacher = _teacher(recipe, student)
    named = [*student.clip.named_parameters(), ("logit_scale.trained", logit_scale)]
    student.train()
    if compile_blocks:
        student.backbone.compile_blocks()
    step = TrainStep(
        module=_distributed(student, device),
        logit_scale=logit_scale,
        optimizer=make_optimizer(named, recipe.optim),
        scaler=torch.amp.GradScaler(device.type, enabled=recipe.optim.precision == "fp16"),
        objective=objective,
        preparation=model.preparation(recipe.model),
        texts=texts,
        teacher=teacher,
        precision=recipe.optim.precision,
        clip_norm=recipe.optim.clip_norm,
        max_images=max_images,
        device=device,
    )
    return Parts(model=model, step=step, start_fingerprint=start)


def state_fingerprint(state: State) -> str:
    """Return the sha256 of tensors, by name."""
    digest = sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()


def _freeze(student: Student, recipe: TrainRecipe) -> nn.Parameter:
    """Leave a gradient to what is trained, and return the temperature's parameter.

    It is one of its own, apart from DDP, whose forward pass does not use it; it shares the memory of the model's.
    """
    clip = cast(Any, student.clip)
    clip.logit_scale.requires_grad_(False)
    if clip.logit_bias is not None:
        clip.logit_bias.requires_grad_(False)
    for parameter in text_parameters(student.clip):
        parameter.requires_grad_(recipe.model.train_text)
    if recipe.model.trainable == "blocks":
        student.backbone.train_blocks_only()
    return nn.Parameter(clip.logit_scale.data)


def _teacher(recipe: TrainRecipe, student: Student) -> SeparateTeacher | None:
    if not recipe.loss.distill_weight or recipe.loss.teacher in ("live", "detached"):
        return None
    return SeparateTeacher(student, ema_decay=recipe.loss.ema_decay if recipe.loss.teacher == "ema" else None)


def _distributed(student: Student, device: torch.device) -> Student | DistributedDataParallel:
    if world_size() == 1:
        return student
    # Buffers are constants. Sending them ahead of every forward pass would hang: processes differ in their pieces.
    device_ids = [device] if device.type == "cuda" else None
    return DistributedDataParallel(student, device_ids=device_ids, forward_sync_buffers=False)


def _text_source(
    recipe: TrainRecipe,
    index: SampleIndex,
    model: LoadedModel,
    cache: str,
    device: torch.device,
    watch: Callable[[int, int], None],
) -> FrozenText | TrainedText:
    if recipe.model.train_text:
        return TrainedText(index, model.tokenize)
    compares_regions = bool(recipe.loss.region_weight) and recipe.loss.region_objective == "captions"
    return FrozenText(index, model, cache, device=device, regions=compares_regions, watch=watch)


def _objective(
    recipe: TrainRecipe, index: SampleIndex, model: LoadedModel, device: torch.device
) -> tuple[Objective, Tensor | None]:
    """Return the objective and, for RegionCLIP, the concept `[R]` int64 of each region of the index."""
    features = labels = None
    if recipe.loss.region_objective == "concepts" and recipe.loss.region_weight:
        concepts = _concepts(recipe.loss.concepts, index)
        labels = _labels(index, concepts)
        features = class_features(model, concepts, DEFAULT_TEMPLATES, device=device)
    return Objective(recipe.loss, max_regions=recipe.samples.max_regions, concept_features=features), labels


def _concepts(path: str | None, index: SampleIndex) -> list[str]:
    if path is None:
        names = sorted(pc.unique(index.labels).drop_null().to_pylist())
        if not names:
            raise TrainingError("--region-objective concepts: no region of the data has a label; annotate with one")
        return names
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(f"--concepts {path}: {error}") from error
    return list(dict.fromkeys(line.strip() for line in lines if line.strip()))


def _labels(index: SampleIndex, concepts: list[str]) -> Tensor:
    """Return `[R]` int64. Raises TrainingError for a region whose label is none of the concepts."""
    at = pc.index_in(index.labels, value_set=pa.array(concepts, pa.string()))
    unknown = pc.index(pc.is_null(at), True).as_py()
    if unknown >= 0:
        raise TrainingError(
            f"--region-objective concepts: region {unknown} has the label {index.labels[unknown].as_py()!r}, which is "
            "no concept; name it in the --concepts file, or take the region away by a filter list"
        )
    return torch.from_numpy(at.to_numpy().astype("int64"))
