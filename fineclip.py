"""The `fineclip` command: finds the subcommand's module by name and imports nothing else.

So `fineclip --help` is instant, and a missing extra is reported by the one subcommand that needs it. Errors that a
person can act on carry their exit code (`exit_code` on the class); they are printed here, without a traceback.
"""

import atexit
import difflib
import errno
import importlib
import importlib.util
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import NoReturn

_USAGE, _INTERRUPTED, _NO_SPACE = 2, 4, 5
_USAGE_HEAD = """\
usage: fineclip SUBCOMMAND ...

Turn image-text data into region-text data, and train FineCLIP on it. A first
look, without a GPU or a download:

  fineclip annotate PHOTOS OUTPUT --profile weightless --limit 20
  fineclip view OUTPUT"""
_READER_GONE = 128 + signal.SIGPIPE
"""As of a program that the signal ends."""


@dataclass(frozen=True)
class _Subcommand:
    target: str
    """Where its `main(arguments) -> exit code` is: "module:function"."""
    extra: str
    """The extra that holds its dependencies; "" for those that a plain installation has."""
    summary: str


SUBCOMMANDS = {
    "annotate": _Subcommand("pipeline.cli.command:annotate_main", "pipeline", "make region-text shards from images"),
    "plan": _Subcommand("pipeline.cli.command:plan_main", "pipeline", "show what annotate would do, and make its plan"),
    "retry": _Subcommand("pipeline.cli.retry:retry_main", "pipeline", "repeat what died in a data set"),
    "recaption": _Subcommand("pipeline.cli.recaption:recaption_main", "pipeline", "give the same boxes new captions"),
    "hard-negatives": _Subcommand(
        "pipeline.cli.hard_negatives:hard_negatives_main", "pipeline", "make wrong captions to train against"
    ),
    "score-regions": _Subcommand(
        "pipeline.cli.clip_overlay:score_main", "pipeline", "score each region's caption by a CLIP"
    ),
    "embed": _Subcommand("pipeline.cli.clip_overlay:embed_main", "pipeline", "keep a CLIP's features of each region"),
    "audit": _Subcommand("pipeline.cli.audit:audit_main", "pipeline", "show what filters would drop, and list it"),
    "card": _Subcommand("pipeline.cli.card:card_main", "", "write a data set's card from what is measured"),
    "materialize": _Subcommand(
        "pipeline.cli.materialize:materialize_main", "pipeline", "write a data set with its overlays as one of its own"
    ),
    "export": _Subcommand("pipeline.cli.export:export_main", "", "write a data set in a format of other tools"),
    "score": _Subcommand("pipeline.scenes.score:main", "pipeline", "compare a data set of scenes with the truth"),
    "truth": _Subcommand("pipeline.scenes.truth:main", "pipeline", "give a data set of scenes its true captions"),
    "train-mini": _Subcommand("pipeline.minis.command:main", "trainer", "train a small detector, captioner or CLIP"),
    "train": _Subcommand("trainer.cli.command:train_main", "trainer", "train FineCLIP, CLIPSelf, RegionCLIP or CLIP"),
    "evaluate": _Subcommand("trainer.cli.evaluate:evaluate_main", "trainer", "measure a model on a data set"),
    "visualize": _Subcommand(
        "trainer.cli.visualize:visualize_main", "trainer", "show what models see in images, as one picture"
    ),
    "detect": _Subcommand(
        "trainer.cli.detect:detect_main", "trainer", "train, measure and use an open-vocabulary detector"
    ),
    "segment": _Subcommand(
        "trainer.cli.segment:segment_main", "trainer", "train, measure and use an open-vocabulary segmenter"
    ),
    "study": _Subcommand(
        "trainer.study.command:main", "trainer", "run the paper's studies, cell by cell, into a table"
    ),
    "export-model": _Subcommand("trainer.cli.export:export_main", "trainer", "write a trained model in another form"),
    "status": _Subcommand("pipeline.cli.status:status_main", "", "count what a data set holds now"),
    "view": _Subcommand("pipeline.viewer.command:view_main", "viewer", "look at boxes and captions in the browser"),
    "sheet": _Subcommand("pipeline.viewer.command:sheet_main", "viewer", "write a contact sheet, one HTML file"),
    "doctor": _Subcommand("pipeline.doctor.command:doctor_main", "", "check that a data set is whole and will train"),
}

_GROUPS = {
    "make a data set": ("annotate", "plan", "status", "retry"),
    "look at it, check it": ("view", "sheet", "doctor"),
    "captions and filters": ("recaption", "hard-negatives", "score-regions", "embed", "audit"),
    "pass it on": ("card", "materialize", "export"),
    "train and measure": ("train", "evaluate", "visualize", "detect", "segment", "study", "export-model"),
    "synthetic scenes": ("truth", "score", "train-mini"),
}
"""How the help lists the subcommands."""


class ShadowedPackageError(ImportError):
    """Python would import somebody else's package of our name; the message says which, and what to do."""

    exit_code = _USAGE


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the subcommand named first and return its exit code: 2 for an unknown one or a missing extra."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    name = arguments[0] if arguments else "--help"
    if name in ("-h", "--help", "help"):
        sys.stdout.write(_usage())
        return 0
    if name == "--version":
        sys.stdout.write(f"fineclip {_version()}\n")
        return 0
    if name not in SUBCOMMANDS:
        near = difflib.get_close_matches(name, SUBCOMMANDS, n=1)
        meant = f"; did you mean {near[0]!r}?" if near else ""
        sys.stderr.write(f"fineclip: there is no subcommand {name!r}{meant}; `fineclip --help` lists them\n")
        return _USAGE
    subcommand = SUBCOMMANDS[name]
    module, function = subcommand.target.split(":")
    try:
        for package in ("schemas", module.partition(".")[0]):
            check_own(package)
        run = getattr(importlib.import_module(module), function)
        code: int = run(arguments[1:])
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] in ("pipeline", "trainer", "schemas"):
            raise
        distribution = f"fineclip-regions[{subcommand.extra}]" if subcommand.extra else "fineclip-regions"
        sys.stderr.write(
            f"fineclip {name}: the package {error.name!r} is missing; install it with: pip install '{distribution}'\n"
        )
        return _USAGE
    except Exception as error:
        exit_code = getattr(error, "exit_code", _USAGE if isinstance(error, ImportError) else None)
        if not isinstance(exit_code, int):
            raise
        _print_error(str(error))
        return exit_code
    return code


def run() -> NoReturn:
    """Run the command and end the process with its exit code.

    Where Beam or Arrow ran, the interpreter is not taken down: their threads in C++ abort the process then, now and
    again, after all is written.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # until a command has a handler of its own
    nowhere = os.open(os.devnull, os.O_WRONLY)
    sys.stdout = sys.stdout or os.fdopen(nowhere, "w", closefd=False)  # None where it was closed by the shell
    sys.stderr = sys.stderr or os.fdopen(nowhere, "w", closefd=False)
    try:
        code = main()
        sys.stdout.flush()
    except KeyboardInterrupt:
        _print_error("interrupted")
        code = _INTERRUPTED
    except (OSError, SystemExit) as error:
        code = _code_of_closed_output(error)
        os.dup2(nowhere, 1)  # what is left to be written must not fail again
    sys.stderr.flush()
    if sys.modules.keys() & {"apache_beam", "pyarrow"}:
        atexit._run_exitfuncs()  # job servers that Beam started are stopped there
        os._exit(code)
    sys.exit(code)


def _code_of_closed_output(error: OSError | SystemExit) -> int:
    """Return the exit code where what is printed finds no place: its reader has gone, or the disk is full.

    Raises any other error again. Rich ends the process with 1 where the reader has gone, which here is another thing.
    """
    if isinstance(error, BrokenPipeError) or isinstance(error.__context__, BrokenPipeError):
        return _READER_GONE
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        _print_error(f"{error.strerror}: free space, then run the same command again")
        return _NO_SPACE
    raise error


def check_own(package: str) -> None:
    """Raise ShadowedPackageError where the package that Python would import is not the one beside this module.

    Another may come first on the path, or may have been installed over ours.
    """
    spec = importlib.util.find_spec(package)
    ours = Path(__file__).resolve().parent / package
    places = [] if spec is None else [Path(place).resolve() for place in spec.submodule_search_locations or ()]
    initial = ours / "__init__.py"
    is_ours = initial.is_file() and 'DISTRIBUTION = "fineclip-regions"' in initial.read_text(encoding="utf-8")
    if ours not in places or not is_ours:
        found = "nothing" if spec is None else (spec.origin or ", ".join(map(str, places)))
        raise ShadowedPackageError(
            f"the package {package!r} that Python finds is {found}, not ours: another installed package has its name, "
            f"or a {package}.py or {package}/ lies in this folder. Install fineclip-regions into an environment of its "
            "own, and run `fineclip` from another folder"
        )


def _print_error(message: str) -> None:
    red, end = ("\033[1;31m", "\033[0m") if sys.stderr.isatty() else ("", "")
    sys.stderr.write(f"{red}fineclip: {message}{end}\n")


def _version() -> str:
    try:
        return metadata.version("fineclip-regions")
    except metadata.PackageNotFoundError:
        return "(not installed)"


def _usage() -> str:
    width = max(map(len, SUBCOMMANDS)) + 2
    groups = (
        "\n".join([f"{title}:", *(f"  {name:<{width}}{SUBCOMMANDS[name].summary}" for name in names)])
        for title, names in _GROUPS.items()
    )
    return "\n\n".join([_USAGE_HEAD, *groups, "`fineclip SUBCOMMAND --help` shows its options.\n"])


if __name__ == "__main__":
    run()
