"""`fineclip train-mini NAME`: train a mini from its recipe, measure it, and lay it out as it is shipped."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline.minis.evaluate import outside_interval
from pipeline.models.shipped import FIGURES, MINIS, mini_folder
from schemas.plain_flags import PlainParser
from schemas.store_errors import check_here

_DESCRIPTION = """\
Train a small detector, captioner or CLIP on synthetic scenes, measure it on test scenes, and leave weights, recipe,
figures and learning curve in RUN/checkpoint. Started again on the same RUN, it goes on where it stopped."""


def main(arguments: Sequence[str]) -> int:
    """Run `fineclip train-mini` and return its exit code. Raises ResumeError where RUN is another recipe's."""
    parser = PlainParser("fineclip train-mini", _DESCRIPTION)
    parser.add_argument("name", choices=MINIS, help="which mini")
    parser.add_argument("--run", required=True, help="folder of the run")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and data (default: %(default)s)")
    parser.add_argument("--steps", type=int, help="training steps (default: the recipe's)")
    options = parser.parse_args(arguments)
    check_here(options.run, "--run")
    from pipeline.minis.ship import train_mini  # torch takes seconds to import: not for --help

    checkpoint = train_mini(options.name, Path(options.run), seed=options.seed, steps=options.steps)
    shipped, reached = (
        json.loads((folder / FIGURES).read_bytes()) for folder in (mini_folder(options.name), checkpoint)
    )
    compared = "Every figure lies within the interval that the shipped mini's card states."
    if outside := outside_interval(shipped, reached):
        listed = ", ".join(f"{figure} {reached[figure]:g} (shipped {shipped[figure]:g})" for figure in outside)
        compared = f"Outside the interval that the shipped mini's card states: {listed}"
    sys.stdout.write(f"{checkpoint}\n{(checkpoint / FIGURES).read_text(encoding='utf-8')}{compared}\n")
    return 0
