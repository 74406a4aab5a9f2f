"""What the options of `fineclip detect` and `fineclip segment` share: trainings and uses of what stands on a CLIP."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from jsonargparse import Namespace

from schemas.flags import FlagParser
from trainer.cli.options import (
    EXIT_CODES,
    TRAIN_EXIT_CODES,
    add_device,
    add_flat,
    add_recipe,
    command_parser,
    recipe_name,
    settings_of,
    usage_errors,
)
from trainer.hyperparameters import Recipe
from trainer.run.train_settings import RunSettings

_Recipe = TypeVar("_Recipe", bound=Recipe)
_Run = TypeVar("_Run", bound=RunSettings)


@dataclass(frozen=True, kw_only=True)
class HeadTrainOptions(Generic[_Recipe, _Run]):
    """What `fineclip detect train` or `fineclip segment train` was asked."""

    model: str
    data: str
    out: str
    recipe: _Recipe
    settings: _Run


def parse_head_train(
    command: str,
    text: str,
    data_help: str,
    recipes: Mapping[str, Callable[[], _Recipe]],
    run: type[_Run],
    arguments: Sequence[str],
) -> HeadTrainOptions[_Recipe, _Run]:
    """Parse `fineclip COMMAND train ...`. Prints help or an error and raises SystemExit."""
    name = recipe_name(arguments, recipes)
    recipe = recipes[name]()
    usage = f"fineclip {command} train --model MODEL --data DATA --out RUN [options]"
    parser = command_parser(f"{command} train", usage, text, TRAIN_EXIT_CODES)
    add_model(parser, "the CLIP: what `fineclip evaluate` takes")
    parser.add_argument("--data", metavar="DATA", required=True, help=data_help)
    add_recipe(parser, recipes, name)
    for settings in (*recipe.parts().values(), run()):
        add_flat(parser, settings)
    parsed = parser.parse_args(list(arguments))
    with usage_errors(parser):
        return HeadTrainOptions(
            model=parsed.model,
            data=parsed.data,
            out=parsed.out,
            recipe=type(recipe).of_values(vars(parsed)),
            settings=settings_of(run, parsed),
        )


def evaluate_parser(command: str, text: str, data_help: str, head_help: str) -> FlagParser:
    """Return the parser of `fineclip COMMAND evaluate`, with the flags that both have."""
    usage = f"fineclip {command} evaluate --model RUN|MODEL --data DATA --out FILE.json [options]"
    parser = command_parser(f"{command} evaluate", usage, text, EXIT_CODES)
    add_model(parser, f"run of `fineclip {command} train`; with --head none, what `fineclip evaluate` takes")
    parser.add_argument("--data", metavar="DATA", required=True, help=data_help)
    parser.add_argument("--out", metavar="FILE", required=True, help="JSON file to write the metrics to")
    parser.add_argument("--head", choices=["trained", "none"], default="trained", help=head_help)
    parser.add_argument("--split", choices=["train", "val"], default="train", help="shards of a data set of ours")
    return parser


def predict_parser(command: str, text: str, written: str, settings: Sequence[Any]) -> FlagParser:
    """Return the parser of `fineclip COMMAND predict`, whole."""
    usage = f"fineclip {command} predict --model RUN --images DIR --names NAME... --out DIR [options]"
    parser = command_parser(f"{command} predict", usage, text, EXIT_CODES)
    add_model(parser, f"run of `fineclip {command} train`")
    parser.add_argument("--images", metavar="DIR", required=True, help="folder of images, JPEG, PNG or WebP")
    parser.add_argument("--names", metavar="NAME", nargs="+", required=True, help="what to find, in words of yours")
    parser.add_argument("--out", metavar="OUT", required=True, help=f"folder for the pictures and {written}")
    for group in settings:
        add_flat(parser, group)
    add_device(parser)
    return parser


def add_model(parser: FlagParser, text: str) -> None:
    """Add `--model`."""
    parser.add_argument("--model", metavar="MODEL", required=True, help=text)


def checked_names(parser: FlagParser, parsed: Namespace) -> tuple[str, ...]:
    """Return `--names`; ends the command where one is empty or given twice."""
    names = tuple(parsed.names)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or not all(name.strip() for name in names):
        parser.error(f"--names: {f'{twice[0]!r} is given twice' if twice else 'a name is empty'}")
    return names
