"""`fineclip visualize MODEL... --images DIR --out FILE.png`: settings in, the exit code out.

Torch is imported once the options are known to be good, as in `command`.
"""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from trainer.cli.options import parse_visualize
from trainer.cli.outputs import check_file
from trainer.errors import DONE, TrainingError
from trainer.run.files import find_checkpoint


def visualize_main(arguments: Sequence[str]) -> int:
    """Write the figure and return the exit code; errors that a person can act on carry theirs."""
    options = parse_visualize(arguments)
    check_file(options.out, "--out")
    if Path(options.out).suffix.lower() != ".png":
        raise TrainingError(f"--out {options.out}: the figure is a PNG: name a file that ends in .png")
    for model in options.models:
        find_checkpoint(model)
    from trainer.evaluate.visualize import figure, read_images
    from trainer.run.processes import joined_processes

    with joined_processes(options.device) as device:
        console = Console(emoji=False, markup=False, stderr=True)
        picture = figure(
            options.models,
            read_images(options.images, options.settings.limit),
            options.settings,
            prompts=options.prompts,
            image_size=options.image_size,
            device=device,
            told=lambda line: console.print(line, highlight=False, markup=False),
        )
        Path(options.out).parent.mkdir(parents=True, exist_ok=True)
        picture.save(options.out, "PNG")
        console.print(f"wrote {options.out}, {picture.width} x {picture.height} pixels", highlight=False)
    return DONE
