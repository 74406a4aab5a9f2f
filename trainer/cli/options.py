"""From command line to settings: flags, defaults and help come from the settings' dataclasses and their docstrings.

The recipe is looked for first, because its values are the defaults that the other flags show and override.
"""

import argparse
import dataclasses
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, get_args

from jsonargparse import Namespace

from schemas.flags import FlagParser, HelpFormatter, setting_flags
from trainer.evaluate.settings import (
    REGION_FEATURES,
    TASKS,
    EvaluateSettings,
    IntervalSettings,
    RegionFeature,
    Task,
    TruthSettings,
    VisualizeSettings,
)
from trainer.hyperparameters import Recipe
from trainer.model.formats import ExportFormat
from trainer.recipes import RECIPES, TrainRecipe
from trainer.run.train_settings import TrainSettings

TRAIN_EXIT_CODES = """\
exit codes:
  0  done, or stopped where --stop-after says
  1  stopped: the loss is not finite, or too many samples cannot be used
  2  wrong usage or unusable input
  3  refused: RUN belongs to other settings or data
  4  interrupted by a signal, after a checkpoint; the same command goes on from there
  5  RUN cannot be written"""
EXIT_CODES = """\
exit codes:
  0  done
  2  wrong usage or unusable input
  4  interrupted
  5  the output cannot be written"""

_DATA_FLAGS = {
    "overlay": (
        "NAME",
        "Name of an overlay of DATA, whose columns (other captions, say) replace its own; may be given several times.",
    ),
    "filter": (
        "FILE",
        "Filter list (.parquet or .jsonl) of images and regions to leave out; may be given several times.",
    ),
}
_ALPHA_HELP = "share of a run's weights, the rest its start's; default: what it was trained with"


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """What `fineclip train` was asked."""

    data: str
    out: str
    recipe: TrainRecipe
    settings: TrainSettings
    overlays: tuple[str, ...]
    filters: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What `fineclip export-model` was asked."""

    checkpoint: str
    out: str
    format: ExportFormat
    alpha: float | None


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """What `fineclip evaluate` was asked."""

    checkpoint: str
    data: str
    out: str
    tasks: tuple[Task, ...]
    split: str
    image_size: int | tuple[int, int] | None
    templates: str | None
    words: str | None
    alpha: float | None
    device: str
    scores: str | None
    region_features: tuple[RegionFeature, ...]
    settings: EvaluateSettings
    truth: TruthSettings
    intervals: IntervalSettings
    overlays: tuple[str, ...]
    filters: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class VisualizeOptions:
    """What `fineclip visualize` was asked."""

    models: tuple[str, ...]
    images: str
    out: str
    prompts: tuple[str, ...]
    image_size: int | tuple[int, int] | None
    device: str
    settings: VisualizeSettings


def parse_train(arguments: Sequence[str]) -> TrainOptions:
    """Parse `fineclip train DATA --recipe NAME --out RUN`. Prints help or an error and raises SystemExit."""
    name = recipe_name(arguments, RECIPES)
    recipe = RECIPES[name]()
    usage = "fineclip train DATA --recipe NAME --out RUN [options]"
    parser = command_parser("train", usage, "Train on region-text shards.", TRAIN_EXIT_CODES)
    parser.add_argument("data", metavar="DATA", help="data set of `fineclip annotate`: a folder or URL")
    add_recipe(parser, RECIPES, name)
    _add_repeated(parser)
    for settings in (*recipe.parts().values(), TrainSettings()):
        add_flat(parser, settings)
    parsed = parser.parse_args(list(arguments))
    with usage_errors(parser):
        return TrainOptions(
            data=parsed.data,
            out=parsed.out,
            recipe=TrainRecipe.of_values(vars(parsed)),
            settings=settings_of(TrainSettings, parsed),
            overlays=tuple(parsed.overlay),
            filters=tuple(parsed.filter),
        )


def parse_evaluate(arguments: Sequence[str]) -> EvaluateOptions:
    """Parse `fineclip evaluate CHECKPOINT ...`. Prints help or an error and raises SystemExit."""
    usage = "fineclip evaluate CHECKPOINT --task TASK --data DATA --out FILE.json [options]"
    parser = command_parser("evaluate", usage, "Measure a model on region-text shards or a benchmark.", EXIT_CODES)
    parser.add_argument(
        "checkpoint",
        metavar="CHECKPOINT",
        help="a run's folder or checkpoint, an open_clip folder, or MODEL:TAG or MODEL:FILE of open_clip",
    )
    parser.add_argument(
        "--task",
        choices=[*TASKS],
        nargs="+",
        required=True,
        metavar="TASK",
        help=f"what to measure, one or several of {', '.join(TASKS)}",
    )
    parser.add_argument(
        "--data",
        metavar="DATA",
        required=True,
        help="data set of `fineclip annotate`, or KIND:FILE?images=FOLDER of a benchmark: coco (instances, panoptic, "
        "captions, LVIS), karpathy, captions, fgovd",
    )
    parser.add_argument(
        "--out", metavar="FILE", required=True, help="JSON file to write the metrics to; a .md beside it has the tables"
    )
    parser.add_argument(
        "--scores", metavar="FILE", default=None, help="Parquet file for what each region, image or text scored"
    )
    parser.add_argument(
        "--region-feature",
        choices=[*REGION_FEATURES],
        nargs="+",
        default=["roi"],
        metavar="FEATURE",
        help="how a region is embedded, one or several: roi (its image's dense map, pooled over the box), mask (the "
        "same over its mask) or crop (its crop as an image of its own)",
    )
    parser.add_argument("--split", choices=["train", "val"], default="train", help="shards to evaluate on")
    parser.add_argument(
        "--image-size",
        type=int | tuple[int, int] | None,
        default=None,
        help="pixels that images are squashed to; default: that of training, or the model's",
    )
    parser.add_argument(
        "--templates",
        metavar="NAME|FILE",
        default=None,
        help="sentences with {} for a class name: vild (63), short (4), plain (the name), or a file, one per line; "
        "default: vild for coco:, else short",
    )
    parser.add_argument("--words", metavar="FILE", default=None, help="JSON of the words that --task words asks about")
    parser.add_argument("--alpha", type=float | None, default=None, help=_ALPHA_HELP)
    add_device(parser)
    _add_repeated(parser)
    groups = {"settings": EvaluateSettings(), "truth": TruthSettings(), "intervals": IntervalSettings()}
    for settings in groups.values():
        add_flat(parser, settings)
    parsed = parser.parse_args(list(arguments))
    if parsed.out.endswith(".md"):
        parser.error(f"--out {parsed.out}: name a JSON file; the tables go to a .md beside it")
    if "words" in parsed.task and parsed.words is None:
        parser.error("--task words: name the words by --words FILE")
    names = [field.name for field in dataclasses.fields(EvaluateOptions)]
    own: dict[str, Any] = {name: parsed[name] for name in names if name in parsed}
    repeated: dict[str, Any] = {
        "tasks": tuple(dict.fromkeys(parsed.task)),
        "region_features": tuple(dict.fromkeys(parsed.region_feature)),
        "overlays": tuple(parsed.overlay),
        "filters": tuple(parsed.filter),
    }
    with usage_errors(parser):
        flat: dict[str, Any] = {name: settings_of(type(settings), parsed) for name, settings in groups.items()}
        return EvaluateOptions(**own, **repeated, **flat)


def parse_visualize(arguments: Sequence[str]) -> VisualizeOptions:
    """Parse `fineclip visualize MODEL... --images DIR --out FILE.png`. Prints help or an error, raises SystemExit."""
    usage = "fineclip visualize MODEL... --images DIR --out FILE.png [options]"
    text = "Show what models see in images: clusters of their patches, and where they see a prompt."
    parser = command_parser("visualize", usage, text, EXIT_CODES)
    parser.add_argument("models", metavar="MODEL", nargs="+", help="what `fineclip evaluate` takes, one or several")
    parser.add_argument("--images", metavar="DIR", required=True, help="folder of images, JPEG, PNG or WebP")
    parser.add_argument("--out", metavar="FILE", required=True, help="PNG file to write")
    parser.add_argument(
        "--prompt", metavar="TEXT", action="append", default=[], help="text to look for; may be given several times"
    )
    parser.add_argument(
        "--image-size",
        type=int | tuple[int, int] | None,
        default=None,
        help="pixels that images are squashed to: more give finer patches; default: that of training, or the model's",
    )
    add_device(parser)
    add_flat(parser, VisualizeSettings())
    parsed = parser.parse_args(list(arguments))
    with usage_errors(parser):
        return VisualizeOptions(
            models=tuple(parsed.models),
            images=parsed.images,
            out=parsed.out,
            prompts=tuple(parsed.prompt),
            image_size=parsed.image_size,
            device=parsed.device,
            settings=settings_of(VisualizeSettings, parsed),
        )


def parse_export(arguments: Sequence[str]) -> ExportOptions:
    """Parse `fineclip export-model CHECKPOINT OUT`. Prints help or an error and raises SystemExit."""
    usage = "fineclip export-model CHECKPOINT OUT [options]"
    parser = command_parser("export-model", usage, "Write a trained model in a form that other tools load.", EXIT_CODES)
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="what `fineclip evaluate` takes")
    parser.add_argument("out", metavar="OUT", help="file to write, or folder for local-dir")
    parser.add_argument(
        "--format",
        choices=get_args(ExportFormat),
        default="local-dir",
        help="local-dir: a folder that open_clip loads as local-dir:OUT; open_clip: a file of weights under its names; "
        "official: a file under the original EVA-CLIP's names",
    )
    parser.add_argument("--alpha", type=float | None, default=None, help=_ALPHA_HELP)
    parsed = parser.parse_args(list(arguments))
    return ExportOptions(**{field.name: parsed[field.name] for field in dataclasses.fields(ExportOptions)})


def recipe_name(arguments: Sequence[str], recipes: Iterable[str]) -> str:
    """Return the recipe that is named, or the first one: what is wrong with the name is for the whole parser to say."""
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--recipe", nargs="?")
    name = early.parse_known_args(list(arguments))[0].recipe
    return name if name in recipes else next(iter(recipes))


def add_recipe(parser: FlagParser, recipes: Mapping[str, Callable[[], Recipe]], default: str) -> None:
    """Add `--recipe`, and `--out`, the run."""
    texts = {name: (inspect.getdoc(make) or "").splitlines()[0].rstrip(".") for name, make in recipes.items()}
    summaries = "; ".join(f"{name}: {text}" for name, text in texts.items())
    parser.add_argument("--recipe", choices=[*recipes], metavar="NAME", default=default, help=summaries)
    parser.add_argument("--out", metavar="RUN", required=True, help="folder of the run; an interrupted one goes on")


def add_device(parser: FlagParser) -> None:
    """Add `--device`."""
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="where to compute")


@contextmanager
def usage_errors(parser: FlagParser) -> Iterator[None]:
    """End the command with a sentence where the settings made inside raise ValueError."""
    try:
        yield
    except ValueError as error:
        parser.error(str(error))


def command_parser(command: str, usage: str, description: str, exit_codes: str) -> FlagParser:
    """Return the parser of `fineclip COMMAND`, without flags of its own."""
    return FlagParser(
        prog=f"fineclip {command}",
        usage=usage,
        description=description,
        epilog=exit_codes,
        formatter_class=HelpFormatter,
        allow_abbrev=False,
    )


def _add_repeated(parser: FlagParser) -> None:
    for name, (metavar, text) in _DATA_FLAGS.items():
        parser.add_argument(f"--{name}", action="append", default=[], metavar=metavar, help=text)


def add_flat(parser: FlagParser, settings: Any) -> None:
    """Add a flag for each field of a dataclass's instance: `--batch-size` for `batch_size`, its docstring as help."""
    for field, flag, hint, text in setting_flags(type(settings)):
        parser.add_argument(flag, **_kind(hint), default=getattr(settings, field.name), help=text)


def _kind(hint: Any) -> Mapping[str, Any]:
    # A flag alone turns a setting on; `--flag false` turns off what a recipe turned on.
    return {"type": bool, "nargs": "?", "const": True} if hint is bool else {"type": hint}


def settings_of(kind: type[Any], parsed: Namespace) -> Any:
    """Return a dataclass from the flags that `add_flat` added. Raises ValueError, as its own checks do."""
    names: Iterable[str] = (field.name for field in dataclasses.fields(kind))
    return kind(**{name: parsed[name] for name in names})
