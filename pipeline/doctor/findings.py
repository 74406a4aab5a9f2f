"""What the doctor finds: a level, a place, what is wrong and what to do about it."""

from collections import Counter
from enum import StrEnum

import msgspec

from schemas.names import ShardName

_KEPT = 1000
"""Findings of a kind that are kept; more are only counted, so that a ruined data set does not fill the memory."""

_WRITE_AGAIN = (
    "fetch {shard} again from where it came; or, where it was made, remove {shard}.json and _commit/{shard}.json and "
    "run the same `fineclip annotate` again: it makes just this shard (missing or cut files need no removing)"
)


class Level(StrEnum):
    """How bad a finding is, worst first."""

    ERROR = "error"
    """Readers stop on it, or see something wrong. The command exits 1."""
    WARNING = "warning"
    """It reads, but a person should know."""
    NOTE = "note"
    """Nothing to do."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is as it should not be."""

    level: Level
    check: str
    """The name of what was checked, such as `file-hash`."""
    shard: str | None
    key: str | None
    message: str
    remedy: str
    """A command, or a sentence."""


Kind = tuple[Level, str]
"""Level and check: findings that are shown as one group."""


class Findings:
    """Findings in the order found, all of them counted, and the first thousand of each kind kept."""

    def __init__(self, shard: ShardName | None = None) -> None:
        """`shard` is where the findings are, unless one says otherwise."""
        self._shard = shard
        self._kept: dict[Kind, list[Finding]] = {}
        self.counts: Counter[Kind] = Counter()

    def error(
        self, check: str, message: str, *, remedy: str = "", shard: ShardName | None = None, key: str | None = None
    ) -> None:
        """Add an error; without a remedy, writing its shard again is what helps."""
        self._add(Level.ERROR, check, message, remedy=remedy, shard=shard, key=key)

    def warning(
        self, check: str, message: str, *, remedy: str, shard: ShardName | None = None, key: str | None = None
    ) -> None:
        """Add a warning."""
        self._add(Level.WARNING, check, message, remedy=remedy, shard=shard, key=key)

    def note(self, check: str, message: str, *, remedy: str, shard: ShardName | None = None) -> None:
        """Add a note."""
        self._add(Level.NOTE, check, message, remedy=remedy, shard=shard, key=None)

    def _add(
        self, level: Level, check: str, message: str, *, remedy: str, shard: ShardName | None, key: str | None
    ) -> None:
        place = shard or self._shard
        name = None if place is None else str(place)
        kind = (level, check)
        self.counts[kind] += 1
        if self.counts[kind] <= _KEPT:
            remedy = remedy or _WRITE_AGAIN.format(shard=name)
            found = Finding(level=level, check=check, shard=name, key=key, message=message, remedy=remedy)
            self._kept.setdefault(kind, []).append(found)

    def extend(self, other: "Findings") -> None:
        """Add the findings of `other` after these."""
        self.counts.update(other.counts)
        for kind, found in other._kept.items():
            kept = self._kept.setdefault(kind, [])
            kept += found[: _KEPT - len(kept)]

    def num(self, level: Level) -> int:
        """Return how many findings of `level` there are, kept or not."""
        return sum(count for (of, _), count in self.counts.items() if of is level)

    def groups(self) -> list[tuple[Kind, list[Finding]]]:
        """Return what is kept by kind: errors first, then as found."""
        levels = list(Level)
        return sorted(self._kept.items(), key=lambda group: levels.index(group[0][0]))
