"""What a study consists of: cells, each a row of its table under one seed, made by commands in turn.

Every command's output has a path that follows from the command itself, inputs included. So equal work of several cells
and studies is done once, and a changed setting is other work, not a conflict.
"""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from schemas.hashes import sha256

OUT = "{out}"
"""Stands in a step's arguments for the path of what it makes."""
SCORES = "{scores}"
"""Stands for the path of the table that an evaluation leaves beside what it makes."""
CODE = "{code}"
"""Stands for the folder of the code, where the models are that ship. It is filled in as the command starts."""
WORK = "work"
"""Folder, in that of a study, that its commands run in."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One `fineclip` command. It runs in the study's `work` folder, and its paths are relative to that."""

    kind: str
    """What it does, in a word: `data`, `train`, `evaluate`. What it makes lies in a folder of that name."""
    arguments: tuple[str, ...]
    """Of `fineclip`, with `{out}` where its output's path goes."""
    suffix: str = ""
    """Of what it makes: `.json` for a file, nothing for a folder."""
    version: str = ""
    """Of what the command does, where its arguments do not say all: a hash of its recipe's settings."""
    beside: str | None = None
    """What it makes where the command names no output: a path in its input, such as an overlay's plan."""

    @property
    def key(self) -> str:
        """16 hex digits of the command, and so of all that went into its inputs."""
        return sha256(f"{shlex.join(self.arguments)} {self.version}".encode())[:16]

    @property
    def out(self) -> str:
        """Where what it makes is."""
        return self.beside or f"{self.kind}/{self.key}{self.suffix}"

    @property
    def scores(self) -> str:
        """Where an evaluation leaves what each row scored."""
        return f"{self.kind}/{self.key}.parquet"

    @property
    def command(self) -> tuple[str, ...]:
        """The arguments of `fineclip`, whole."""
        return tuple(argument.replace(OUT, self.out).replace(SCORES, self.scores) for argument in self.arguments)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A row of the table under one seed."""

    row: str
    """What its row is called, such as `FineCLIP`."""
    seed: int | None
    """None where nothing is random."""
    steps: tuple[Step, ...]
    """In order. The JSON of those that write one is what the cell found."""

    @property
    def key(self) -> str:
        """8 hex digits of all its commands: cells of two studies that are alike in them are one."""
        return sha256(" ".join(step.key for step in self.steps).encode())[:8]

    @property
    def name(self) -> str:
        """Of its file: the row, the seed, and its key."""
        slug = re.sub(r"[^a-z0-9]+", "-", self.row.lower()).strip("-")
        seed = "" if self.seed is None else f"-s{self.seed}"
        return f"{slug}{seed}-{self.key}"


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A column of the table."""

    name: str
    """In a cell's figures: the task and the metric, `words.shape_accuracy@1`; or `cost.KIND.FIELD` of its own steps."""
    title: str
    decimals: int = 1
    """Of numbers that are no shares."""
    unit: str = "%"
    """`%` for shares; else what the number counts, and it is shown as it is."""
    chance: str | None = None
    """Where what guessing would reach is."""


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """Two rows whose difference the study is about, named before anything is looked at."""

    row: str
    against: str
    metric: str
    """The title of a metric that is a share of rows."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """The cells of a study and how they become a table."""

    title: str
    cells: Sequence[Cell]
    metrics: Sequence[Metric]
    contrasts: Sequence[Contrast] = ()
    """The first is the primary one."""

    def problem(self) -> str | None:
        """Return what is wrong with the study, before hours of work go into it; None where nothing is."""
        rows = {cell.row for cell in self.cells}
        titles = [metric.title for metric in self.metrics]
        if not rows:
            return "it has no cell"
        empty = next((cell.row for cell in self.cells if not cell.steps), None)
        if empty is not None:
            return f"the cell {empty!r} has no steps"
        for contrast in self.contrasts:
            unknown = next((name for name in (contrast.row, contrast.against) if name not in rows), None)
            if unknown is not None:
                return f"a contrast names the row {unknown!r}; there are {', '.join(sorted(rows))}"
            if contrast.metric not in titles:
                return f"a contrast names the metric {contrast.metric!r}; there are {', '.join(titles)}"
        return None
