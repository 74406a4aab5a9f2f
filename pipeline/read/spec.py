"""How an INPUT is written: `[KIND:]PATH[?option=value&...]`, and how its kind is found where it is not written.

What lies there under the whole name is meant: a folder `a:b` or `x?y=z` has neither kind nor options. Option values are
taken as written, but `%26` and its like stand for characters that would end them.
"""

import os
import re
from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import PurePosixPath
from urllib.parse import unquote

from pipeline.read.base import SourceError
from pipeline.read.formats import is_image, suffix_of
from pipeline.read.location import Location
from pipeline.read.packed_text import head_of, plain_name
from schemas.names import CARD_DIR
from schemas.paths import as_path, is_url

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.zst", ".tzst", ".tar.bz2", ".tbz2")

_PREFIX = re.compile(r"([A-Za-z][A-Za-z0-9_]*):(?!//|:)(.*)", re.DOTALL)
_OPTIONS = re.compile(r"\?([A-Za-z_]+=[^&?]*(?:&[A-Za-z_]+=[^&?]*)*)\Z")
_HEAD = 2**16
"""Bytes of a JSON file that are looked into."""
_NUM_SUFFIXES = 3
"""Suffixes that an error names of files that are no input, the most frequent ones."""
_REMEDY = "name the kind in front, as in webdataset:PATH, folder:PATH, coco:PATH or parquet:PATH"


def split_prefix(spec: str) -> tuple[str | None, str]:
    """Split `kind:rest`; the kind is None where there is none (`s3://bucket` has none: that is a URL)."""
    match = None if is_there(spec) else _PREFIX.fullmatch(spec)
    return (match[1], match[2]) if match else (None, spec)


def split_options(rest: str, known: Collection[str] | None = None) -> tuple[str, dict[str, str]]:
    """Split `path?name=value&...` into the path and its options.

    Raises SourceError for an option that is not in `known`, or named twice (`known` None takes any).
    """
    match = None if is_there(rest) else _OPTIONS.search(rest)
    if match is None:
        return rest, {}
    options: dict[str, str] = {}
    for name, _, value in (option.partition("=") for option in match[1].split("&")):
        if known is not None and name not in known:
            options_here = f"known here: {', '.join(sorted(known))}" if known else "this kind of input has none"
            raise SourceError(f"{rest}: unknown option {name!r}; {options_here}")
        if name in options:
            raise SourceError(f"{rest}: option {name!r} is given twice")
        options[name] = unquote(value)
    return rest[: match.start()], options


def canonical(spec: str) -> str:
    """Return `spec` with a local path made absolute: the same input, whatever folder a worker or a resume starts in."""
    kind, rest = split_prefix(spec)
    path, options = rest, ""
    if not is_there(rest) and (match := _OPTIONS.search(rest)) is not None:
        path, options = rest[: match.start()], match[0]
    path = path if kind == "scenes" else as_path(path)
    return f"{kind}:{path}{options}" if kind else path + options


def is_there(path: str) -> bool:
    """Return True where `path` is local and something has this name as a whole."""
    return bool(path) and not is_url(path) and os.path.lexists(as_path(path))


def is_tar(uri: str) -> bool:
    """Return True for the name of a tar, compressed or not."""
    return uri.lower().endswith(TAR_SUFFIXES)


def tar_stem(uri: str) -> str:
    """Return a tar's path without its suffix."""
    suffix = next((suffix for suffix in TAR_SUFFIXES if uri.lower().endswith(suffix)), "")
    return uri[: len(uri) - len(suffix)]


def is_parquet(uri: str) -> bool:
    """Return True for the name of a Parquet file."""
    return uri.lower().endswith(".parquet")


def is_data(uri: str) -> bool:
    """Return True unless a component begins with `_`: such folders hold a writer's own files (ours, Spark's)."""
    return not any(part.startswith("_") for part in uri.split("/"))


def detect_kind(path: str) -> str:
    """Return the kind of INPUT that lies at `path` (no kind in front, no options).

    Raises SourceError where nothing usable is there, or several kinds.
    """
    location = Location.of(path)
    name = (location.name or "").lower()
    if plain_name(name).endswith(".json"):
        return kind_of_json(head_of(location, _HEAD))
    if plain_name(name).endswith((".jsonl", ".ndjson")):
        return "grounding"
    if name.endswith(".arrow"):
        return "arrow"
    uris = [file.uri for file in location.files()]
    kinds = _kinds_among(uris)
    if not kinds:
        suffixes = Counter(map(suffix_of, uris)).most_common(_NUM_SUFFIXES)
        others = ", ".join(f"{count:,} {suffix or 'without suffix'}" for suffix, count in suffixes)
        only = f", only {others}" if others else ""
        raise SourceError(f"{path}: no image, tar, Parquet or Arrow file is there{only}; check the path, or {_REMEDY}")
    if len(kinds) > 1:
        found = " and ".join(f"{kind} ({example})" for kind, example in kinds.items())
        raise SourceError(f"{path}: holds files of several kinds, {found}; {_REMEDY}")
    return next(iter(kinds))


def kind_of_json(head: bytes) -> str:
    """Return the kind of a JSON file from its first bytes: COCO's is an object, the lists differ by their fields."""
    if not head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"["):
        return "coco"
    fields = {b"conversations": "grounding", b"messages": "grounding", b"suffix": "grounding", b"sentences": "refcoco"}
    return next((kind for name, kind in fields.items() if b'"' + name + b'"' in head), "coco")


def _kinds_among(uris: Iterable[str]) -> dict[str, str]:
    """Return the kinds of input among the files, each with the first file that shows it.

    A Parquet file named after a tar beside it (img2dataset's, or a shard's table) is that tar's; so is one named after
    a folder of images (img2dataset's `files`), and a `metadata.parquet` where there are images is theirs. The picture
    of a data set's card is no input.
    """
    uris = list(uris)
    beside = "metadata.parquet" if any(map(is_image, uris)) else None
    owners = {tar_stem(uri) for uri in uris if is_tar(uri)} | {uri.rpartition("/")[0] for uri in uris if is_image(uri)}
    kinds: dict[str, str] = {}
    for uri in uris:
        if is_tar(uri) and is_data(uri):
            kinds.setdefault("webdataset", uri)
        elif is_parquet(uri) and is_data(uri) and not _belongs_to(uri, owners) and PurePosixPath(uri).name != beside:
            kinds.setdefault("parquet", uri)
        elif uri.endswith(".arrow") and not uri.rpartition("/")[2].startswith(("cache-", "tmp")):
            kinds.setdefault("arrow", uri)
        elif is_image(uri) and PurePosixPath(uri).parent.name != CARD_DIR:
            kinds.setdefault("folder", uri)
    return kinds


def _belongs_to(uri: str, owners: Collection[str]) -> bool:
    path = PurePosixPath(uri)
    return str(path.with_name(path.name.split(".")[0])) in owners
