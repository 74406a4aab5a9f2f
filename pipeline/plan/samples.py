"""Telling whether a file whose time has changed holds other bytes: a hash of samples of it, kept by the plan.

A copy, a restored backup or a checkout changes the times of all files and none of their bytes. 64 KiB at the head, in
the middle and at the tail of a file are hashed; a small file is hashed whole. Of an input with more than `MAX_SAMPLED`
files some are sampled, chosen by their names: then the others count as unchanged where those that were touched with
them are. Files of remote stores have etags of their bytes and need no sample.
"""

import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256

import msgspec

from pipeline.read.base import SourceFile
from pipeline.read.local_files import open_file
from schemas.paths import is_url

PIECE = 64 * 2**10
"""Bytes of a sample."""
MAX_SAMPLED = 20_000
"""Files of an input, about, that are sampled: at most 4 GB to read, and one or two seconds where files are small."""
_THREADS = 8
_CHUNK = 500


def sampled(root: str, files: Sequence[SourceFile]) -> Iterator[SourceFile]:
    """Yield the files with the samples of those that are chosen, in order; uris are relative to `root`."""
    every = -(-len(files) // MAX_SAMPLED)
    chosen = iter(_samples(root, [file for file in files if _is_chosen(file, every)]))
    for file in files:
        yield msgspec.structs.replace(file, sample=next(chosen)) if _is_chosen(file, every) else file


def _is_chosen(file: SourceFile, every: int) -> bool:
    return every <= 1 or zlib.crc32(file.uri.encode()) % every == 0


def _samples(root: str, files: Sequence[SourceFile]) -> Iterator[str]:
    chunks = [files[start : start + _CHUNK] for start in range(0, len(files), _CHUNK)]
    with ThreadPoolExecutor(_THREADS) as pool:
        for samples in pool.map(lambda chunk: [sample(root, file) for file in chunk], chunks):
            yield from samples


def sample(root: str, file: SourceFile) -> str:
    """Return 16 hex digits of the sha256 of a local file's samples; "" for one that is remote or not there."""
    path = file.uri if file.uri.startswith("/") else f"{root}/{file.uri}"
    if not file.etag or is_url(path):
        return ""
    try:
        with open_file(os.path.normpath(path)) as stream:
            digest = sha256()
            for offset in sorted({0, max(0, file.size // 2 - PIECE // 2), max(0, file.size - PIECE)}):
                digest.update(os.pread(stream.fileno(), PIECE, offset))
            return digest.hexdigest()[:16]
    except OSError:  # the worker that reads it says what is wrong with it
        return ""


def changed_files(root: str, planned: Mapping[str, SourceFile], now: Mapping[str, SourceFile]) -> list[str]:
    """Return the uris, sorted, of files that are in both and hold other bytes now, as far as size and samples tell."""
    touched = sorted(uri for uri in now.keys() & planned.keys() if _identity(now[uri]) != _identity(planned[uri]))
    same_size = [now[uri] for uri in touched if now[uri].size == planned[uri].size and planned[uri].sample]
    pairs = zip(same_size, _samples(root, same_size), strict=True)
    same = {file.uri for file, found in pairs if found == planned[file.uri].sample}
    others = [uri for uri in touched if uri not in same]
    if len(same) < len(same_size) or not same:
        return others
    return [uri for uri in others if planned[uri].sample or now[uri].size != planned[uri].size]


def _identity(file: SourceFile) -> tuple[int, str]:
    return file.size, file.etag
