"""Probing: annotate the first images of the inputs here, with the job's own models, and extrapolate to the whole plan.

    first N images --plan--> about nine units in a temporary OUTPUT --annotate one by one--> MeasuredUnit
    the first unit warms the models up and is not counted          the others --forecast--> Forecast

The interval rests on how much the units differ among themselves. It knows nothing of images that are unlike the first.
"""

import math
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.annotate import Annotator
from pipeline.plan.make import make_plan
from pipeline.plan.plan import Plan, PlannedInput
from pipeline.read import open_source
from pipeline.read.base import SourceError
from pipeline.run.worker import load_annotator
from pipeline.settings import Configuration, PlanSettings, RunSettings
from pipeline.store.storage import open_storage, storage_errors
from pipeline.write.shards import shards_of

_UNITS = 9
"""Units that a probe is cut into, about: one to warm up and eight to measure."""
_LEAST = 3
"""Images: one to warm up, and two units of one image, without which there is no spread."""
_COMMIT = "commit"
"""The stage whose time goes by the shard, not by the image."""


@dataclass(frozen=True, kw_only=True)
class ProbeSettings:
    """Whether `plan` also measures what the job would take, and at what price."""

    probe: int | None = None
    """Annotate the first so many images here, with these models, and extrapolate to the whole job."""
    price_per_hour: float | None = None
    """What an hour of this machine costs, in your currency: the probe then tells what the job would."""

    def __post_init__(self) -> None:
        if self.probe is not None and self.probe < _LEAST:
            raise ValueError(
                f"--probe is {self.probe}, but must be at least {_LEAST}: one image warms the models up, and an "
                "interval needs two more (64 or more tell something)"
            )
        if self.price_per_hour is not None and self.probe is None:
            raise ValueError("--price-per-hour prices what a probe measured: give --probe N too")
        if self.price_per_hour is not None and not 0 <= self.price_per_hour < math.inf:
            raise ValueError(f"--price-per-hour is {self.price_per_hour}, but must be a number of at least 0")


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate with the 95 % interval about it."""

    value: float
    low: float
    high: float

    def times(self, factor: float, *, plus: float = 0.0) -> "Interval":
        """Return the estimate of `factor` times the quantity, `plus` a constant that is taken as known."""
        return Interval(value=self.value * factor + plus, low=self.low * factor + plus, high=self.high * factor + plus)


@dataclass(frozen=True, kw_only=True)
class MeasuredUnit:
    """What one unit of the probe came to."""

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
    regions: Interval
    captions: Interval
    num_bytes: Interval
    seconds: Interval
    per_image_s: Interval
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
    """Annotate the first `num_images` images of the plan's inputs into a temporary OUTPUT, and measure.

    `watch` is called with the images done and planned. Where the inputs hold fewer, all are probed. Raises SourceError
    where they hold too few to measure, WorkError where the models cannot be loaded or fail on everything, and
    StorageError where the folder for temporary files cannot be written.
    """
    wanted = num_images if plan.num_images is None else min(num_images, plan.num_images)
    with tempfile.TemporaryDirectory(prefix="fineclip-probe-") as folder, storage_errors(folder):
        planned = _plan_probe(plan, configuration, wanted, Path(folder))
        started = time.perf_counter()
        annotator = load_annotator(planned, configuration, run)
        load_s = time.perf_counter() - started
        return Measurement(
            units=tuple(_measure(annotator, watch))[1:],
            load_s=load_s,
            batch_size=configuration.caption.batch_size,
            uses_gpu=_uses_gpu(),
            inputs=_probed_inputs(planned),
        )


def _plan_probe(plan: Plan, configuration: Configuration, num_images: int, folder: Path) -> Plan:
    """Plan the probe; again, in smaller units, where the inputs turn out to hold fewer images than were wanted."""
    inputs = list(dict.fromkeys(planned.spec for planned in plan.inputs))
    if num_images < _LEAST:
        raise SourceError(
            f"{', '.join(inputs)}: {num_images} images are too few for a probe, which needs {_LEAST}; leave --probe out"
        )
    settings = PlanSettings(limit=num_images, shard_size=max(1, round(num_images / _UNITS)))
    planned = make_plan(open_storage(str(folder / f"{num_images}")), inputs, configuration, settings)
    assert planned.num_images is not None  # a limit has tars walked
    return planned if planned.num_images == num_images else _plan_probe(plan, configuration, planned.num_images, folder)


def _measure(annotator: Annotator, watch: Callable[[int, int], None]) -> Iterator[MeasuredUnit]:
    plan = annotator.plan
    assert plan.num_images is not None
    done = 0
    for unit in range(plan.num_units):
        started = time.perf_counter()
        report = annotator.annotate(unit)
        wall_s = time.perf_counter() - started
        done += report.images.inputs
        watch(done, plan.num_images)
        yield MeasuredUnit(
            images=report.images.inputs,
            regions=report.regions.inputs - report.regions.num_filtered,
            captions=report.regions.ok,
            dead=report.images.num_dead + report.regions.num_dead,
            num_bytes=_bytes_of(plan, annotator.configuration, unit),
            wall_s=wall_s,
            seconds=dict(report.seconds),
        )


def _bytes_of(plan: Plan, configuration: Configuration, unit: int) -> int:
    names = [
        name for shard in shards_of(unit, configuration).values() for name in (shard.tar, shard.parquet, shard.marker)
    ]
    return sum(plan.storage.size(name) or 0 for name in names)


def _uses_gpu() -> bool:
    """Return whether this process has put anything on a CUDA device: what `auto` came to, not what was asked for."""
    torch = sys.modules.get("torch")
    return torch is not None and bool(torch.cuda.is_initialized())


def _probed_inputs(plan: Plan) -> tuple[str, ...]:
    parts = (part for unit in range(plan.num_units) for part in plan.unit(unit))
    return tuple(dict.fromkeys(part.spec for part in parts))


def workload(plan: Plan, todo: Sequence[int]) -> Workload:
    """Return what the units `todo` of a plan hold; estimated by their share where not all are left.

    Where planning did not count the samples of tars, the first tar of an input is walked, and the others are taken to
    hold as many images a byte.
    """
    share = len(todo) / plan.num_units if plan.num_units else 0.0
    images = plan.num_images if plan.num_images is not None else _estimate_images(plan)
    return Workload(
        images=round(images * share),
        is_estimated=plan.num_images is None or share < 1,
        units=len(todo),
        shards=len(todo) * len(plan.splits),
    )


def _estimate_images(plan: Plan) -> int:
    sizes: dict[str, dict[str, int]] = {}
    for planned, file in plan.files():
        sizes.setdefault(planned.spec, {})[file.uri] = file.size
    inputs = {planned.spec: planned for planned in plan.inputs}
    return round(sum(_images_of(planned, sizes[spec], plan.shard_size) for spec, planned in inputs.items()))


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


def rate(amounts: Sequence[float], images: Sequence[int]) -> Interval:
    """Return `amounts` an image over at least two units, with the interval that Student's t gives from their spread.

    A ratio estimate: units of equal size give the plain interval of the mean of their own rates.
    """
    from scipy.stats import t  # type: ignore[import-untyped]  # takes half a second

    count, total = len(images), sum(images)
    ratio = sum(amounts) / total
    squares = sum((amount - ratio * number) ** 2 for amount, number in zip(amounts, images, strict=True))
    error = math.sqrt(squares / (count * (count - 1))) / (total / count)
    half = float(t.ppf(0.975, count - 1)) * error
    return Interval(value=ratio, low=max(0.0, ratio - half), high=ratio + half)


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
