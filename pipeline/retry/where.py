"""Which dead rows are repeated: those that meet all conditions `COLUMN=VALUE[,VALUE]`."""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from schemas.reasons import STATUS_OF, Stage, Status

COLUMNS = (
    *("reason", "stage", "key", "region_id", "shard", "message", "traceback_hash"),
    *("label", "proposer", "source_id", "image_caption"),
)
"""What a condition can be on: the columns of text in which dead rows say something."""
_KNOWN = {
    "reason": tuple(reason.value for reason, status in STATUS_OF.items() if status is Status.DEAD),
    "stage": tuple(stage.value for stage in Stage),
}
"""Columns of which all values are known."""


class WhereError(ValueError):
    """A condition names a column or a value that there is not. Commands exit 2 on it."""

    exit_code = 2


@dataclass(frozen=True, kw_only=True)
class Condition:
    """A column of the dead rows, and the values of which it must hold one."""

    column: str
    values: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.column}={','.join(self.values)}"


def parse_condition(text: str) -> Condition:
    """Return the condition that `COLUMN=VALUE[,VALUE]` says. Raises WhereError, naming the columns and values."""
    column, equals, given = text.partition("=")
    values = tuple(value.strip() for value in given.split(",") if value.strip())
    if not equals or not values:
        raise WhereError(f"--where {text}: write COLUMN=VALUE[,VALUE], such as reason=oom,timeout")
    if column not in COLUMNS:
        raise WhereError(
            f"--where {text}: no column {column!r}{_meant(column, COLUMNS)}; there are {', '.join(COLUMNS)}"
        )
    for value in values:
        if column in _KNOWN and value not in _KNOWN[column]:
            raise WhereError(f"--where {text}: no {column} of what is dead is called {value!r}{_told(column, value)}")
    return Condition(column=column, values=values)


def _told(column: str, value: str) -> str:
    if any(reason.value == value for reason in STATUS_OF):
        return ": it is of what a rule of yours left out, which the same settings would leave out again"
    return f"{_meant(value, _KNOWN[column])}; there are {', '.join(_KNOWN[column])}"


def _meant(given: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(given, list(known), n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def matching(rows: pa.Table, where: Sequence[Condition]) -> pa.ChunkedArray:
    """Return `[rows]` bool: which rows of a shard's table are dead and meet all conditions."""
    wanted = pc.equal(rows["status"], Status.DEAD.value)
    for condition in where:
        value_set = pa.array(condition.values, type=pa.string())
        wanted = pc.and_(wanted, pc.is_in(rows[condition.column], value_set=value_set))
    return wanted
