"""From the command line of `fineclip detect train|evaluate|predict` to settings; nothing here imports torch."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal

from schemas.flags import flag_of
from trainer.cli.options import EXIT_CODES, TRAIN_EXIT_CODES, add_flat, command_parser, settings_of
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
class DetectTrainOptions:
    """What `fineclip detect train` was asked."""

    model: str
    data: str
    out: str
    recipe: DetectRecipe
    settings: DetectRunSettings


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


def parse_detect_train(arguments: Sequence[str]) -> DetectTrainOptions:
    """Parse `fineclip detect train ...`. Prints help or an error and raises SystemExit."""
    name = _recipe_name(arguments)
    recipe = DETECT_RECIPES[name]()
    usage = "fineclip detect train --model MODEL --data DATA --out RUN [options]"
    text = "Train F-ViT on a CLIP's frozen vision tower, on boxes of base classes."
    parser = command_parser("detect train", usage, text, TRAIN_EXIT_CODES)
    _add_model(parser, "the CLIP: what `fineclip evaluate` takes")
    parser.add_argument("--data", metavar="DATA", required=True, help=_DATA_HELP)
    parser.add_argument("--out", metavar="RUN", required=True, help="folder of the run; an interrupted one goes on")
    summaries = "; ".join(
        f"{n}: {(make.__doc__ or '').splitlines()[0].rstrip('.')}" for n, make in DETECT_RECIPES.items()
    )
    parser.add_argument("--recipe", choices=[*DETECT_RECIPES], default=name, help=summaries)
    parts = {part.name: getattr(recipe, part.name) for part in fields(DetectRecipe)}
    for settings in (*parts.values(), DetectRunSettings()):
        add_flat(parser, settings)
    parsed = parser.parse_args(list(arguments))
    try:
        return DetectTrainOptions(
            model=parsed.model,
            data=parsed.data,
            out=parsed.out,
            recipe=DetectRecipe(**{part: settings_of(type(settings), parsed) for part, settings in parts.items()}),
            settings=settings_of(DetectRunSettings, parsed),
        )
    except ValueError as error:
        parser.error(str(error))
        raise AssertionError("unreachable") from error


def parse_detect_evaluate(arguments: Sequence[str]) -> DetectEvaluateOptions:
    """Parse `fineclip detect evaluate ...`. Prints help or an error and raises SystemExit."""
    usage = "fineclip detect evaluate --model RUN|MODEL --data DATA --out FILE.json [options]"
    text = "Measure a detector by AP50 of base and novel classes, or a CLIP alone on true boxes."
    parser = command_parser("detect evaluate", usage, text, EXIT_CODES)
    _add_model(parser, "run of `fineclip detect train`; with --head none, what `fineclip evaluate` takes")
    parser.add_argument("--data", metavar="DATA", required=True, help=_DATA_HELP)
    parser.add_argument("--out", metavar="FILE", required=True, help="JSON file to write the metrics to")
    parser.add_argument(
        "--head",
        choices=["trained", "none"],
        default="trained",
        help="none: no detector at all: which class is a true box's, by the dense map alone",
    )
    parser.add_argument("--split", choices=["train", "val"], default="train", help="shards of a data set of ours")
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
    _add_work(parser)
    parser.add_argument("--batch-size", type=int, default=4, help="images at a time")
    parser.add_argument("--workers", type=int, default=default_workers(2), help="processes that decode images")
    parsed = parser.parse_args(list(arguments))
    given = {name: parsed[name] for name in ("image_size", "normalisation", "templates") if parsed[name] is not None}
    if given and parsed.head == "trained":
        flag = flag_of(next(iter(given)))
        parser.error(f"{flag}: for --head none alone; a detector sees what it was trained with")
    if parsed.batch_size < 1:
        parser.error(f"--batch-size {parsed.batch_size}: give 1 or more")
    try:
        scores = settings_of(ScoreSettings, parsed)
    except ValueError as error:
        parser.error(str(error))
        raise AssertionError("unreachable") from error
    inputs = replace(inputs, **given, split_classes=parsed.split_classes or inputs.split_classes)
    names = ("model", "data", "out", "head", "split", "split_classes", "batch_size", "workers", "device")
    return DetectEvaluateOptions(**{name: parsed[name] for name in names}, inputs=inputs, scores=scores)


def parse_detect_predict(arguments: Sequence[str]) -> DetectPredictOptions:
    """Parse `fineclip detect predict ...`. Prints help or an error and raises SystemExit."""
    usage = "fineclip detect predict --model RUN --images DIR --names NAME... --out DIR [options]"
    text = "Find things by name in a folder of images: pictures with boxes, and COCO's JSON for `annotate`."
    parser = command_parser("detect predict", usage, text, EXIT_CODES)
    _add_model(parser, "run of `fineclip detect train`")
    parser.add_argument("--images", metavar="DIR", required=True, help="folder of images, JPEG, PNG or WebP")
    parser.add_argument("--names", metavar="NAME", nargs="+", required=True, help="what to find, in words of yours")
    parser.add_argument("--out", metavar="OUT", required=True, help="folder for the pictures and detections.json")
    add_flat(parser, ScoreSettings(score_threshold=0.3))
    _add_work(parser)
    parsed = parser.parse_args(list(arguments))
    twice = sorted({name for name in parsed.names if parsed.names.count(name) > 1})
    if twice or not all(name.strip() for name in parsed.names):
        parser.error(f"--names: {f'{twice[0]!r} is given twice' if twice else 'a name is empty'}")
    try:
        scores = settings_of(ScoreSettings, parsed)
    except ValueError as error:
        parser.error(str(error))
        raise AssertionError("unreachable") from error
    return DetectPredictOptions(
        model=parsed.model,
        images=parsed.images,
        names=tuple(parsed.names),
        out=parsed.out,
        scores=scores,
        device=parsed.device,
    )


def _add_model(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("--model", metavar="MODEL", required=True, help=text)


def _add_work(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="where to compute")


def _recipe_name(arguments: Sequence[str]) -> str:
    """Return the recipe that is named, or the first one: what is wrong with the name is for the whole parser to say."""
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--recipe", nargs="?")
    name = early.parse_known_args(list(arguments))[0].recipe
    return name if name in DETECT_RECIPES else next(iter(DETECT_RECIPES))
