"""Committing a shard exactly once, however many attempts race for it and wherever they are killed.

    1. settle   the attempt's files, durable in `_attempts/` under names made of their content
    2. decide   one exclusive create of `_commit/SHARD.json`, with the hashes of the chosen files and the marker itself
    3. publish  tar, parquet and last the marker get their final names

The decision is the commit: after it, anybody can finish step 3, and only the chosen files will do. Content names make
two attempts with equal bytes the same attempt, so the decision does not depend on who was first.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from pipeline.store.local import TEMPORARY
from pipeline.store.storage import Storage, StorageError, discard
from schemas.names import ATTEMPTS_DIR, COMMIT_DIR
from schemas.records import FileDigest


class LostFileError(StorageError):
    """A file that was committed is not there any more, and no attempt at it either."""


class Decision(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `_commit/NAME.json` says: the files that `NAME` consists of, the marker last."""

    files: dict[str, FileDigest]
    """By final name, in the order in which they are published."""
    marker: str | None = None
    """The marker's contents, so that it need not be settled; None: it lies in `_attempts/`, as the other files do."""


@dataclass(frozen=True, kw_only=True)
class FinishedFile:
    """A local file that an attempt has finished writing."""

    path: Path
    digest: FileDigest


def commit(storage: Storage, name: str, files: Mapping[str, FinishedFile]) -> bool:
    """Commit `files` (by final name, the marker last) as `name`; True if they are what was chosen.

    When an attempt with other bytes was chosen, that one is published and this one's files are removed.
    """
    try:
        ours = _settle(storage, files)
    except FileNotFoundError:  # unless `name` was published meanwhile and our files were swept away
        decision, chosen = _decision(storage, name), False
        if decision is None:
            raise
    else:
        chosen = storage.decide(_decision_name(name), msgspec.json.encode(ours))
        decision = ours if chosen else _read_decision(storage, name)
    _publish(storage, name, decision)
    digests = {final_name: file.digest for final_name, file in files.items()}
    discard(storage, *sorted({*_attempt_names(digests), *_attempt_names(decision.files)}))
    return chosen


def _settle(storage: Storage, files: Mapping[str, FinishedFile]) -> Decision:
    """Make the files durable in `_attempts/`, and return the decision for them, which holds the marker."""
    *data, (_, marker) = files.items()
    for final_name, file in data:
        storage.settle(file.path, _attempt_name(final_name, file.digest))
    storage.sync(ATTEMPTS_DIR)
    digests = {final_name: file.digest for final_name, file in files.items()}
    decision = Decision(files=digests, marker=marker.path.read_text(encoding="utf-8"))
    marker.path.unlink()
    return decision


def roll_forward(storage: Storage, name: str) -> bool:
    """Finish publishing `name` if it was decided; True if it is committed when this returns."""
    decision = _decision(storage, name)
    if decision is None:
        return False
    marker, digest = list(decision.files.items())[-1]
    if storage.size(marker) != digest.size:  # published last: with it there, so is the rest
        _publish(storage, name, decision)
        discard(storage, *_attempt_names(decision.files))
    return True


def withdraw(storage: Storage, name: str, marker: str) -> None:
    """Take back the commit of `name`, whose files are damaged: the decision first, then the marker."""
    storage.remove(_decision_name(name))
    storage.remove(marker)


def sweep(storage: Storage, published: Iterable[str]) -> None:
    """Remove from `_attempts/` what can be of no use: other attempts at `published` final names, temporary files.

    Another job may be at work there. It loses nothing: whoever still attempts a published file finds that it came
    second, and temporary files are written again.
    """
    useless = {TEMPORARY, *map(attempt_stem, published)}
    found = [name for name in storage.names(ATTEMPTS_DIR) if name.rpartition(".")[0] in useless]
    storage.remove(*(f"{ATTEMPTS_DIR}/{name}" for name in found))
    storage.remove_folder(ATTEMPTS_DIR)


def attempt_stem(final_name: str) -> str:
    """Return the name in `_attempts/` of an attempt at `final_name`, up to the dot and 16 hex digits that end it."""
    return final_name.replace("/", ".")


def decided(storage: Storage) -> set[str]:
    """Return the names of which a decision was made."""
    return {name.removesuffix(".json") for name in storage.names(COMMIT_DIR)}


def _publish(storage: Storage, name: str, decision: Decision) -> None:
    *data, marker = decision.files.items()
    for final_name, digest in data:
        _publish_file(storage, name, final_name, digest)
    storage.sync(_folder(marker[0]))
    if decision.marker is None:
        _publish_file(storage, name, *marker)
        storage.sync(_folder(marker[0]))
    else:
        storage.replace(marker[0], decision.marker.encode())


def _publish_file(storage: Storage, name: str, final_name: str, digest: FileDigest) -> None:
    """Give one chosen file its final name, unless it has it already."""
    try:
        storage.publish(_attempt_name(final_name, digest), final_name)
    except FileNotFoundError:
        if storage.size(final_name) != digest.size:
            raise LostFileError(
                f"{storage.url}: {final_name} was committed with {digest.size} bytes and sha256 {digest.sha256}, but "
                f"neither it nor its attempt is there; restore it from a copy, or remove {_decision_name(name)} "
                f"to make {name} again"
            ) from None


def _decision(storage: Storage, name: str) -> Decision | None:
    """Return the decision on `name`, or None where there is none yet."""
    try:
        return _read_decision(storage, name)
    except FileNotFoundError:
        return None


def _read_decision(storage: Storage, name: str) -> Decision:
    where = _decision_name(name)
    try:
        return msgspec.json.decode(storage.read(where), type=Decision)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise StorageError(f"{storage.url}: {where} is damaged ({error}); restore it from a copy") from error


def _decision_name(name: str) -> str:
    return f"{COMMIT_DIR}/{name}.json"


def _attempt_name(final_name: str, digest: FileDigest) -> str:
    return f"{ATTEMPTS_DIR}/{attempt_stem(final_name)}.{digest.sha256[:16]}"


def _attempt_names(files: Mapping[str, FileDigest]) -> list[str]:
    return [_attempt_name(final_name, digest) for final_name, digest in files.items()]


def _folder(name: str) -> str:
    return name.rpartition("/")[0]
