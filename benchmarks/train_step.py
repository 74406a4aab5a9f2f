"""A training step: one shared trunk pass against separate dense, global and crop passes.

    python -m benchmarks.train_step [--device cpu|cuda] [--model EVA02-B-16] [--images 2] [--regions 4.2 8.2] [--runs 5]
                                    [--no-compiled] [--cpu-time]

All rows but one compute the paper's loss of the same batch: forward, backward, no optimizer. `separate` encodes images
twice (dense, global) and the valid crops; `padded official` does so as the official code arranges it on one device: the
text tower runs again over every caption, and the region loss holds zero rows up to 20 regions per image. `compiled` is
the shared pass with each block but the last compiled, as `fineclip train --compile` does it: of a copy of it, and
after a step that compiles (it needs a C++ compiler, for CUDA too). Memory is the peak on a GPU, and on a CPU what the
graph keeps for its backward pass.
"""

import argparse
import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear
from torch.utils.flop_counter import FlopCounterMode
from torchvision.ops import roi_align

from benchmarks.report import Row, measure, report
from trainer.hyperparameters import ModelSettings
from trainer.loss.losses import contrastive_loss, distill_loss
from trainer.model.backbone import normalise
from trainer.model.open import LoadedModel, load_model
from trainer.model.student import Inputs, Student, encode_text

_TIME_GOAL, _DETACHED_GOAL, _MEMORY_GOAL, _MFU_GOAL = 0.85, 0.45, 0.88, 0.5
_MAX_BOXES = 20
_PEAK_FLOPS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "A800": 312e12}
"""Of bf16 matrix products without sparsity, by a part of the device's name."""


@dataclass(frozen=True, kw_only=True)
class _Batch:
    inputs: Inputs
    image_text: Tensor
    region_text: Tensor
    tokens: Tensor
    """Of image captions, then of region captions."""


@dataclass(frozen=True, kw_only=True)
class _Ways:
    """The ways to compute the losses of `batch`."""

    student: Student
    batch: _Batch
    dense_visual: nn.Module
    """The same tower, its last attention patched to values only."""
    half: bool

    def shared(self, teacher: str = "live") -> Tensor:
        with self._autocast():
            features = self.student(self.batch.inputs, rois=True, teacher=teacher)
        return self._loss(features.image, features.roi, features.crop)

    def detached(self) -> Tensor:
        return self.shared("detached")

    def separate(self) -> Tensor:
        return self._loss(*self._three_passes())

    def padded_official(self) -> Tensor:
        image, roi, crop = self._three_passes()
        with self._autocast(), torch.no_grad():
            text = encode_text(self.student.clip, self.batch.tokens)
        image_text, region_text = text.split([len(image), len(roi)])
        padding = roi.new_zeros(len(image) * _MAX_BOXES - len(roi), roi.shape[1])
        pairs = ((image, image_text), (torch.cat([roi, padding]), torch.cat([region_text, padding])))
        scale = self.student.clip.logit_scale.exp()
        losses = [distill_loss(roi, crop, torch.full_like(roi[:, 0], 1 / len(roi)))]
        for left, right in pairs:
            logits, labels = scale * left @ right.T, torch.arange(len(left), device=left.device)
            losses.append((cross_entropy(logits, labels) + cross_entropy(logits.T, labels)) / 2)
        return torch.stack(losses).sum()

    def _three_passes(self) -> tuple[Tensor, Tensor, Tensor]:
        clip, inputs = self.student.clip, self.batch.inputs
        with self._autocast():
            patches = _dense(self.dense_visual, inputs.images)
            image, crop = clip.encode_image(inputs.images), clip.encode_image(inputs.crops)
        grid = inputs.images.shape[-1] // self.student.backbone.patch_size[0]
        maps = normalise(patches.transpose(1, 2).unflatten(2, (grid, grid)))
        rois = torch.cat([inputs.region_image_index[:, None].float(), inputs.boxes_norm * grid], dim=1)
        roi = roi_align(maps, rois, (1, 1), spatial_scale=1.0, sampling_ratio=-1, aligned=True).flatten(1)
        return normalise(image), normalise(roi), normalise(crop)

    def _loss(self, image: Tensor, roi: Tensor, crop: Tensor) -> Tensor:
        scale = self.student.clip.logit_scale.exp()
        losses = [distill_loss(roi, crop, torch.full_like(roi[:, 0], 1 / len(roi)))]
        for left, right in ((image, self.batch.image_text), (roi, self.batch.region_text)):
            ids = torch.arange(len(left), device=left.device)
            losses.append(
                contrastive_loss(left, right, logit_multiplier=scale, text_ids=ids, duplicate_text="positive")
            )
        return torch.stack(losses).sum()

    def _autocast(self) -> Any:
        device = self.batch.image_text.device.type
        return torch.autocast(device, dtype=torch.bfloat16, enabled=self.half)


def _values_only(visual: Any) -> Any:
    """Return a tower that shares the weights of `visual`, but whose last attention gives each token its own value."""
    patched = copy.copy(visual)
    patched._modules = dict(visual._modules)
    owner, name = ("trunk", "blocks") if hasattr(visual, "trunk") else ("transformer", "resblocks")
    inner = copy.copy(getattr(visual, owner))
    inner._modules = dict(inner._modules)
    blocks = list(getattr(inner, name))
    last = copy.copy(blocks[-1])
    last._modules = dict(last._modules)
    attention = last.attn
    if owner == "trunk":
        values = copy.copy(attention)
        values.forward = lambda x, **_: attention.proj(attention.norm(attention.v_proj(x)))
        last._modules["attn"] = values
    else:
        weight, bias = (lambda: attention.in_proj_weight.chunk(3)[2]), (lambda: attention.in_proj_bias.chunk(3)[2])
        last.attention = lambda q_x, **_: attention.out_proj(linear(q_x, weight(), bias()))
    inner._modules[name] = nn.ModuleList([*blocks[:-1], last])
    patched._modules[owner] = inner
    return patched


def _dense(visual: Any, images: Tensor) -> Tensor:
    """Return `[B, h w, D]` by a whole pass of its own."""
    if hasattr(visual, "trunk"):
        return visual.trunk.head(visual.trunk.forward_features(images))[:, 1:]
    tokens = visual.transformer(visual._embeds(images))
    return (visual.ln_post(tokens) @ visual.proj)[:, 1:]


def _batch(model: LoadedModel, num_images: int, regions: float, size: int, device: torch.device) -> _Batch:
    generator = torch.Generator().manual_seed(0)
    num_regions = round(num_images * regions)
    owner = torch.arange(num_regions) % num_images
    corners = torch.rand(num_regions, 2, generator=generator) * 0.5
    boxes = torch.cat([corners, corners + 0.1 + 0.4 * torch.rand(num_regions, 2, generator=generator)], dim=1)
    tokens = model.tokenize([f"a photo of thing number {i}" for i in range(num_images + num_regions)]).to(device)
    with torch.no_grad():
        text = encode_text(model.clip, tokens).float()
    images, crops = (torch.randn(n, 3, size, size, generator=generator).to(device) for n in (num_images, num_regions))
    inputs = Inputs(images, boxes.to(device), owner.to(device), crops, None, None, None)
    return _Batch(inputs=inputs, image_text=text[:num_images], region_text=text[num_images:], tokens=tokens)


def _step(way: Callable[[], Tensor], student: Student) -> None:
    student.zero_grad(set_to_none=True)
    way().backward()
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _memory_gib(way: Callable[[], Tensor], student: Student, device: torch.device) -> float:
    student.zero_grad(set_to_none=True)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        way().backward()
        return torch.cuda.max_memory_allocated() / 2**30
    weights = {parameter.untyped_storage().data_ptr() for parameter in student.parameters()}
    kept: dict[int, int] = {}

    def see(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(see, lambda tensor: tensor):
        loss = way()
    loss.backward()
    return sum(kept.values()) / 2**30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--model", default="EVA02-B-16")
    parser.add_argument("--images", type=int, default=2, help="images a step")
    parser.add_argument("--size", type=int, default=224, help="pixels of a side, of images and crops")
    parser.add_argument("--regions", type=float, nargs="+", default=[4.2, 8.2], help="regions per image")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--compiled", action=argparse.BooleanOptionalAction, default=True, help="a compiled row")
    parser.add_argument("--cpu-time", action="store_true", help="seconds of CPU time, beside other work on a CPU")
    options = parser.parse_args()
    device = torch.device(options.device)
    model = load_model(ModelSettings(model=options.model, image_size=options.size, crop_size=options.size))
    model.clip.to(device)
    student = Student(model.clip)
    for parameter in model.clip.parameters():
        parameter.requires_grad_(True)
    for regions in options.regions:
        batch = _batch(model, options.images, regions, options.size, device)
        ways = _Ways(
            student=student, batch=batch, dense_visual=_values_only(model.clip.visual), half=device.type == "cuda"
        )
        _compare(ways, regions, options, device)


def _compare(ways: _Ways, regions: float, options: argparse.Namespace, device: torch.device) -> None:
    with torch.no_grad():
        separate = float(ways.separate())
        differences = {"shared trunk": abs(float(ways.shared()) - separate)}
    named = {
        "shared trunk": (ways.shared, ways.student),
        "shared trunk, detached teacher": (ways.detached, ways.student),
        "separate passes": (ways.separate, ways.student),
        "padded official": (ways.padded_official, ways.student),
    }
    compile_s = None
    if options.compiled:
        compiled = replace(ways, student=Student(copy.deepcopy(ways.student.clip)))
        compiled.student.backbone.compile_blocks()
        named["shared trunk, compiled"] = (compiled.shared, compiled.student)
        began = time.perf_counter()
        _step(compiled.shared, compiled.student)
        compile_s = round(time.perf_counter() - began, 1)
        with torch.no_grad():
            differences["compiled"] = abs(float(compiled.shared()) - separate)
    steps = {name: lambda way=way, student=student: _step(way, student) for name, (way, student) in named.items()}
    seconds = measure(steps, options.runs, clock=time.process_time if options.cpu_time else time.perf_counter)
    memory = {name: _memory_gib(way, student, device) for name, (way, student) in named.items()}
    goals = {"shared trunk": _TIME_GOAL, "shared trunk, detached teacher": _DETACHED_GOAL}
    against = seconds["separate passes"]
    rows = [
        Row(name=name, seconds=times, against=None if name == "separate passes" else against, goal=goals.get(name))
        for name, times in seconds.items()
    ]
    extra: dict[str, Any] = {
        "regions per image": regions,
        "images": options.images,
        "model": options.model,
        "difference of the losses from that of separate passes": differences,
        "first compiled step s": compile_s,
        "memory GiB": {name: round(gib, 3) for name, gib in memory.items()},
        "memory ratio (goal 0.88)": round(memory["shared trunk"] / memory["separate passes"], 3),
    }
    if device.type == "cuda":
        extra["MFU (goal 0.5)"] = _mfu(ways, min(seconds["shared trunk"]))
    report(f"training step, {regions} regions per image", rows, extra)


def _mfu(ways: _Ways, seconds: float) -> float | None:
    name = torch.cuda.get_device_name()
    peak = next((flops for part, flops in _PEAK_FLOPS.items() if part in name), None)
    with FlopCounterMode(display=False) as counter:
        _step(ways.shared, ways.student)
    return None if peak is None else round(counter.get_total_flops() / seconds / peak, 3)


if __name__ == "__main__":
    main()
