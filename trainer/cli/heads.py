"""What `fineclip detect` and `fineclip segment` share: their three commands, and what those say and write."""

import json
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from trainer.cli.outputs import tell_skipped
from trainer.errors import DONE, USAGE

_USAGE = """\
usage: fineclip {0} train --model MODEL --data DATA --out RUN
       fineclip {0} evaluate --model RUN|MODEL --data DATA --out FILE.json
       fineclip {0} predict --model RUN --images DIR --names NAME --out DIR

  train     train a {1} on the vision tower of a CLIP
  evaluate  measure it, or a CLIP without one (--head none)
  predict   find things by name in pictures of yours

`fineclip {0} train --help` shows the options of train, and so on.
"""
_TRAINED = {"detect": "detector", "segment": "segmenter"}


def run_command(command: str, mains: Mapping[str, Callable[[Sequence[str]], int]], arguments: Sequence[str]) -> int:
    """Run train, evaluate or predict of `fineclip COMMAND`, as the first argument says; return the exit code."""
    name = arguments[0] if arguments else "--help"
    usage = _USAGE.format(command, _TRAINED[command])
    if name in mains:
        return mains[name](arguments[1:])
    if name in ("-h", "--help"):
        sys.stdout.write(usage)
        return DONE
    sys.stderr.write(f"{usage}fineclip {command}: error: {name!r} is none of {', '.join(mains)}\n")
    return USAGE


def tell_data(console: Console, text: str, left_out: Mapping[str, int]) -> None:
    """Say what the data hold, and how much of them is left out and why."""
    console.print(text, highlight=False)
    for why, count in left_out.items():
        console.print(f"left out: {count}, {why}", highlight=False, markup=False, soft_wrap=True)


def tell_unmeasured(console: Console, skipped: Sequence[tuple[str, str]], num_images: int) -> None:
    """Say how many images of a data set could not be measured, and why the first of them."""
    tell_skipped(console, skipped[:3])
    if skipped:
        console.print(f"{len(skipped)} of {num_images} images were skipped", highlight=False)


def write_metrics(options: Any, command: str, arguments: Sequence[str], found: Any, **about: Any) -> None:
    """Write what was found, and of what, to `--out`, and its metrics to standard output."""
    written = {
        "model": options.model,
        "data": options.data,
        "head": options.head,
        "command": shlex.join(["fineclip", command, "evaluate", *arguments]),
        **about,
        **found.as_json(),
    }
    Path(options.out).parent.mkdir(parents=True, exist_ok=True)
    Path(options.out).write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
    Console(emoji=False, markup=False).print_json(data=written["metrics"])


def tell_predicted(
    console: Console, options: Any, what: str, num_found: int, num_images: int, file: str, threshold: str
) -> None:
    """Say how many of `what` were found in how many images, and how a data set is made of them.

    Where there are none, say what flag to change: `threshold`, with its value.
    """
    images = options.images
    for character, escaped in (("%", "%25"), ("&", "%26"), ("?", "%3F")):  # they would end an option's value
        images = images.replace(character, escaped)
    source = shlex.quote(f"coco:{options.out}/{file}?images={images}")
    then = (
        f"Make a data set of them by: fineclip annotate {source} DATA --proposer manual"
        if num_found
        else f"Nothing reaches {threshold}: try less, or other names"
    )
    console.print(
        f"{num_found} {what} in {num_images} images: pictures and {file} are in {options.out}. {then}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
