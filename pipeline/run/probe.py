"""Probing: annotate some images of the inputs here, with the job's own models, and extrapolate to the whole plan.

    N images in nine stretches throughout the plan --annotate one by one, in a temporary OUTPUT--> MeasuredUnit
    the first stretch warms the models up and is not counted           the others --forecast--> Forecast

The range is that of the stretches: the lowest and the highest rate seen among them, about their median.
"""

import math
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import msgspec

from pipeline.annotate import Annotator
from pipeline.plan.plan import Plan, PlannedInput
from pipeline.read import open_source
from pipeline.read.base import SourceError, UnitPart
from pipeline.run.worker import load_annotator
from pipeline.settings import Configuration, RunSettings
from pipeline.store.storage import open_storage, storage_errors
from pipeline.write.shards import shards_of

_STRETCHES = 9
"""One to warm up and eight to measure, or fewer where there are few images."""
_LEAST = 3
"""Images: one to warm up, and two stretches of one image, without which there is no range."""
_COMMIT = "commit"
"""The stage whose time goes by the shard, not by the image."""


@dataclass(frozen=True, kw_only=True)
class ProbeSettings:
    """Whether `plan` also measures what the job would take, and at what price."""

    probe: int | None = None
    """Annotate so many images here, from all over the inputs, with these models, and extrapolate to the whole job."""
    price_per_hour: float | None = None
    """What an hour of this machine costs, in your currency: the probe then tells what the job would."""

    def __post_init__(self) -> None:
        if self.probe is not None and self.probe < _LEAST:
            raise ValueError(
                f"--probe is {self.probe}, but must be at least {_LEAST}: one image warms the models up, and a "
                "range needs two more (64 or more tell something)"
            )
        if self.price_per_hour is not None and self.probe is None:
            raise ValueError("--price-per-hour prices what a probe measured: give --probe N too")
        if self.price_per_hour is not None and not 0 <= self.price_per_hour < math.inf:
            raise ValueError(f"--price-per-hour is {self.price_per_hour}, but must be a number of at least 0")


@dataclass(frozen=True, kw_only=True)
class Range:
    """An estimate, the median of the stretches, between the lowest and the highest of them."""

    value: float
    low: float
    high: float

    def times(self, factor: float, *, plus: float = 0.0) -> "Range":
        """Return the estimate of `factor` times the quantity, `plus` a constant that is taken as known."""
        return Range(value=self.value * factor + plus, low=self.low * factor + plus, high=self.high * factor + plus)


@dataclass(frozen=True, kw_only=True)
class MeasuredUnit:
    """What one stretch of the probe came to, a unit of its own."""

    images: int
    """That came in, those that failed included."""
    regions: int
    """That were selected, captioned or not."""
    captions: int
    dead: int
    """Images and regions that failed."""
    num_bytes: int
    """Of its shards: tar, table and marker."""
    wall_s: float
    seconds: dict[str, float]
    """Of `wall_s`, by stage of the flow."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What is left to do of a plan."""

    images: int
    is_estimated: bool
    """Whether `images` was estimated: tars are not walked by planning, and shards differ in size."""
    units: int
    shards: int


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """A probe, before anything is extrapolated from it."""

    units: tuple[MeasuredUnit, ...]
    """Without the one that warmed the models up."""
    load_s: float
    """Seconds to load the models and to check them."""
    batch_size: int
    """Crops of a whole batch of the captioner."""
    uses_gpu: bool
    inputs: tuple[str, ...]
    """The INPUTs that the probed images come from."""

    @property
    def images(self) -> int:
        """Images that were measured."""
        return sum(unit.images for unit in self.units)


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What the work would take, on one worker process of this machine."""

    work: Workload
    regions: Range
    captions: Range
    num_bytes: Range
    seconds: Range
    per_image_s: Range
    """Seconds an image, its share of the commits left out."""
    shares: tuple[tuple[str, float], ...]
    """Share of the predicted time, 0 to 1, by stage, largest first: the first is the bottleneck."""
    dead_fraction: float
    """Failures in the probe, as a share of its images and regions."""


def probe(
    plan: Plan,
    configuration: Configuration,
    run: RunSettings,
    *,
    num_images: int,
    watch: Callable[[int, int], None] = lambda done, planned: None,
) -> Measurement:
    """Annotate `num_images` images from throughout the plan into a temporary OUTPUT, and measure.

    `watch` is called with the images done and planned. Where the inputs hold fewer, all are probed. Raises SourceError
    where they hold too few to measure, WorkError where the models cannot be loaded or fail on everything, and
    StorageError where the folder for temporary files cannot be written.
    """
    stretches = _stretches(plan, num_images)
    with tempfile.TemporaryDirectory(prefix="fineclip-probe-") as folder, storage_errors(folder):
        planned = _Sampled(storage=open_storage(folder), generations=plan.generations, stretches=stretches)
        started = time.perf_counter()
        annotator = load_annotator(planned, configuration, run)
        load_s = time.perf_counter() - started
        units = tuple(_measured(annotator, len(stretches), num_images, watch))[1:]
        torch = sys.modules.get("torch")
        return Measurement(
            units=units,
            load_s=load_s,
            batch_size=configuration.caption.batch_size,
            # what `auto` came to, not what was asked for
            uses_gpu=torch is not None and bool(torch.cuda.is_initialized()),
            inputs=tuple(dict.fromkeys(part.spec for stretch in stretches for part in stretch)),
        )


@dataclass(frozen=True, kw_only=True)
class _Sampled(Plan):
    """A plan whose units are stretches of another's, with an OUTPUT of its own."""

    stretches: tuple[tuple[UnitPart, ...], ...]

    def unit(self, unit: int) -> list[UnitPart]:
        """Return a stretch."""
        return list(self.stretches[unit])


def _stretches(plan: Plan, num_images: int) -> tuple[tuple[UnitPart, ...], ...]:
    """Return up to nine stretches of samples, `num_images` together, spread evenly over the plan's units.

    Where many tars were not counted, a stretch is the beginning of one. Raises SourceError where there are too few.
    """
    if plan.num_images is None and plan.num_units > _STRETCHES:
        count = min(_STRETCHES, num_images)
        sizes = [num_images // count + (number < num_images % count) for number in range(count)]
        units = [plan.unit(number * plan.num_units // count) for number in range(count)]
        return tuple(tuple(_first_samples(unit, size)) for unit, size in zip(units, sizes, strict=True))
    parts = [part for unit in range(plan.num_units) for part in plan.unit(unit)]
    if plan.num_images is None:
        parts = [
            UnitPart(spec=planned.spec, kind=planned.kind, prefix=planned.prefix, part=part)
            for planned in plan.inputs
            for shard in open_source(planned.spec, planned.kind).parts(plan.shard_size, True)  # walks the tars
            for part in shard
        ]
    total = sum(part.part.stop - part.part.start for part in parts if part.part.stop is not None)
    wanted = min(num_images, total)
    if wanted < _LEAST:
        inputs = ", ".join(dict.fromkeys(planned.spec for planned in plan.inputs))
        raise SourceError(f"{inputs}: {total} images are too few for a probe, which needs {_LEAST}; leave --probe out")
    count = min(_STRETCHES, wanted)
    sizes = [wanted // count + (number < wanted % count) for number in range(count)]
    starts = [number * (total - wanted) // (count - 1) + sum(sizes[:number]) for number in range(count)]
    return tuple(tuple(_samples(parts, start, size)) for start, size in zip(starts, sizes, strict=True))


def _samples(parts: Sequence[UnitPart], start: int, size: int) -> Iterator[UnitPart]:
    """Yield the ranges that hold the `size` samples from the `start`th of counted parts on."""
    for part in parts:
        assert part.part.stop is not None
        length = part.part.stop - part.part.start
        if start < length and size > 0:
            taken = min(size, length - start)
            yield _range_of(part, start, taken)
            size -= taken
        start = max(0, start - length)


def _first_samples(unit: Sequence[UnitPart], size: int) -> Iterator[UnitPart]:
    for part in unit:
        if size <= 0:
            return
        length = size if part.part.stop is None else part.part.stop - part.part.start
        yield _range_of(part, 0, min(size, length))
        size -= length


def _range_of(part: UnitPart, start: int, size: int) -> UnitPart:
    """Return `size` samples of a part, from its `start`th on."""
    items = None if part.part.items is None else part.part.items[start : start + size]
    first = part.part.start + start
    cut = msgspec.structs.replace(part.part, start=first, stop=first + size, items=items)
    return msgspec.structs.replace(part, part=cut)


def _measured(
    annotator: Annotator, count: int, num_images: int, watch: Callable[[int, int], None]
) -> Iterator[MeasuredUnit]:
    done = 0
    for unit in range(count):
        started = time.perf_counter()
        report = annotator.annotate(unit)
        wall_s = time.perf_counter() - started
        done += report.images.inputs
        watch(done, num_images)
        shards = shards_of(unit, annotator.configuration).values()
        files = [name for shard in shards for name in (shard.tar, shard.parquet, shard.marker)]
        if report.images.inputs == 0:
            continue
        yield MeasuredUnit(
            images=report.images.inputs,
            regions=report.regions.inputs - report.regions.num_filtered,
            captions=report.regions.ok,
            dead=report.images.num_dead + report.regions.num_dead,
            num_bytes=sum(annotator.plan.storage.size(name) or 0 for name in files),
            wall_s=wall_s,
            seconds=dict(report.seconds),
        )


def workload(plan: Plan, todo: Sequence[int]) -> Workload:
    """Return what the units `todo` of a plan hold; estimated by their share where not all are left.

    Where planning did not count the samples of tars, the first tar of an input is walked, and the others are taken to
    hold as many images a byte.
    """
    share = len(todo) / plan.num_units if plan.num_units else 0.0
    images: float
    if plan.num_images is not None:
        images = plan.num_images
    else:
        sizes: dict[str, dict[str, int]] = {}
        for planned, file in plan.files():
            sizes.setdefault(planned.spec, {})[file.uri] = file.size
        inputs = {planned.spec: planned for planned in plan.inputs}
        images = sum(_images_of(planned, sizes[spec], plan.shard_size) for spec, planned in inputs.items())
    return Workload(
        images=round(images * share),
        is_estimated=plan.num_images is None or share < 1,
        units=len(todo),
        shards=len(todo) * len(plan.splits),
    )


def _images_of(planned: PlannedInput, sizes: dict[str, int], shard_size: int) -> float:
    """Return the images of an input: counted where its source tells, by bytes for the rest."""
    source = open_source(planned.spec, planned.kind)
    known, unknown_bytes = 0, 0
    for part in (part for parts in source.parts(shard_size, False) for part in parts if part.uri in {"", *sizes}):
        if part.stop is None:
            unknown_bytes += sizes[part.uri]
        else:
            known += part.stop - part.start
    return known + (unknown_bytes * _images_per_byte(planned, sizes) if unknown_bytes else 0.0)


def _images_per_byte(planned: PlannedInput, sizes: dict[str, int]) -> float:
    """Return the images a byte of the input's first tar that holds any."""
    first, count = None, 0
    for parts in open_source(planned.spec, planned.kind).parts(1, True):  # lazily: one sample of one tar at a time
        if first is not None and parts[0].uri != first:
            break
        first, count = parts[0].uri, count + 1
    return 0.0 if first is None else count / max(sizes[first], 1)


def forecast(measured: Measurement, work: Workload) -> Forecast:
    """Extrapolate a probe to `work`: all by the image, but the commits by the unit, and loading once."""
    units = measured.units
    images = [unit.images for unit in units]
    commit_s = sum(unit.seconds.get(_COMMIT, 0.0) for unit in units) / len(units) * work.units
    per_image_s = rate([unit.wall_s - unit.seconds.get(_COMMIT, 0.0) for unit in units], images)
    items = sum(unit.images + unit.regions for unit in units)
    return Forecast(
        work=work,
        regions=rate([unit.regions for unit in units], images).times(work.images),
        captions=rate([unit.captions for unit in units], images).times(work.images),
        num_bytes=rate([unit.num_bytes for unit in units], images).times(work.images),
        seconds=per_image_s.times(work.images, plus=commit_s + measured.load_s),
        per_image_s=per_image_s,
        shares=_shares(measured, work, commit_s),
        dead_fraction=sum(unit.dead for unit in units) / items if items else 0.0,
    )


def rate(amounts: Sequence[float], images: Sequence[int]) -> Range:
    """Return `amounts` per image: the median of the stretches' own rates, and the lowest and highest of them."""
    rates = [amount / number for amount, number in zip(amounts, images, strict=True)]
    return Range(value=statistics.median(rates), low=min(rates), high=max(rates))


def _shares(measured: Measurement, work: Workload, commit_s: float) -> tuple[tuple[str, float], ...]:
    """Return the stages' shares of the predicted time; what no stage accounts for is `other`."""
    by_stage: defaultdict[str, float] = defaultdict(float)
    for unit in measured.units:
        for stage, seconds in unit.seconds.items():
            by_stage[stage] += seconds
        by_stage["other"] += max(0.0, unit.wall_s - sum(unit.seconds.values()))
    scale = work.images / measured.images
    predicted = {stage: seconds * scale for stage, seconds in by_stage.items()} | {_COMMIT: commit_s}
    total = sum(predicted.values())
    shares = ((stage, seconds / total if total else 0.0) for stage, seconds in predicted.items())
    return tuple(sorted(shares, key=lambda pair: (-pair[1], pair[0])))
