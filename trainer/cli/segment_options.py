"""From the command line of `fineclip segment train|evaluate|predict` to settings; nothing here imports torch."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal

from schemas.flags import FlagParser, flag_of
from trainer.cli.options import EXIT_CODES, TRAIN_EXIT_CODES, add_flat, command_parser, settings_of
from trainer.cores import default_workers
from trainer.segmentation.settings import (
    SEGMENT_RECIPES,
    MaskSettings,
    SegmentInputs,
    SegmentRecipe,
    SegmentRunSettings,
    ViewSettings,
)

_DATA_HELP = (
    "coco-stuff:, ade150:, ade847: or maps:FOLDER?images=FOLDER&classes=FILE.json, pc59:trainval_merged.json?..., "
    "coco:FILE.json?images=FOLDER with masks, or a data set of `fineclip annotate` with labels and masks"
)
_OF_PROBE = ("image_size", "template", "residual")


@dataclass(frozen=True, kw_only=True)
class SegmentTrainOptions:
    """What `fineclip segment train` was asked."""

    model: str
    data: str
    out: str
    recipe: SegmentRecipe
    settings: SegmentRunSettings


@dataclass(frozen=True, kw_only=True)
class SegmentEvaluateOptions:
    """What `fineclip segment evaluate` was asked."""

    model: str
    data: str
    out: str
    head: Literal["trained", "none"]
    split: str
    split_classes: str | None
    background: str | None
    inputs: SegmentInputs
    """With --head none."""
    residual: Literal["own", "cls"]
    """With --head none."""
    views: ViewSettings
    workers: int
    device: str


@dataclass(frozen=True, kw_only=True)
class SegmentPredictOptions:
    """What `fineclip segment predict` was asked."""

    model: str
    images: str
    names: tuple[str, ...]
    out: str
    masks: MaskSettings
    views: ViewSettings
    device: str


def parse_segment_train(arguments: Sequence[str]) -> SegmentTrainOptions:
    """Parse `fineclip segment train ...`. Prints help or an error and raises SystemExit."""
    name = _recipe_name(arguments)
    recipe = SEGMENT_RECIPES[name]()
    usage = "fineclip segment train --model MODEL --data DATA --out RUN [options]"
    text = "Train CAT-Seg on a CLIP: its cost volume, aggregated to a mask a name."
    parser = command_parser("segment train", usage, text, TRAIN_EXIT_CODES)
    parser.add_argument("--model", metavar="MODEL", required=True, help="the CLIP: what `fineclip evaluate` takes")
    parser.add_argument("--data", metavar="DATA", required=True, help=_DATA_HELP)
    parser.add_argument("--out", metavar="RUN", required=True, help="folder of the run; an interrupted one goes on")
    summaries = "; ".join(
        f"{n}: {(make.__doc__ or '').splitlines()[0].rstrip('.')}" for n, make in SEGMENT_RECIPES.items()
    )
    parser.add_argument("--recipe", choices=[*SEGMENT_RECIPES], default=name, help=summaries)
    parts = {part.name: getattr(recipe, part.name) for part in fields(SegmentRecipe)}
    for settings in (*parts.values(), SegmentRunSettings()):
        add_flat(parser, settings)
    parsed = parser.parse_args(list(arguments))
    try:
        return SegmentTrainOptions(
            model=parsed.model,
            data=parsed.data,
            out=parsed.out,
            recipe=SegmentRecipe(**{part: settings_of(type(settings), parsed) for part, settings in parts.items()}),
            settings=settings_of(SegmentRunSettings, parsed),
        )
    except ValueError as error:
        parser.error(str(error))
        raise AssertionError("unreachable") from error


def parse_segment_evaluate(arguments: Sequence[str]) -> SegmentEvaluateOptions:
    """Parse `fineclip segment evaluate ...`. Prints help or an error and raises SystemExit."""
    usage = "fineclip segment evaluate --model RUN|MODEL --data DATA --out FILE.json [options]"
    text = "Measure a segmenter by the mean IoU of classes, or a CLIP alone by its raw cost volume."
    parser = command_parser("segment evaluate", usage, text, EXIT_CODES)
    parser.add_argument(
        "--model",
        metavar="MODEL",
        required=True,
        help="run of `fineclip segment train`; with --head none, what `fineclip evaluate` takes",
    )
    parser.add_argument("--data", metavar="DATA", required=True, help=_DATA_HELP)
    parser.add_argument("--out", metavar="FILE", required=True, help="JSON file to write the metrics to")
    parser.add_argument(
        "--head",
        choices=["trained", "none"],
        default="trained",
        help="none: no segmenter at all: which name is the most similar to a pixel's patch",
    )
    parser.add_argument("--split", choices=["train", "val"], default="train", help="shards of a data set of ours")
    parser.add_argument(
        "--split-classes",
        metavar="NAME|FILE",
        default=None,
        help="groups of classes to measure apart: scenes, scenes-held-out, ov-coco, or a JSON file; default: those of "
        "the run, where its data had some",
    )
    parser.add_argument(
        "--background",
        metavar="NAME",
        default=None,
        help="name of what no region covers, for data of regions; default: the run's; '' leaves such pixels out, as no "
        "name at all does",
    )
    inputs = SegmentInputs()
    parser.add_argument(
        "--image-size",
        type=int | None,
        default=None,
        help=f"with --head none: side that images are squashed to, in pixels; default: {inputs.image_size}",
    )
    parser.add_argument(
        "--template",
        metavar="TEXT",
        default=None,
        help=f"with --head none: sentence for a class name; default: {inputs.template}",
    )
    parser.add_argument(
        "--residual",
        choices=["own", "cls"],
        default=None,
        help="with --head none: what the last block's values are added to; default: own, as FineCLIP's dense map",
    )
    add_flat(parser, ViewSettings())
    _add_device(parser)
    parser.add_argument("--workers", type=int, default=default_workers(2), help="processes that decode images")
    parsed = parser.parse_args(list(arguments))
    given = {name: parsed[name] for name in _OF_PROBE if parsed[name] is not None}
    if given and parsed.head == "trained":
        parser.error(f"{flag_of(next(iter(given)))}: for --head none alone; a segmenter sees what it was trained with")
    try:
        views = settings_of(ViewSettings, parsed)
    except ValueError as error:
        parser.error(str(error))
        raise AssertionError("unreachable") from error
    residual = given.pop("residual", "own")
    names = ("model", "data", "out", "head", "split", "split_classes", "background", "workers", "device")
    return SegmentEvaluateOptions(
        **{name: parsed[name] for name in names}, inputs=replace(inputs, **given), residual=residual, views=views
    )


def parse_segment_predict(arguments: Sequence[str]) -> SegmentPredictOptions:
    """Parse `fineclip segment predict ...`. Prints help or an error and raises SystemExit."""
    usage = "fineclip segment predict --model RUN --images DIR --names NAME... --out DIR [options]"
    text = "Find things by name in a folder of images: pictures with masks, and COCO's JSON for `annotate`."
    parser = command_parser("segment predict", usage, text, EXIT_CODES)
    parser.add_argument("--model", metavar="MODEL", required=True, help="run of `fineclip segment train`")
    parser.add_argument("--images", metavar="DIR", required=True, help="folder of images, JPEG, PNG or WebP")
    parser.add_argument("--names", metavar="NAME", nargs="+", required=True, help="what to find, in words of yours")
    parser.add_argument("--out", metavar="OUT", required=True, help="folder for the pictures and masks.json")
    for settings in (MaskSettings(), ViewSettings()):
        add_flat(parser, settings)
    _add_device(parser)
    parsed = parser.parse_args(list(arguments))
    twice = sorted({name for name in parsed.names if parsed.names.count(name) > 1})
    if twice or not all(name.strip() for name in parsed.names):
        parser.error(f"--names: {f'{twice[0]!r} is given twice' if twice else 'a name is empty'}")
    try:
        masks, views = settings_of(MaskSettings, parsed), settings_of(ViewSettings, parsed)
    except ValueError as error:
        parser.error(str(error))
        raise AssertionError("unreachable") from error
    return SegmentPredictOptions(
        model=parsed.model,
        images=parsed.images,
        names=tuple(parsed.names),
        out=parsed.out,
        masks=masks,
        views=views,
        device=parsed.device,
    )


def _add_device(parser: FlagParser) -> None:
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="where to compute")


def _recipe_name(arguments: Sequence[str]) -> str:
    """Return the recipe that is named, or the first one: what is wrong with the name is for the whole parser to say."""
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--recipe", nargs="?")
    name = early.parse_known_args(list(arguments))[0].recipe
    return name if name in SEGMENT_RECIPES else next(iter(SEGMENT_RECIPES))
