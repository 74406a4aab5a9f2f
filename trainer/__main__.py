"""`python -m trainer train|evaluate|export ...`: the same as the `fineclip` command, for launchers."""

import importlib
import sys

_COMMANDS = {
    "train": "trainer.cli.command:train_main",
    "evaluate": "trainer.cli.command:evaluate_main",
    "export": "trainer.cli.export:export_main",
}

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in _COMMANDS:
        sys.stderr.write(f"usage: python -m trainer {'|'.join(_COMMANDS)} ... (each has --help)\n")
        sys.exit(2)
    module, function = _COMMANDS[sys.argv[1]].split(":")
    sys.exit(getattr(importlib.import_module(module), function)(sys.argv[2:]))
