"""What a study stands on: data, a start, a recipe, an evaluation. The scenes benchmark, or a data set of yours."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from schemas.hashes import canonical_json, sha256
from trainer.recipes import RECIPES
from trainer.study.cell import CODE, OUT, SCORES, WORK, Cell, Metric, Step

SCENES = "scenes"
_WORDS = "_overlays/truth/words.json"
_CPU = ("--device", "cpu", "--threads", "1", "--workers", "0")


@dataclass(frozen=True, kw_only=True)
class Ground:
    """Data and settings that the cells of a study share. Paths are relative to the study's `work` folder."""

    name: str
    before: tuple[Step, ...]
    """Steps that every cell needs first: held-out data, the start."""
    inputs: tuple[str, ...]
    """What `annotate` is given to make training data; nothing where the data are there."""
    data: tuple[Step, ...]
    """Steps that make the training data with the captions that are trained on."""
    train_data: tuple[str, ...]
    """DATA of `train`, with its flags."""
    held_out: tuple[str, ...]
    """Flags of `evaluate`: data and tasks."""
    recipe: str
    """Of every training."""
    train: tuple[str, ...]
    """Flags of every training beside the recipe: start, the user's own."""
    start: str | None
    """The model that trainings start from, as `evaluate` takes it; None where that is not known."""
    shipped: str | None
    """Another model, for a row of its own."""
    seeds: tuple[int, ...]
    metrics: tuple[Metric, ...]
    primary: str
    """Title of the metric that the primary contrast is about."""
    proposers: Mapping[str, tuple[str, ...]]
    """Flags of `annotate` by row of the study of proposers; one captioner for all."""
    annotators: Mapping[str, tuple[str, ...]]
    """Flags of `recaption` by row of the study of annotators, the captioner's name second."""
    has_truth: bool
    """Whether `fineclip score` knows what is in the pictures."""

    def trained(self, row: str, *flags: str, seeds: Sequence[int] | None = None) -> list[Cell]:
        """Return a cell a seed: the data, a training with these flags, its evaluation."""
        return [self.cell(row, seed, self.data, self.train_data, *flags) for seed in seeds or self.seeds]

    def cell(self, row: str, seed: int, data: Sequence[Step], train_data: Sequence[str], *flags: str) -> Cell:
        """Return a cell that trains on `train_data`, which `data` makes, and evaluates."""
        given = (*train_data, "--recipe", self.recipe, *self.train, *flags, "--seed", str(seed), "--out", OUT)
        train = training(*given)
        return Cell(row=row, seed=seed, steps=(*self.before, *data, train, self.evaluation(train.out)))

    def evaluated(self, row: str, model: str | None) -> list[Cell]:
        """Return the cell that evaluates a model as it is; none for None."""
        steps = () if model is None else (*self.before, self.evaluation(model))
        return [Cell(row=row, seed=None, steps=steps)] if steps else []

    def evaluation(self, model: str) -> Step:
        """Return the step that evaluates a model."""
        given = ("evaluate", model, *self.held_out, "--out", OUT, "--scores", SCORES)
        return Step(kind="evaluate", arguments=given, suffix=".json")


def training(*arguments: str) -> Step:
    """Return the step of `fineclip train` with these arguments; a recipe that has changed makes it another one."""
    name = max(at for at, argument in enumerate(arguments) if argument == "--recipe") + 1
    settings = RECIPES[arguments[name]]().changed()
    return Step(kind="train", arguments=("train", *arguments), version=sha256(canonical_json(settings))[:16])


def scenes(flags: Sequence[str] = (), *, seeds: int = 3) -> Ground:
    """Return the scenes benchmark: everything is made here, for two CPU cores.

    The start is a CLIP trained on whole scenes and their captions alone. All methods go on from it, on fresh scenes
    with the true captions of their regions. The three sets have seeds of their own, so no scene is in two of them.
    """
    base, train, held_out = (
        Step(kind="data", arguments=("annotate", f"scenes:{n}?seed={seed}", OUT, *_MANUAL))
        for n, seed in ((12_000, 11), (6_000, 12), (1_000, 13))
    )
    truths = tuple(
        Step(kind="truth", arguments=("truth", made.out), beside=f"{made.out}/{_WORDS}") for made in (train, held_out)
    )
    start = training(base.out, "--recipe", "scenes_clip", *_CPU, "--out", OUT)
    words = ("--task", "words", "attributes", "retrieval", "region-retrieval", "--words", f"{held_out.out}/{_WORDS}")
    return Ground(
        name="scenes",
        before=(held_out, truths[1], base, start),
        inputs=train.arguments[1:2],
        data=(train, truths[0]),
        train_data=(train.out, "--overlay", "truth"),
        held_out=("--data", held_out.out, "--overlay", "truth", *words, "--device", "cpu", "--workers", "0"),
        recipe="scenes",
        train=("--model", f"local-dir:{start.out}/model", *_CPU, *flags),
        start=start.out,
        shipped=f"local-dir:{CODE}/pipeline/models/checkpoints/clip",
        seeds=tuple(range(seeds)),
        metrics=(
            *(Metric(name=f"words.{n}_accuracy@1", title=t, chance=f"words.{n}_chance@1") for n, t in _ASKED),
            Metric(name="attributes.attribute_accuracy@1", title="attributes", chance="attributes.attribute_chance@1"),
            Metric(name="region-retrieval.region_to_text_recall@10", title="region to text R@10"),
            Metric(name="retrieval.image_to_text_recall@10", title="image to text R@10"),
        ),
        primary="colour and shape",
        proposers={
            "manual": ("--proposer", "manual", *_MINI_BLIP2),
            "selective search": ("--profile", "weightless", *_MINI_BLIP2),
            "D-FINE, mini": ("--profile", "mini"),
        },
        annotators={
            "rule": ("--captioner", "rule"),
            "RegionCLIP's rule, mini CLIP": ("--captioner", "clip_rule", "--caption.model", "mini"),
            "BLIP-2, mini": _MINI_BLIP2,
        },
        has_truth=True,
    )


_MANUAL = ("--proposer", "manual", "--captioner", "rule", "--shard-size", "1000")
_MINI_BLIP2 = (
    *("--captioner", "blip2", "--caption.model", "mini", "--caption.dtype", "float32"),
    *("--caption.max-new-tokens", "12", "--caption.batch-size", "64"),
)
_ASKED = (
    ("colour", "colour"),
    ("shape", "shape"),
    ("size", "size"),
    ("texture", "texture"),
    ("colour_shape", "colour and shape"),
    ("size_shape", "size and shape"),
)


def data_set(data: str, out: Path, *, recipe: str, inputs: Sequence[str], flags: Sequence[str], seeds: int) -> Ground:
    """Return a data set of `annotate` to train on, whose `val` shards are held out; `inputs` are `annotate`'s."""

    def seen(path: str) -> str:
        """Return a path as commands in the study's folder see it."""
        return path if ":" in path else os.path.relpath(path, out / WORK)

    tasks = ("--task", "regions", "retrieval", "region-retrieval")
    return Ground(
        name="data",
        before=(),
        inputs=tuple(map(seen, inputs)),
        data=(),
        train_data=(seen(data),),
        held_out=("--data", seen(data), "--split", "val", *tasks),
        recipe=recipe,
        train=tuple(flags),
        start=None,
        shipped=None,
        seeds=tuple(range(seeds)),
        metrics=(
            Metric(name="regions.region_accuracy@1", title="region top-1", chance="regions.region_chance@1"),
            Metric(name="regions.region_mean_class_accuracy@1", title="region mAcc"),
            Metric(name="region-retrieval.region_to_text_recall@1", title="region to text R@1"),
            Metric(name="retrieval.image_to_text_recall@1", title="image to text R@1"),
            Metric(name="retrieval.text_to_image_recall@1", title="text to image R@1"),
        ),
        primary="region top-1",
        proposers={name: ("--proposer", name) for name in ("yolov9", "fastsam", "rpn", "sam", "selective_search")},
        annotators={name: ("--captioner", name) for name in ("rule", "clip_rule", "blip2")},
        has_truth=False,
    )
