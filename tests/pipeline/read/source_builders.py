"""Small tars and images, made on the fly, and a look at what a source yields."""

import io
import json
import tarfile
from collections.abc import Iterable
from typing import Any

from pipeline.read import open_source
from pipeline.read.base import Source
from pipeline.sample import SourceItem
from schemas.reasons import Reason

JPEG = b"\xff\xd8\xff\xe0 not decoded here"


def tar_bytes(members: Iterable[tuple[str, bytes]]) -> bytes:
    """A tar of the members, in the order given."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def sample(name: str, caption: str | None = None, record: Any = None) -> list[tuple[str, bytes]]:
    """The members of a sample whose image says its own name."""
    members = [(f"{name}.jpg", JPEG + name.encode())]
    if caption is not None:
        members.append((f"{name}.txt", caption.encode()))
    if record is not None:
        members.append((f"{name}.json", json.dumps(record).encode()))
    return members


def read_all(source: Source | str, shard_size: int = 1000, repack: bool = False) -> list[SourceItem]:
    """Every item of every part, in order."""
    source = open_source(source) if isinstance(source, str) else source
    return [item for parts in source.parts(shard_size, repack) for part in parts for item in source.read(part)]


def reasons(items: Iterable[SourceItem]) -> list[Reason | None]:
    """The reason of each item's failure, None for a good one."""
    return [item.drop.reason if item.drop else None for item in items]
