"""From a recipe to the parts of a run: model, objective, texts, teacher, optimizer, and the step that joins them."""

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from trainer.data.index import SampleIndex
from trainer.evaluate.texts import TextEncoder
from trainer.loss.choose import objective_of
from trainer.loss.gather import world_size
from trainer.model.eva_weights import State
from trainer.model.open import LoadedModel, load_model
from trainer.model.student import SeparateTeacher, Student
from trainer.model.text import FrozenText, TrainedText, text_parameters
from trainer.recipes import TrainRecipe
from trainer.run.concepts import concept_labels, read_concepts
from trainer.run.optim import make_optimizer
from trainer.run.step import TrainStep
from trainer.run.texts import BatchTexts


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
    labels = concept_features = None
    if recipe.loss.uses_concepts:
        concepts = read_concepts(recipe.loss.concepts, index)
        labels = concept_labels(index, concepts)
        concept_features = TextEncoder(model=model, device=device).class_names(concepts).to(device)
    max_regions = recipe.samples.max_regions
    objective = objective_of(recipe.loss, max_regions=max_regions, concept_features=concept_features)
    # Text features are computed by the start's weights, before the student enters training mode.
    source: FrozenText | TrainedText
    if recipe.model.train_text:
        source = TrainedText(index, model.tokenize)
    else:
        regions = objective.compares_regions
        source = FrozenText(index, model, text_cache, device=device, regions=regions, watch=watch_texts)
    teacher = None
    if objective.distills and recipe.loss.teacher in ("ema", "frozen"):
        teacher = SeparateTeacher(student, ema_decay=recipe.loss.ema_decay if recipe.loss.teacher == "ema" else None)
    named = [*student.clip.named_parameters(), ("logit_scale.trained", logit_scale)]
    student.train()
    if compile_blocks:
        student.backbone.compile_blocks()
    module: Student | DistributedDataParallel = student
    if world_size() > 1:
        # Buffers are constants. Sending them ahead of every forward pass would hang: processes differ in their pieces.
        device_ids = [device] if device.type == "cuda" else None
        module = DistributedDataParallel(student, device_ids=device_ids, forward_sync_buffers=False)
    step = TrainStep(
        module=module,
        logit_scale=logit_scale,
        optimizer=make_optimizer(named, recipe.optim),
        scaler=torch.amp.GradScaler(device.type, enabled=recipe.optim.precision == "fp16"),
        objective=objective,
        preparation=model.preparation(recipe.model),
        texts=BatchTexts(index, source, objective, labels=labels),
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
    clip: Any = student.clip
    clip.logit_scale.requires_grad_(False)
    if clip.logit_bias is not None:
        clip.logit_bias.requires_grad_(False)
    for parameter in text_parameters(student.clip):
        parameter.requires_grad_(recipe.model.train_text)
    if recipe.model.trainable == "blocks":
        student.backbone.train_blocks_only()
    return nn.Parameter(clip.logit_scale.data)
