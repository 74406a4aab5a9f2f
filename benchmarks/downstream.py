"""A detector or segmenter on a full-size tower of random weights: what a forward pass and a training step take.

    python -m benchmarks.downstream [--device cpu|cuda] [--model EVA02-B-16] [--size 640] [--images 1] [--runs 1]
    python -m benchmarks.downstream --task segmentation --model ViT-B-16-quickgelu --size 384

Segmentation is CAT-Seg with 171 names, on a crop of 384 pixels; ViT-L-14-336-quickgelu takes `--size 336`.

The towers of the published tables are `EVA02-B-16` at 640 pixels and `EVA02-L-14-336` at 896. An image has 7 boxes of
the 48 base classes of OV-COCO. Memory is the peak of the whole process, or on a GPU what torch allocated; a process
measures one model, so that the peak is its own.
"""

import argparse
import dataclasses
import time
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from benchmarks.report import Row, peak_gib, report
from trainer.detection.detector import Classes, Detector
from trainer.detection.settings import DetectorSettings, ScoreSettings
from trainer.evaluate.class_split import read_class_split
from trainer.hyperparameters import ModelSettings, Precision
from trainer.model.open import load_model
from trainer.model.taps import Tapped
from trainer.segmentation.mask_loss import mask_loss
from trainer.segmentation.run import build
from trainer.segmentation.settings import SegmentRecipe, cat_seg
from trainer.segmentation.train import optimizer_of
from trainer.segmentation.tuning import forget_keys, restore_keys

_BOXES = 7
"""Of an image; COCO has as many on average."""
_NAMES = 171
"""Classes of COCO-Stuff."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=["detection", "segmentation"], default="detection")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--model", default="EVA02-B-16")
    parser.add_argument("--size", type=int, default=640, help="side of the square input in pixels")
    parser.add_argument("--images", type=int, default=1, help="images a step")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--precision", choices=["fp32", "bf16", "fp16"], default="fp32")
    parser.add_argument("--gradient-checkpointing", action="store_true", help="of segmentation")
    options = parser.parse_args()
    device = torch.device(options.device)
    if options.task == "segmentation":
        _measure_segmenter(options, device)
        return
    detector = _detector(options.model, options.size, options.precision, device)
    canvases, sizes, boxes, labels = _batch(options.images, options.size, device)
    shapes = _watch_shapes(detector)

    detector.eval()
    found = [_timed(lambda: detector.detect(canvases, sizes, ScoreSettings()), device) for _ in range(options.runs)]
    forward_gib = peak_gib(options.device)
    detector.train()
    optimizer = torch.optim.AdamW(detector.parameters(), lr=1e-4, weight_decay=0.1)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        detector.losses(canvases, sizes, boxes, labels)["loss"].backward()
        torch.nn.utils.clip_grad_norm_(detector.parameters(), 1.0)
        optimizer.step()

    trained = [_timed(step, device) for _ in range(options.runs)]
    tower = sum(parameter.numel() for parameter in detector.tower._visual[0].parameters())
    extra: dict[str, Any] = {
        "model": options.model,
        "precision": options.precision,
        "images": options.images,
        "parameters of the frozen tower": tower,
        "parameters that are trained": sum(parameter.numel() for parameter in detector.parameters()),
        "parameters by part": {
            name: sum(parameter.numel() for parameter in part.parameters()) for name, part in detector.named_children()
        },
        **shapes,
        "CPU seconds, forward and training step": [round(min(cpu for _, cpu in ways), 1) for ways in (found, trained)],
        "peak GiB, forward": forward_gib,
        "peak GiB, training step": peak_gib(options.device),
    }
    rows = [
        Row(name="forward, detections", seconds=[clock for clock, _ in found], items=options.images),
        Row(name="training step", seconds=[clock for clock, _ in trained], items=options.images),
    ]
    report(f"F-ViT on {options.model} at {options.size} x {options.size}, {options.device}", rows, extra)


def _detector(name: str, size: int, precision: Precision, device: torch.device) -> Detector:
    clip = load_model(ModelSettings(model=name, image_size=size, crop_size=size)).clip
    visual = cast(nn.Module, clip.visual).to(device)  # the text tower is needed once, for the classes
    del clip
    split = read_class_split("ov-coco")
    torch.manual_seed(0)
    dim = 768 if "L-14" in name else 512
    texts = torch.nn.functional.normalize(torch.randn(len(split.names) + 1, dim))
    classes = Classes(texts=texts, is_base=torch.tensor([split.is_base(one) for one in split.names]))
    return Detector(visual, classes, settings=DetectorSettings(), image_size=size, precision=precision).to(device)


def _batch(num_images: int, size: int, device: torch.device) -> tuple[Tensor, Tensor, list[Tensor], list[Tensor]]:
    generator = torch.Generator().manual_seed(0)
    canvases = torch.randint(0, 255, (num_images, 3, size, size), generator=generator, dtype=torch.uint8)
    boxes, labels = [], []
    for _ in range(num_images):
        corners = torch.rand(_BOXES, 2, generator=generator) * 0.6
        sides = 0.05 + 0.35 * torch.rand(_BOXES, 2, generator=generator)
        boxes.append((torch.cat([corners, corners + sides], dim=1) * size).to(device))
        labels.append(torch.randint(0, 48, (_BOXES,), generator=generator).to(device))
    return canvases.to(device), torch.tensor([[size, size]] * num_images, device=device), boxes, labels


def _watch_shapes(detector: Detector) -> dict[str, Any]:
    """Return what the next forward pass will fill in: the shapes of what flows."""
    seen: dict[str, Any] = {}

    def tower(_: nn.Module, __: Any, out: Tapped) -> None:
        seen["taps"] = [list(one.shape[1:]) for one in out.maps]
        seen["dense map"] = list(out.dense_features.shape[1:])

    def pyramid(_: nn.Module, __: Any, levels: list[Tensor]) -> None:
        seen["levels"] = [list(level.shape[1:]) for level in levels]
        seen["strides"] = list(detector.proposer.anchor_generator.strides)
        seen["anchors"] = 3 * sum(level.shape[2] * level.shape[3] for level in levels)

    detector.tower.register_forward_hook(tower)
    detector.pyramid.register_forward_hook(pyramid)
    return seen


def _measure_segmenter(options: argparse.Namespace, device: torch.device) -> None:
    recipe = cat_seg()
    inputs = dataclasses.replace(recipe.inputs, image_size=options.size)
    optim = dataclasses.replace(recipe.optim, precision=options.precision)
    recipe = SegmentRecipe(head=recipe.head, inputs=inputs, optim=optim)
    clip = load_model(ModelSettings(model=options.model, image_size=options.size, crop_size=options.size))
    torch.manual_seed(0)
    segmenter = build(clip, recipe, device=device, tune=True, gradient_checkpointing=options.gradient_checkpointing)
    tokens = segmenter.sentences([f"thing number {number}" for number in range(_NAMES)])
    side = inputs.crop_px
    images = torch.randint(0, 255, (options.images, 3, side, side), dtype=torch.uint8).to(device).float()
    labels = torch.randint(-1, _NAMES, (options.images, side, side), device=device)
    optimizer = optimizer_of(segmenter, optim)
    seen: dict[str, Any] = {}
    segmenter.embed.register_forward_hook(lambda _, given, __: seen.update({"cost volume": list(given[0].shape)}))
    segmenter.decoder.register_forward_hook(lambda _, __, out: seen.update({"logits": list(out.shape)}))

    @torch.no_grad()
    def forward() -> None:
        segmenter(images, segmenter.texts(tokens))

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        mask_loss(segmenter(images, segmenter.texts(tokens)), labels, ignored="negative").backward()
        forget_keys(segmenter.tuned)
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, optim.clip_norm)
        optimizer.step()
        restore_keys(segmenter.tuned)

    segmenter.eval()
    found = [_timed(forward, device) for _ in range(options.runs)]
    forward_gib = peak_gib(options.device)
    segmenter.train()
    trained = [_timed(step, device) for _ in range(options.runs)]
    tuned = sum(one.parameter.numel() - (one.kept[1].numel() if one.kept is not None else 0) for one in segmenter.tuned)
    extra: dict[str, Any] = {
        "model": options.model,
        "precision": options.precision,
        "gradient checkpointing": options.gradient_checkpointing,
        "images": options.images,
        "names": _NAMES,
        "parameters of the CLIP": sum(parameter.numel() for parameter in clip.clip.parameters()),
        "parameters of the CLIP that are trained": tuned,
        "parameters of the segmenter": sum(parameter.numel() for parameter in segmenter.parameters()),
        "parameters by part": {
            name: sum(parameter.numel() for parameter in part.parameters()) for name, part in segmenter.named_children()
        },
        **seen,
        "CPU seconds, forward and training step": [round(min(cpu for _, cpu in ways), 1) for ways in (found, trained)],
        "peak GiB, forward": forward_gib,
        "peak GiB, training step": peak_gib(options.device),
    }
    rows = [
        Row(name="forward, a view", seconds=[clock for clock, _ in found], items=options.images),
        Row(name="training step", seconds=[clock for clock, _ in trained], items=options.images),
    ]
    report(f"CAT-Seg on {options.model} at {options.size} x {options.size}, {options.device}", rows, extra)


def _timed(way: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """Return the seconds of a call by the clock, and of all cores: the second is what counts where others work too."""
    started, cpu = time.perf_counter(), time.process_time()
    way()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started, time.process_time() - cpu


if __name__ == "__main__":
    main()
