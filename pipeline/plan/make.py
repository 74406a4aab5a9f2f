"""Planning: cutting inputs into units of work, and extending a plan."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import zip_longest

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import PlanError
from pipeline.plan.check import check_configuration, check_plan
from pipeline.plan.listing import ListedInput, list_inputs, listing_sha256
from pipeline.plan.plan import (
    FILES_SCHEMA,
    ITEMS_SCHEMA,
    UNITS_SCHEMA,
    Generation,
    Plan,
    PlannedInput,
    decision_name,
    load_plan,
    table_name,
)
from pipeline.plan.samples import changed_files, sampled
from pipeline.read import open_source
from pipeline.read.base import ListedItem, Source, SourcePart, input_errors, read_on
from pipeline.read.describe import InputSummary
from pipeline.read.exclusions import GIVEN
from pipeline.read.spec import canonical
from pipeline.read.summary import check_boxes, check_there, summarise
from pipeline.settings import Configuration, PlanSettings
from pipeline.store.commit import FinishedFile, attempt_stem, commit
from pipeline.store.scratch import scratch_token
from pipeline.store.storage import Storage
from pipeline.write.shard_writer import HashingFile
from schemas.hashes import canonical_json
from schemas.names import CARD, DATASET_JSON, INDEX_JSON, PLAN_DIR, SIZES_JSON, ShardName
from schemas.paths import as_path, printable


def make_plan(storage: Storage, inputs: Sequence[str], configuration: Configuration, settings: PlanSettings) -> Plan:
    """Plan a new data set of `inputs`, or take the plan that another job has just committed for the same.

    Raises SourceError for an unusable input, and PlanError when the other job planned something else.
    """
    refuse_foreign_files(storage)
    inputs = [canonical(spec) for spec in inputs]
    wanted = list_inputs(inputs, taken=(), allow=configuration.read.allow)
    _commit_generation(storage, (), wanted, configuration, settings)
    plan = load_plan(storage)
    assert plan is not None
    check_plan(plan, inputs, configuration, settings)
    return plan


def refuse_foreign_files(storage: Storage) -> None:
    """Raise PlanError where OUTPUT holds files, of another's making, that a data set would overwrite."""
    ours = (DATASET_JSON, CARD, SIZES_JSON, INDEX_JSON)
    found = [name for name in storage.names("") if name in ours or ShardName.parse(name.split(".")[0])]
    if found and load_plan(storage) is None:
        raise PlanError(
            f"{storage.url}: holds {', '.join(found[:3])}, which would be overwritten, but no plan of a data set; "
            "choose an empty OUTPUT"
        )


def extend_plan(
    plan: Plan,
    inputs: Sequence[str],
    configuration: Configuration,
    settings: PlanSettings,
    *,
    trust_inputs: bool = False,
) -> Plan:
    """Add a generation for what `inputs` hold beyond the plan; the plan itself if they hold nothing new.

    Raises PlanError if the configuration is another, or a file that is planned already has changed, unless
    `trust_inputs`.
    """
    check_configuration(plan, configuration)
    limits = [generation.limit for generation in plan.generations if generation.limit is not None]
    if limits or settings.limit is not None:
        limit = limits[0] if limits else settings.limit
        raise PlanError(
            f"{plan.storage.url}: --append and --limit {limit} do not go together, since what a limit leaves out could "
            "not be told from what is planned; choose another OUTPUT for the whole data set"
        )
    known = plan.files_by_input()
    prefixes = {planned.spec: planned.prefix for planned in plan.inputs}
    wanted = []
    specs = [canonical(spec) for spec in inputs]
    for listed in list_inputs(specs, taken=tuple(plan.inputs), allow=configuration.read.allow):
        planned = known.get(listed.spec, {})
        changed = changed_files(listed.root, planned, {file.uri: file for file in listed.files})
        if changed and not trust_inputs:
            raise PlanError(
                f"{listed.spec}: {len(changed)} planned files have changed since, such as {printable(changed[0])}; "
                "restore them, choose another OUTPUT, or go on with --trust-inputs"
            )
        fresh = tuple(file for file in listed.files if file.uri not in planned)
        if fresh:
            prefix = prefixes.get(listed.spec, listed.prefix)
            wanted.append(replace(listed, prefix=prefix, files=fresh))
    if not wanted:
        return plan
    chosen = _commit_generation(plan.storage, plan.generations, wanted, configuration, settings)
    extended = load_plan(plan.storage)
    assert extended is not None
    # where another job's generation was chosen, ours is planned again after it
    if chosen:
        return extended
    return extend_plan(extended, inputs, configuration, settings, trust_inputs=trust_inputs)


def _commit_generation(
    storage: Storage,
    earlier: Sequence[Generation],
    wanted: Sequence[ListedInput],
    configuration: Configuration,
    settings: PlanSettings,
) -> bool:
    """Plan and commit the generation after `earlier`; False if another job's was chosen."""
    number = len(earlier)
    first_unit = sum(generation.num_units for generation in earlier)
    writer = _PlanWriter(storage, number, first_unit)
    try:
        for index, listed in enumerate(wanted):
            writer.add_input(index, listed, configuration, settings)
        files = writer.finish(wanted, configuration, settings)
        return commit(storage, decision_name(number), files)
    finally:
        writer.abandon()


class _PlanWriter:
    """Streams a generation's tables to local files, unit by unit."""

    def __init__(self, storage: Storage, number: int, first_unit: int) -> None:
        self._number = number
        self._first_unit = self._next_unit = first_unit
        self._next_group = 0
        self._left: int | None = None
        self._num_images: int | None = 0
        self._summaries: list[InputSummary | None] = []
        token = scratch_token()
        self._marker = f"{PLAN_DIR}/{decision_name(number)}.json"
        self._marker_path = storage.scratch / f"{attempt_stem(self._marker)}.{token}"
        schemas = {"files": FILES_SCHEMA, "units": UNITS_SCHEMA, "items": ITEMS_SCHEMA}
        self._files = {
            name: HashingFile(storage.scratch / f"{attempt_stem(table_name(name, number))}.{token}") for name in schemas
        }
        self._tables = {
            name: pq.ParquetWriter(pa.PythonFile(self._files[name], mode="w"), schema, compression="zstd")
            for name, schema in schemas.items()
        }

    def add_input(self, index: int, listed: ListedInput, configuration: Configuration, settings: PlanSettings) -> None:
        """Write an input's files, units and items; look at its first samples.

        Raises SourceError where `manual` proposals are wanted and the input can give no boxes.
        """
        rows = [{"input": index, **msgspec.structs.asdict(file)} for file in sampled(listed.root, listed.files)]
        self._tables["files"].write_table(pa.Table.from_pylist(rows, schema=FILES_SCHEMA))
        if self._left is None:
            self._left = settings.limit
        fresh = {file.uri for file in listed.files}
        counted = settings.repack or settings.limit is not None
        source = open_source(listed.spec, listed.kind, allow=configuration.read.allow)
        for parts in read_on(listed.spec, source.parts(settings.shard_size, counted)):
            kept = [part for part in (_restrict(part, fresh) for part in parts) if part is not None]
            kept = self._within_limit(kept)
            if kept:
                if len(self._summaries) == index:
                    self._summaries.append(_summary(listed.spec, source, kept, configuration))
                self._add_unit(index, kept)
            if self._left == 0:
                return

    def _within_limit(self, parts: list[SourcePart]) -> list[SourcePart]:
        if self._left is None:
            return parts
        kept = []
        for part in parts:
            size = (part.stop if part.stop is not None else part.start + self._left) - part.start
            take = min(size, self._left)
            if take:
                items = part.items[:take] if part.items is not None else None
                kept.append(msgspec.structs.replace(part, stop=part.start + take, items=items))
            self._left -= take
        return kept

    def _add_unit(self, index: int, parts: Sequence[SourcePart]) -> None:
        rows = []
        for part in parts:
            row = {"unit": self._next_unit, "input": index, "uri": part.uri, "start": part.start, "stop": part.stop}
            rows.append({**row, "item_group": self._add_items(part.items)})
            size = None if part.stop is None else part.stop - part.start
            self._num_images = None if size is None or self._num_images is None else self._num_images + size
        self._tables["units"].write_table(pa.Table.from_pylist(rows, schema=UNITS_SCHEMA))
        self._next_unit += 1

    def _add_items(self, items: Sequence[ListedItem] | None) -> int | None:
        if items is None:
            return None
        rows = pa.array([msgspec.msgpack.encode(item) for item in items], type=pa.binary())
        self._tables["items"].write_table(pa.Table.from_arrays([rows], schema=ITEMS_SCHEMA), row_group_size=len(items))
        self._next_group += 1
        return self._next_group - 1

    def finish(
        self, wanted: Sequence[ListedInput], configuration: Configuration, settings: PlanSettings
    ) -> dict[str, FinishedFile]:
        """Close the tables and write the generation's JSON; returns the files by final name, the JSON last."""
        files = {}
        for name, table in self._tables.items():
            table.close()
            files[table_name(name, self._number)] = self._files[name].finish()
        generation = Generation(
            schema_version="1",
            fingerprint=configuration.fingerprint(),
            configuration=configuration.as_json(),
            inputs=[_planned(listed, summary) for listed, summary in zip_longest(wanted, self._summaries)],
            shard_size=settings.shard_size,
            repack=settings.repack,
            limit=settings.limit,
            first_unit=self._first_unit,
            num_units=self._next_unit - self._first_unit,
            num_images=self._num_images,
            tables={name: file.digest for name, file in files.items()},
            allow=[as_path(folder) for folder in configuration.read.allow],
            settings=configuration.as_given(),
        )
        marker = HashingFile(self._marker_path)
        marker.write(canonical_json(msgspec.to_builtins(generation)))
        files[self._marker] = marker.finish()
        return files

    def abandon(self) -> None:
        """Close and remove what is left of the local files; harmless after `finish`."""
        for table in self._tables.values():
            table.close()
        for file in self._files.values():
            file.close()
            file.path.unlink(missing_ok=True)
        self._marker_path.unlink(missing_ok=True)


def _restrict(part: SourcePart, fresh: set[str]) -> SourcePart | None:
    """Return the part without samples of files planned earlier; None if nothing is left."""
    if part.items is None:
        return part if part.uri in fresh else None
    items = tuple(item for item in part.items if item.uri in fresh)
    if len(items) == len(part.items):
        return part
    return msgspec.structs.replace(part, items=items, stop=part.start + len(items)) if items else None


def _summary(spec: str, source: Source, first: Sequence[SourcePart], configuration: Configuration) -> InputSummary:
    with input_errors(spec):
        summary = summarise(source, source.describe(), first)
    if first[0].items is not None:
        check_there(spec, summary)
    if configuration.proposer == GIVEN:
        check_boxes(spec, summary)
    return summary


def _planned(listed: ListedInput, summary: InputSummary | None) -> PlannedInput:
    return PlannedInput(
        spec=listed.spec,
        prefix=listed.prefix,
        kind=listed.kind,
        num_files=len(listed.files),
        bytes=sum(file.size for file in listed.files),
        files_sha256=listing_sha256(listed.files),
        summary=summary,
    )
