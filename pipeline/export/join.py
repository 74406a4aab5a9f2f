"""One file of OUT from the lines of all parts, in the order of the shards; a line is in memory at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import msgspec

from pipeline.export.part import PARTS, write_whole
from pipeline.export.survey import Survey
from schemas.names import ShardName


@dataclass(frozen=True, kw_only=True)
class Join:
    """The parts of OUT, all of them there."""

    out: Path
    shards: Sequence[ShardName]
    survey: Survey
    written: dict[str, int] = field(default_factory=dict)
    """Size in bytes of each file that was joined, by name in OUT."""

    @property
    def splits(self) -> list[str]:
        """The splits that there are, sorted."""
        return sorted({shard.split for shard in self.shards})

    def write(self, name: str, pieces: Iterator[bytes]) -> None:
        """Write a file of OUT, of pieces of any size."""
        path = self.out / name
        write_whole(path, pieces)
        self.written[name] = path.stat().st_size

    def write_json(self, name: str, value: object) -> None:
        """Write a small JSON file of OUT."""
        text = msgspec.json.format(msgspec.json.encode(value), indent=2)
        self.write(name, iter([text, b"\n"]))

    def lines(self, split: str, part_name: str) -> Iterator[bytes]:
        """Yield the lines of a split's parts, without line ends."""
        for shard in self.shards:
            if shard.split == split:
                with (self.out / PARTS / f"{shard}.{part_name}").open("rb") as file:
                    yield from (line.rstrip(b"\n") for line in file)


def with_commas(lines: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the members of a JSON array or object, a line each."""
    for position, line in enumerate(lines):
        yield (b",\n" if position else b"\n") + line


def write_line(file: BinaryIO, value: object) -> None:
    """Write a value as a line of JSON."""
    file.write(msgspec.json.encode(value) + b"\n")
