"""Committing a shard exactly once, however many attempts race for it and wherever they are killed.

    1. settle   the attempt's files, durable in `_attempts/` under names made of their content
    2. decide   one exclusive create of `_commit/SHARD.json`, with the hashes of the chosen files and the marker itself
    3. publish  tar, parquet and last the marker get their final names

The decision is the commit: after it, anybody can finish step 3, and only the chosen files will do. Content names make
two attempts with equal bytes the same attempt, so the decision does not depend on who was first.

What was published may be repaired: `_commit/SHARD.r1.json` decides what stands in its place, `.r2.json` in that one's,
and so on. The newest decision is the one that holds, and no older one is published again. So that nobody reads a tar
and a table of two repairs, the marker goes first: it is taken away, tar and parquet are replaced, the new marker is
created. A repair is decided of what was published whole, so no attempt at an older one is left to come in between.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from pipeline.store.local import TEMPORARY
from pipeline.store.storage import Storage, StorageError, discard
from schemas.names import ATTEMPTS_DIR, COMMIT_DIR, repair_of
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


@dataclass(frozen=True, kw_only=True)
class Decided:
    """A decision, and how many repairs of the same files came before it."""

    decision: Decision
    repair: int = 0
    """0: the first commit."""


def commit(storage: Storage, name: str, files: Mapping[str, FinishedFile], *, repair: int = 0) -> bool:
    """Commit `files` (by final name, the marker last) as `name`, or as its `repair`; True if they are what was chosen.

    When an attempt with other bytes was chosen, or a newer repair, that one is published and this one's files are
    removed.
    """
    ours: Decided | None = None
    try:
        ours = Decided(decision=_settle(storage, files, repair), repair=repair)
    except FileNotFoundError:  # unless `name` was published meanwhile and our files were swept away
        if _decision(storage, name, repair) is None:
            raise
    created = ours is not None and storage.create(_decision_name(name, repair), msgspec.json.encode(ours.decision))
    # another's decision for the same bytes may have been published, and repaired, long ago
    current = ours if created and not repair else newest(storage, name)
    assert current is not None
    current = _publish(storage, name, current)
    digests = {final_name: file.digest for final_name, file in files.items()}
    discard(
        storage, *sorted({*_attempt_names(digests, repair), *_attempt_names(current.decision.files, current.repair)})
    )
    return current == ours


def newest(storage: Storage, name: str) -> Decided | None:
    """Return the decision on `name` that holds, or None where there is none yet."""
    decision, found = _decision(storage, name, 0), None
    while decision is not None:
        found = Decided(decision=decision, repair=0 if found is None else found.repair + 1)
        decision = _decision(storage, name, found.repair + 1)
    return found


def _settle(storage: Storage, files: Mapping[str, FinishedFile], repair: int) -> Decision:
    """Make the files durable in `_attempts/`, and return the decision for them, which holds the marker."""
    *data, (_, marker) = files.items()
    for final_name, file in data:
        storage.settle(file.path, _attempt_name(final_name, file.digest, repair))
    storage.sync(ATTEMPTS_DIR)
    digests = {final_name: file.digest for final_name, file in files.items()}
    decision = Decision(files=digests, marker=marker.path.read_text(encoding="utf-8"))
    marker.path.unlink()
    return decision


def roll_forward(storage: Storage, name: str) -> bool:
    """Finish publishing `name`, as it was repaired last, if it was decided; True if it is committed then."""
    decided = newest(storage, name)
    if decided is None:
        return False
    marker, digest = list(decided.decision.files.items())[-1]
    if decided.repair or storage.size(marker) != digest.size:  # published last: with it there, so is the rest
        decided = _publish(storage, name, decided)
        discard(storage, *_attempt_names(decided.decision.files, decided.repair))
    return True


def withdraw(storage: Storage, name: str, marker: str) -> None:
    """Take back the commit of `name`, whose files are damaged: the decisions, the oldest first, then the marker.

    So a repair that is left without the commit that it is of was withdrawn, too.
    """
    folder = _folder(_decision_name(name, 0))
    there = [f"{folder}/{found}" for found in storage.names(folder)]
    storage.remove(_decision_name(name, 0))
    storage.remove(*(found for found in there if (repair_of(found) or ("", 0))[0] == f"{COMMIT_DIR}/{name}"))
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


def repaired_stems(final_name: str, repair: int) -> list[str]:
    """Return what `sweep` is to be given of a final name whose `repair` is published: this one and those before it."""
    return [_repaired(final_name, number) for number in range(1, repair + 1)]


def decided(storage: Storage) -> set[str]:
    """Return the names of which a decision was made; repairs are called as they are in `_commit/`: `NAME.r1`."""
    return {name.removesuffix(".json") for name in storage.names(COMMIT_DIR)}


def repairs(names: Iterable[str]) -> dict[str, int]:
    """Return the number of the last repair of each that has one, of the names that `decided` gives."""
    last: dict[str, int] = {}
    for found in filter(None, (repair_of(f"{name}.json") for name in names)):
        last[found[0]] = max(found[1], last.get(found[0], 0))
    return last


def _publish(storage: Storage, name: str, decided: Decided) -> Decided:
    """Give the chosen files their final names; returns what holds then, which is newer where one came in between."""
    decision = decided.decision
    *data, (marker, digest) = decision.files.items()
    if decided.repair:
        if _content(storage, marker) == decision.marker:
            return decided
        storage.remove(marker)
        storage.sync(_folder(marker))
    try:
        for final_name, of_file in data:
            _publish_file(storage, name, final_name, of_file, decided.repair)
        storage.sync(_folder(marker))
        if decision.marker is None:
            _publish_file(storage, name, marker, digest, 0)
            storage.sync(_folder(marker))
            return decided
    except LostFileError:
        newer = newest(storage, name)
        if newer is None or newer.repair <= decided.repair:
            raise
        return _publish(storage, name, newer)
    if storage.decide(marker, decision.marker.encode()):
        return decided
    newer = newest(storage, name)  # another's marker is there: of a newer repair, or of one older or damaged
    if newer is not None and newer.repair > decided.repair:
        return _publish(storage, name, newer)
    storage.replace(marker, decision.marker.encode())
    return decided


def _content(storage: Storage, name: str) -> str | None:
    try:
        return storage.read(name).decode(errors="replace")
    except FileNotFoundError:
        return None


def _publish_file(storage: Storage, name: str, final_name: str, digest: FileDigest, repair: int) -> None:
    """Give one chosen file its final name, unless it has it already."""
    try:
        storage.publish(_attempt_name(final_name, digest, repair), final_name)
    except FileNotFoundError:
        if storage.size(final_name) != digest.size:
            raise LostFileError(
                f"{storage.url}: {final_name} was committed with {digest.size} bytes and sha256 {digest.sha256}, but "
                f"neither it nor its attempt is there; restore it from a copy, or remove {_decision_name(name, 0)} "
                f"to make {name} again"
            ) from None


def _decision(storage: Storage, name: str, repair: int) -> Decision | None:
    """Return a decision on `name`, or None where there is none."""
    where = _decision_name(name, repair)
    try:
        return msgspec.json.decode(storage.read(where), type=Decision)
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise StorageError(f"{storage.url}: {where} is damaged ({error}); restore it from a copy") from error


def _decision_name(name: str, repair: int) -> str:
    return f"{COMMIT_DIR}/{_repaired(name, repair)}.json"


def _repaired(name: str, repair: int) -> str:
    return f"{name}.r{repair}" if repair else name


def _attempt_name(final_name: str, digest: FileDigest, repair: int) -> str:
    """Attempts at a repair have names of their own: who sweeps up after the commit before it must leave them."""
    return f"{ATTEMPTS_DIR}/{attempt_stem(_repaired(final_name, repair))}.{digest.sha256[:16]}"


def _attempt_names(files: Mapping[str, FileDigest], repair: int) -> list[str]:
    return [_attempt_name(final_name, digest, repair) for final_name, digest in files.items()]


def _folder(name: str) -> str:
    return name.rpartition("/")[0]
