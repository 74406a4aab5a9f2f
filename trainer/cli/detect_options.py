"""From the command line of `fineclip detect train|evaluate|predict` to settings; nothing here imports torch."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from schemas.flags import flag_of
from trainer.cli.head_options import HeadTrainOptions, checked_names, evaluate_parser, parse_head_train, predict_parser
from trainer.cli.options import add_device, add_flat, settings_of, usage_errors
from trainer.cores import default_workers
from trainer.detection.settings import (
    DETECT_RECIPES,
    DetectRecipe,
    DetectRunSettings,
    InputSettings,
    ScoreSettings,
)

_DATA_HELP = (
    "coco:FILE.json?images=FOLDER, or a data set of `fineclip annotate` whose regions have labels; its classes are "
    "those of --split-classes"
)


@dataclass(frozen=True, kw_only=True)
class DetectEvaluateOptions:
    """What `fineclip detect evaluate` was asked."""

    model: str
    data: str
    out: str
    head: Literal["trained", "none"]
    split: str
    split_classes: str | None
    inputs: InputSettings
    scores: ScoreSettings
    batch_size: int
    workers: int
    device: str


@dataclass(frozen=True, kw_only=True)
class DetectPredictOptions:
    """What `fineclip detect predict` was asked."""

    model: str
    images: str
    names: tuple[str, ...]
    out: str
    scores: ScoreSettings
    device: str


def parse_detect_train(arguments: Sequence[str]) -> HeadTrainOptions[DetectRecipe, DetectRunSettings]:
    """Parse `fineclip detect train ...`. Prints help or an error and raises SystemExit."""
    text = "Train F-ViT on a CLIP's frozen vision tower, on boxes of base classes."
    return parse_head_train("detect", text, _DATA_HELP, DETECT_RECIPES, DetectRunSettings, arguments)


def parse_detect_evaluate(arguments: Sequence[str]) -> DetectEvaluateOptions:
    """Parse `fineclip detect evaluate ...`. Prints help or an error and raises SystemExit."""
    text = "Measure a detector by AP50 of base and novel classes, or a CLIP alone on true boxes."
    head_help = "none: no detector at all: which class is a true box's, by the dense map alone"
    parser = evaluate_parser("detect", text, _DATA_HELP, head_help)
    parser.add_argument(
        "--split-classes",
        metavar="NAME|FILE",
        default=None,
        help="base and novel classes; default: those of the run, ov-coco with --head none",
    )
    inputs = InputSettings()
    parser.add_argument(
        "--image-size",
        type=int | None,
        default=None,
        help=f"with --head none: side of the square input in pixels; default: {inputs.image_size}",
    )
    parser.add_argument(
        "--normalisation",
        choices=["imagenet", "clip"],
        default=None,
        help=f"with --head none: mean and deviation of colours; default: {inputs.normalisation}",
    )
    parser.add_argument(
        "--templates",
        metavar="NAME|FILE",
        default=None,
        help=f"with --head none: sentences for class names: vild, short, plain, or a file; default: {inputs.templates}",
    )
    add_flat(parser, ScoreSettings())
    add_device(parser)
    parser.add_argument("--batch-size", type=int, default=4, help="images at a time")
    parser.add_argument("--workers", type=int, default=default_workers(2), help="processes that decode images")
    parsed = parser.parse_args(list(arguments))
    given = {name: parsed[name] for name in ("image_size", "normalisation", "templates") if parsed[name] is not None}
    if given and parsed.head == "trained":
        flag = flag_of(next(iter(given)))
        parser.error(f"{flag}: for --head none alone; a detector sees what it was trained with")
    if parsed.batch_size < 1:
        parser.error(f"--batch-size {parsed.batch_size}: give 1 or more")
    inputs = replace(inputs, **given, split_classes=parsed.split_classes or inputs.split_classes)
    if parsed.workers < 0:
        parser.error(f"--workers {parsed.workers}: give 0 or more")
    names = ("model", "data", "out", "head", "split", "split_classes", "batch_size", "workers", "device")
    with usage_errors(parser):
        scores = settings_of(ScoreSettings, parsed)
        return DetectEvaluateOptions(**{name: parsed[name] for name in names}, inputs=inputs, scores=scores)


def parse_detect_predict(arguments: Sequence[str]) -> DetectPredictOptions:
    """Parse `fineclip detect predict ...`. Prints help or an error and raises SystemExit."""
    text = "Find things by name in a folder of images: pictures with boxes, and COCO's JSON for `annotate`."
    parser = predict_parser("detect", text, "detections.json", [ScoreSettings(score_threshold=0.3)])
    parsed = parser.parse_args(list(arguments))
    names = checked_names(parser, parsed)
    with usage_errors(parser):
        return DetectPredictOptions(
            model=parsed.model,
            images=parsed.images,
            names=names,
            out=parsed.out,
            scores=settings_of(ScoreSettings, parsed),
            device=parsed.device,
        )
