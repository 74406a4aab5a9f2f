"""The `fineclip` command: finds the subcommand's module by name and imports nothing else.

So `fineclip --help` is instant, and a missing extra is reported by the one subcommand that needs it.
"""

import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class _Subcommand:
    target: str
    """Where its `main(arguments) -> exit code` is: "module:function"."""
    extra: str
    """The extra that holds its dependencies."""
    summary: str


SUBCOMMANDS = {
    "annotate": _Subcommand("pipeline.cli.command:annotate_main", "pipeline", "make region-text shards from images"),
    "plan": _Subcommand("pipeline.cli.command:plan_main", "pipeline", "show what annotate would do, and make its plan"),
    "score": _Subcommand("pipeline.scenes.score:main", "pipeline", "compare a data set of scenes with the truth"),
    "train-mini": _Subcommand("pipeline.minis.command:main", "trainer", "train a small detector, captioner or CLIP"),
    "train": _Subcommand("trainer.cli.command:train_main", "trainer", "train FineCLIP, CLIPSelf, RegionCLIP or CLIP"),
    "evaluate": _Subcommand("trainer.cli.command:evaluate_main", "trainer", "measure a model on a data set"),
    "status": _Subcommand("pipeline.cli.command:status_main", "pipeline", "count what a data set holds now"),
    "view": _Subcommand("pipeline.viewer.command:view_main", "viewer", "look at boxes and captions in the browser"),
    "sheet": _Subcommand("pipeline.viewer.command:sheet_main", "viewer", "write a contact sheet, one HTML file"),
    "doctor": _Subcommand(
        "pipeline.doctor.command:doctor_main", "pipeline", "check that a data set is whole and will train"
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the subcommand named first and return its exit code: 2 for an unknown one or a missing extra."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    name = arguments[0] if arguments else "--help"
    if name in ("-h", "--help", "help"):
        sys.stdout.write(_usage())
        return 0
    if name not in SUBCOMMANDS:
        sys.stderr.write(f"fineclip: there is no subcommand {name!r}\n\n{_usage()}")
        return 2
    subcommand = SUBCOMMANDS[name]
    module, function = subcommand.target.split(":")
    try:
        run = getattr(importlib.import_module(module), function)
        code: int = run(arguments[1:])
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] in ("pipeline", "trainer", "schemas"):
            raise
        sys.stderr.write(
            f"fineclip {name}: the package {error.name!r} is missing; "
            f"install it with: pip install 'fineclip-regions[{subcommand.extra}]'\n"
        )
        return 2
    return code


def _usage() -> str:
    width = max(map(len, SUBCOMMANDS)) + 2
    lines = [f"  {name:<{width}}{subcommand.summary}" for name, subcommand in SUBCOMMANDS.items()]
    return "\n".join(
        ["usage: fineclip SUBCOMMAND ...", "", *lines, "", "`fineclip SUBCOMMAND --help` shows its options.", ""]
    )


if __name__ == "__main__":
    sys.exit(main())
