"""What lies in the inputs of a job, as a plan records it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pipeline.plan.plan import PlannedInput
from pipeline.read import open_source
from pipeline.read.base import SourceError, SourceFile, input_errors
from pipeline.read.keys import input_prefixes
from schemas.hashes import fingerprint


@dataclass(frozen=True, kw_only=True)
class ListedInput:
    """An INPUT with the files it holds now."""

    spec: str
    kind: str
    prefix: str
    root: str
    """What the files' uris are relative to."""
    files: tuple[SourceFile, ...]


def list_inputs(
    inputs: Sequence[str], taken: Sequence[PlannedInput], *, allow: Sequence[str] = ()
) -> list[ListedInput]:
    """List the files of `inputs`; a lone input of a new data set needs no prefix."""
    if len(set(inputs)) != len(inputs):
        raise SourceError(f"an INPUT is named twice: {list(inputs)}")
    prefixes = input_prefixes(inputs, [planned.prefix for planned in taken], extends=bool(taken))
    listed = []
    for spec, prefix in zip(inputs, prefixes, strict=True):
        source = open_source(spec, allow=allow)
        with input_errors(spec):
            files = tuple(source.files())
        listed.append(ListedInput(spec=spec, kind=source.kind, prefix=prefix, root=source.root, files=files))
    return listed


def listing_sha256(files: Iterable[SourceFile]) -> str:
    """Return what changes when a file is added, removed or changed."""
    return fingerprint([[file.uri, file.size, file.etag] for file in files])
