"""An evaluation from options to metrics: model and truth are opened, embedded once, and measured task by task."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from rich.console import Console

from trainer.cli.heads import tell_data
from trainer.cli.options import EvaluateOptions
from trainer.cli.outputs import tell_skipped
from trainer.errors import TrainingError
from trainer.evaluate.classes import ClassList, class_names, read_class_features, read_classes, with_classes
from trainer.evaluate.embed import Embedded, embed
from trainer.evaluate.metrics import Scores
from trainer.evaluate.read.source import Wanted, default_templates, open_truth
from trainer.evaluate.settings import RegionFeature
from trainer.evaluate.tasks import EVALUATORS
from trainer.evaluate.templates import read_templates
from trainer.evaluate.texts import TextEncoder
from trainer.evaluate.towers import ImageTower, has_dense_map, image_tower
from trainer.evaluate.truth import Truth
from trainer.evaluate.vocabulary import read_vocabulary
from trainer.model.context import Cut
from trainer.model.text import embed_texts
from trainer.run.load import load_any

_EVERY_S = 5.0
"""Seconds between two lines of progress."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was found, and of what."""

    found: Mapping[str, Mapping[str, Scores | float] | None]
    embedded: Embedded
    image_size: tuple[int, int]
    """(height, width) in pixels."""
    templates: str
    cut: Cut
    """Captions longer than the text tower takes, of all tasks."""


def measure(options: EvaluateOptions, device: torch.device, console: Console) -> Measured:
    """Measure what `options` ask for. Every process must call it.

    Raises TrainingError for settings, models and data that cannot be used, before anything is embedded.
    """
    templates = options.templates or default_templates(options.data)
    sentences = read_templates(templates)
    vocabulary = None if options.words is None else read_vocabulary(options.words)
    classes = None if options.truth.classes is None else read_classes(options.truth.classes)
    loaded = load_any(options.checkpoint, image_size=options.image_size, alpha=options.alpha, any_tower=True)
    settings = loaded.settings
    if options.settings.interpolation is not None:
        settings = replace(settings, interpolation=options.settings.interpolation)
    truth = _truth(options, classes)
    fixed = {}
    if options.truth.class_features is not None:
        fixed = read_class_features(options.truth.class_features, class_names(truth.labels, truth.classes, "region"))
        given, own = len(next(iter(fixed.values()))), embed_texts(loaded.model, ["a"], device).shape[1]
        if given != own:
            raise TrainingError(
                f"--class-features {options.truth.class_features}: features of {given} numbers, where the model's "
                f"have {own}: they are another model's"
            )
    tell_data(console, f"{len(truth.images)} images, {truth.num_regions} regions", truth.left_out)
    tower = image_tower(loaded.model.clip.to(device))
    embedded = embed(
        tower,
        loaded.model.preparation(settings),
        truth,
        settings=options.settings,
        features=_features(options, tower, truth),
        device=device,
        watch=Progress(console, "embedded {} of {} images"),
    )
    _tell_skipped(embedded, console)
    cut = [Cut(0, 0, False)]
    encoder = TextEncoder(
        note_cut=cut.append,
        vocabulary=vocabulary,
        model=loaded.model,
        device=device,
        templates=sentences,
        spoken={} if classes is None else classes.spoken,
        fixed=fixed,
        watch=Progress(console, "embedded {} of {} texts"),
    )
    found = _found(options, embedded, encoder, console)
    return Measured(
        found=found,
        embedded=embedded,
        image_size=settings.input_size,
        templates=templates,
        cut=_tell_cut(cut, console),
    )


def _truth(options: EvaluateOptions, classes: ClassList | None) -> Truth:
    truth = open_truth(
        options.data,
        split=options.split,
        settings=options.truth,
        wanted=Wanted(masks="mask" in options.region_features, wrong="attributes" in options.tasks),
        overlays=options.overlays,
        filters=options.filters,
    )
    truth = truth if classes is None else with_classes(truth, classes)
    for task in options.tasks:
        try:
            EVALUATORS[task].check(truth)
        except TrainingError as error:
            raise TrainingError(f"--task {task}: {error}") from error
    return truth


def _features(options: EvaluateOptions, tower: ImageTower, truth: Truth) -> list[RegionFeature]:
    """Return the kinds of regions' features to compute: those asked for that the tower can give."""
    if not any(EVALUATORS[task].USES_REGIONS for task in options.tasks):
        return []
    if "mask" in options.region_features and truth.masks is None:
        raise TrainingError(f"--region-feature mask: no region of {options.data} has a mask")
    features = [feature for feature in options.region_features if feature == "crop" or has_dense_map(tower)]
    if not features:
        raise TrainingError(f"{options.checkpoint}: its vision tower has no dense map: take --region-feature crop")
    return features


def _tell_skipped(embedded: Embedded, console: Console) -> None:
    """Name the images that were skipped. Raises TrainingError where all were."""
    tell_skipped(console, embedded.skipped[:3])
    num_images = len(embedded.truth.images)
    if embedded.skipped:
        console.print(f"{len(embedded.skipped)} of {num_images} images were skipped", highlight=False)
    if not len(embedded.image.at):
        key, why = embedded.skipped[0]
        raise TrainingError(f"none of {num_images} images can be used; the first, {key}: {why}")


def _tell_cut(counts: Sequence[Cut], console: Console) -> Cut:
    """Return the sum of counts of captions that are cut, and say it where there are any."""
    cut = Cut(sum(c.num_cut for c in counts), sum(c.num_texts for c in counts), any(c.is_sample for c in counts))
    if cut.num_cut:
        about = "about " if cut.is_sample else ""
        console.print(
            f"{about}{cut.num_cut} of {cut.num_texts} captions have more tokens than the text tower takes, and are cut",
            highlight=False,
        )
    return cut


def _found(
    options: EvaluateOptions, embedded: Embedded, encoder: TextEncoder, console: Console
) -> dict[str, dict[str, Scores | float] | None]:
    """Return metrics by task; a further `--region-feature` has `TASK:FEATURE`, None where the tower has none."""
    found: dict[str, dict[str, Scores | float] | None] = {}
    for number, task in enumerate(options.tasks, 1):
        console.print(f"measuring {task}, task {number} of {len(options.tasks)}", highlight=False)
        evaluator = EVALUATORS[task]
        if not evaluator.USES_REGIONS:
            found[task] = dict(evaluator.run(embedded, encoder))
            continue
        for place, feature in enumerate(options.region_features):
            name = task if place == 0 else f"{task}:{feature}"
            has = feature in embedded.regions
            found[name] = dict(evaluator.run(embedded.only(feature), encoder)) if has else None
    return found


class Progress:
    """Says now and then how many of how many are done, and how long the rest will take."""

    def __init__(self, console: Console, text: str) -> None:
        """`text` has two places for numbers."""
        self._console, self._text = console, text
        self._start = self._said = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        """Take note; a new count begins where the last one ended."""
        now = time.monotonic()
        if done < total and now - self._said < _EVERY_S:
            return
        left = (now - self._start) / max(done, 1) * (total - done)
        rest = f", {left:.0f} s left" if done < total else f" in {now - self._start:.1f} s"
        self._console.print(self._text.format(done, total) + rest, highlight=False)
        self._said = now
        if done >= total:
            self._start = now
