"""`python -m trainer train|evaluate|export ...`: the same as the `fineclip` command, for launchers."""

import sys

from trainer.command import evaluate_main, train_main
from trainer.export_command import export_main

_COMMANDS = {"train": train_main, "evaluate": evaluate_main, "export": export_main}

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in _COMMANDS:
        sys.stderr.write(f"usage: python -m trainer {'|'.join(_COMMANDS)} ... (each has --help)\n")
        sys.exit(2)
    sys.exit(_COMMANDS[sys.argv[1]](sys.argv[2:]))
