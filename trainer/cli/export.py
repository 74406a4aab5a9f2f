"""`fineclip export-model CHECKPOINT OUT --format FORMAT [--alpha A]`: settings in, the exit code out.

Torch is imported once the options are known to be good, as in `command`.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from trainer.cli.options import parse_export
from trainer.cli.outputs import check_file, check_folder
from trainer.errors import DONE
from trainer.run.files import find_checkpoint


def export_main(arguments: Sequence[str]) -> int:
    """Write a checkpoint's model in another form and return the exit code; errors carry theirs."""
    options = parse_export(arguments)
    (check_folder if options.format == "local-dir" else check_file)(options.out, "OUT")
    find_checkpoint(options.checkpoint)
    from trainer.model.export import export
    from trainer.run.load import load_any

    model = load_any(options.checkpoint, alpha=options.alpha).model
    export(model.clip.state_dict(), model, Path(options.out), options.format)
    sys.stdout.write(f"Model: {options.out} ({options.format})\n")
    return DONE
