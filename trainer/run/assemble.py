"""From a recipe to the parts of a run: model, objective, texts, teacher, optimizer, and the step that joins them."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from schemas.dataset import Dataset
from trainer.data.batches import Batches
from trainer.data.index import SampleIndex
from trainer.errors import TrainingError
from trainer.evaluate.texts import TextEncoder
from trainer.hyperparameters import LossSettings, ModelSettings
from trainer.loss.choose import objective_of
from trainer.loss.gather import rank, world_size
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
    stopping: Callable[[], bool] = lambda: False,
) -> Parts:
    """Build all parts of a run on `device`. Every process must call it.

    A loss that the data has nothing for (no captions, no regions) is left out. Raises TrainingError for unusable
    settings, InterruptedRunError where `stopping` says so before all captions are embedded.
    """
    loss = losses_of_data(recipe, index)
    model = load_model(recipe.model, seed=recipe.order.seed)
    start = state_fingerprint(model.clip.state_dict())
    model.clip.to(device)
    student = Student(model.clip, gradient_checkpointing=recipe.model.gradient_checkpointing)
    logit_scale = _freeze(student, recipe)
    labels = concept_features = None
    if loss.uses_concepts:
        concepts = read_concepts(recipe.loss.concepts, index)
        labels = concept_labels(index, concepts)
        concept_features = TextEncoder(model=model, device=device).class_names(concepts).to(device)
    max_regions = recipe.samples.max_regions
    objective = objective_of(loss, max_regions=max_regions, concept_features=concept_features)
    # Text features are computed by the start's weights, before the student enters training mode.
    source: FrozenText | TrainedText
    if recipe.model.train_text:
        source = TrainedText(index, model.tokenize)
    else:
        source = FrozenText(
            index,
            model,
            text_cache,
            device=device,
            images=objective.compares_images,
            regions=objective.compares_regions,
            negatives=objective.uses_negatives,
            watch=watch_texts,
            stopping=stopping,
        )
    teacher = None
    if objective.distills and recipe.loss.teacher in ("ema", "frozen"):
        teacher = SeparateTeacher(student, ema_decay=recipe.loss.ema_decay if recipe.loss.teacher == "ema" else None)
    pools = objective.compares_images or (objective.distills and recipe.loss.teacher == "live")
    named = [*student.clip.named_parameters(), ("logit_scale.trained", logit_scale)]
    student.train()
    if compile_blocks:
        student.backbone.compile_blocks()
    step = TrainStep(
        module=_in_processes(student, device),
        logit_scale=logit_scale,
        optimizer=make_optimizer(named, recipe.optim),
        scaler=torch.amp.GradScaler(device.type, enabled=recipe.optim.precision == "fp16"),
        objective=objective,
        preparation=model.preparation(recipe.model),
        texts=BatchTexts(index, source, objective, labels=labels),
        teacher=teacher,
        precision=recipe.optim.precision,
        clip_norm=recipe.optim.clip_norm,
        unreached=[] if pools else student.backbone.class_token_only,
        max_images=max_images if max_images < -(-recipe.order.global_batch_size // world_size()) else None,
        device=device,
    )
    return Parts(model=model, step=step, start_fingerprint=start)


def _in_processes(student: Student, device: torch.device) -> Student | DistributedDataParallel:
    """Return the student as it is called: by itself, or joined with those of other processes."""
    if world_size() == 1:
        return student
    # Buffers are constants. Sending them ahead of every forward pass would hang: processes differ in their pieces.
    # Which argument says so changed with torch 2.15; that they are not DDP's affair is said the same way in all.
    buffers = [name for name, _ in student.named_buffers()]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(student, buffers)
    return DistributedDataParallel(student, device_ids=[device] if device.type == "cuda" else None)


def open_batches(dataset: Dataset, index: SampleIndex, recipe: TrainRecipe, *, tell: Callable[[str], None]) -> Batches:
    """Return this process's batches, and tell how a stream is divided. Raises TrainingError where it cannot be."""
    place = {"rank": rank(), "world_size": world_size()}
    if not recipe.order.stream:
        return Batches(dataset, index, order=recipe.order, samples=recipe.samples, **place)
    from trainer.data.streams import StreamedBatches  # webdataset takes a second to import

    streamed = StreamedBatches(dataset, index, order=recipe.order, samples=recipe.samples, **place)
    lanes = streamed.epoch_lanes(0)
    empty = f"{lanes.num_empty} of {lanes.num_steps * world_size()} batches empty, since a shard is read by one process"
    tell(
        f"streaming {len(index.shards)} shards to {world_size()} process{'es'[: 2 * (world_size() > 1)]}: "
        f"{lanes.num_steps} steps in the first epoch{f', {empty}' if lanes.num_empty else ''}"
    )
    return streamed


def losses_of_data(recipe: TrainRecipe, index: SampleIndex) -> LossSettings:
    """Return the recipe's losses without those that the data has nothing for.

    Raises TrainingError where none is left, or none looks at the texts that are to be trained.
    """
    left = dataclasses.asdict(recipe.loss)
    if not index.has_caption.any():
        left["global_weight"] = 0
    if not index.num_regions:
        left["region_weight"] = left["distill_weight"] = left["hard_negative_weight"] = 0
    if left["hard_negative_weight"] and index.negatives is None:
        raise TrainingError(
            "--hard-negative-weight: the data have no hard negatives; make them by `fineclip hard-negatives DATA --as "
            "NAME`, and give --overlay NAME"
        )
    if not any(left[f"{name}_weight"] for name in ("global", "region", "distill")):
        raise TrainingError(
            "nothing to train on: "
            + {
                (False, False): "no image has a caption and none has a region",
                (True, False): "no image has a region, and the recipe leaves captions of images out",
                (False, True): "no image has a caption, and the recipe leaves regions out",
            }[bool(index.has_caption.any()), bool(index.num_regions)]
        )
    loss = LossSettings(**left)
    if recipe.model.train_text and not loss.uses_texts:
        raise TrainingError(
            "--train-text: the data has no captions that the recipe's losses look at; give --train-text false"
        )
    return loss


def load_start(settings: ModelSettings, *, seed: int, expected: str) -> LoadedModel:
    """Load the weights that a run started from, once more; `expected` is their `state_fingerprint`.

    Raises TrainingError where others are there by now: averaged with them, trained weights would be worth nothing.
    """
    start = load_model(settings, seed=seed)
    if state_fingerprint(start.clip.state_dict()) != expected:
        raise TrainingError(
            f"{settings.pretrained or settings.model}: holds other weights than those that the run started from, and a "
            "share of them is wanted: restore them, or give --alpha 1"
        )
    return start


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
