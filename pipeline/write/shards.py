"""Writing and committing the shards of one unit of work: one shard a split."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import msgspec

from pipeline.clock import StageClock
from pipeline.models.batches import BatchReport
from pipeline.plan.plan import Plan
from pipeline.sample import Drop, Sample
from pipeline.settings import Configuration
from pipeline.store.commit import FinishedFile, commit, roll_forward
from pipeline.store.scratch import scratch_token
from pipeline.write.rows import image_record, table_rows
from pipeline.write.shard_writer import HashingFile, ShardWriter
from schemas.hashes import key_fraction
from schemas.names import TRAIN, VAL, ShardName
from schemas.reasons import Reason, Stage
from schemas.records import Counts, ShardMarker, UnitSource, encode


class BalanceError(AssertionError):
    """Inputs are not ok + filtered + dead: a bug of ours. Commands exit 6 on it."""

    exit_code = 6


@dataclass(frozen=True, kw_only=True)
class UnitReport:
    """What a unit came to, for the run's log; totals are read from the markers, never from here."""

    unit: int
    images: Counts = field(default_factory=Counts)
    regions: Counts = field(default_factory=Counts)
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall time by stage of the flow."""
    batches: dict[str, BatchReport] = field(default_factory=dict)
    """By stage that a model works in."""


def release() -> str:
    """Return the release that writes, as markers name it."""
    return f"fineclip-regions {version('fineclip-regions')}"


def shards_of(unit: int, configuration: Configuration) -> dict[str, ShardName]:
    """Return the shard of `unit` in each split."""
    return {split: ShardName(split, unit) for split in configuration.splits}


def commit_unit(
    plan: Plan,
    unit: int,
    samples: Iterator[Sample],
    configuration: Configuration,
    *,
    provenance: dict[str, Any],
    clock: StageClock,
) -> tuple[Counts, Counts]:
    """Write `samples` to the unit's shards, commit each that was not committed before; return the counts of both.

    Raises OSError on storage trouble, and BalanceError, before a shard is committed, if its counts do not add up.
    """
    storage, token, images, regions = plan.storage, scratch_token(), Counts(), Counts()
    with ExitStack() as stack:
        writers = {}
        for split, shard in shards_of(unit, configuration).items():
            writers[split] = ShardWriter(shard, storage.scratch, token)
            stack.callback(writers[split].abandon)
        for sample in samples:
            with clock("write"):
                write_sample(sample, writers[split_of(sample, configuration)], configuration)
        with clock("commit"):
            for writer in writers.values():
                # the only shard of a unit is known not to be there: whoever was quicker is met by `commit`
                if len(writers) > 1 and roll_forward(storage, str(writer.shard)):
                    continue
                files = finish_shard(plan, unit, writer, provenance, token)
                stack.callback(unlink_all, files)
                commit(storage, str(writer.shard), files)
    for writer in writers.values():
        images.add(writer.images)
        regions.add(writer.regions)
    return images, regions


def split_of(sample: Sample, configuration: Configuration) -> str:
    """Return the split that a sample belongs to, by the hash of its key."""
    return VAL if configuration.val_fraction and key_fraction(sample.key, "val") < configuration.val_fraction else TRAIN


def write_sample(sample: Sample, writer: ShardWriter, configuration: Configuration) -> None:
    """Add a sample that is ok to the tar, and any sample's rows to the table."""
    writer.images.inputs += 1
    writer.bytes_lost += sample.item.bytes_lost
    writer.regions.inputs += 0 if sample.proposals is None else len(sample.proposals.boxes)
    names = {"proposer": configuration.proposer, "captioner": configuration.captioner}
    tar_range = None
    if sample.drop is None:
        record = image_record(sample, **names)
        if configuration.drop_empty and record.num_regions == 0:
            message = "no region was left, and --drop-empty was given"
            sample.drop = Drop(reason=Reason.NO_REGIONS, stage=Stage.CAPTION, message=message)
        else:
            assert sample.image is not None
            tar_range = writer.add_sample(record, sample.image.stored, sample.image.suffix)
    for row in table_rows(sample, writer.shard, tar_range=tar_range, **names):
        writer.add_row(row)


def finish_shard(
    plan: Plan, unit: int, writer: ShardWriter, provenance: dict[str, Any], token: str
) -> dict[str, FinishedFile]:
    """Close the shard's files, check its counts, add its marker; returns the files by final name, the marker last."""
    shard = writer.shard
    files = writer.finish()
    for kind, counts in (("images", writer.images), ("regions", writer.regions)):
        if not counts.balanced:
            raise BalanceError(f"{shard}: {kind}: {counts} do not balance; this is a bug, please report it")
    marker = ShardMarker(
        schema_version="1",
        shard=str(shard),
        fingerprint=plan.fingerprint,
        images=writer.images,
        regions=writer.regions,
        tar=files[shard.tar].digest,
        parquet=files[shard.parquet].digest,
        sources=[
            UnitSource(input=part.prefix, uri=part.part.uri, start=part.part.start, stop=part.part.stop)
            for part in plan.unit(unit)
        ],
        provenance=provenance,
        bytes_lost=writer.bytes_lost or msgspec.UNSET,
        num_noted=writer.num_noted,
        written_by=release(),
    )
    file = HashingFile(plan.storage.scratch / f"{shard.marker}.{token}")
    try:
        file.write(encode(marker))
        files[shard.marker] = file.finish()
    except OSError:
        file.path.unlink()
        raise
    finally:
        file.close()
    return files


def unlink_all(files: dict[str, FinishedFile]) -> None:
    """Remove what is left of an attempt's local files."""
    for file in files.values():
        file.path.unlink(missing_ok=True)
