"""`fineclip export-model CHECKPOINT OUT --format FORMAT [--alpha A]`."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from trainer.errors import DONE
from trainer.model.export import ExportFormat, export
from trainer.run.load import load_any


def export_main(arguments: Sequence[str]) -> int:
    """Write a checkpoint's model in another form and return the exit code; errors carry theirs."""
    parser = argparse.ArgumentParser(prog="fineclip export-model", description=export.__doc__)
    parser.add_argument("checkpoint", help="what `fineclip evaluate` takes")
    parser.add_argument("out", type=Path, help="file to write, or folder for local-dir")
    parser.add_argument("--format", choices=get_args(ExportFormat), default="local-dir")
    parser.add_argument("--alpha", type=float, default=None, help="share of a run's weights, the rest its start's")
    options = parser.parse_args(list(arguments))
    model = load_any(options.checkpoint, alpha=options.alpha).model
    export(model.clip.state_dict(), model, options.out, options.format)
    return DONE
