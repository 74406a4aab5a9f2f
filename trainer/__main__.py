"""`python -m trainer` is `fineclip`. Launchers had better start the command itself: `torchrun $(which fineclip) train`.

Python looks for `-m` modules in the current folder first, where a `trainer.py` may lie.
"""

from fineclip import run

if __name__ == "__main__":
    run()
