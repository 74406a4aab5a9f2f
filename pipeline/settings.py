"""Settings of a job, in three parts: what decides the output (so it is fingerprinted), how it is cut, how it is run."""

import dataclasses
import re
from dataclasses import dataclass, field
from typing import Any, Literal

from pipeline.backends import check_ranges
from pipeline.caption import captioner_class, captioners
from pipeline.caption.view import ViewSettings, check_asked, check_masks
from pipeline.models.licenses import Licensed
from pipeline.propose import proposer_class, proposers
from pipeline.propose.select import SelectSettings
from pipeline.read.exclusions import GIVEN, ReadSettings
from pipeline.registry import Registry
from schemas.hashes import fingerprint
from schemas.names import SCHEMA_REVISION, SCHEMA_VERSION, TRAIN, VAL


@dataclass(frozen=True, kw_only=True)
class CaptionConfiguration:
    """Everything that decides the captions of given boxes: all that `recaption` has."""

    captioner: str
    """Name of the captioner."""
    caption: Any
    """The captioner's own config dataclass."""
    view: ViewSettings = field(default_factory=ViewSettings)

    def __post_init__(self) -> None:
        check_ranges(self.caption, flag="--caption")
        check_asked(self.view, self.caption)

    def as_json(self) -> dict[str, Any]:
        """Return what is fingerprinted, as JSON values: settings, weights, algorithm and schema versions."""
        return {
            "schema_version": SCHEMA_VERSION,
            "captioner": self.identity("captioner"),
            "view": self.view.as_json(),
        }

    def identity(self, kind: Literal["proposer", "captioner"]) -> dict[str, Any]:
        """Return a model's part of the configuration, its weights by hash or commit."""
        assert kind == "captioner", "boxes are given: there is no proposer"
        return _identity(captioners, self.captioner, self.caption)

    def licenses(self) -> tuple[Licensed, ...]:
        """Return the terms of the models' code and weights."""
        terms: tuple[Licensed, ...] = captioners.load(self.captioner).licenses(self.caption)
        return terms

    def fingerprint(self) -> str:
        """Return the sha256 of the canonical JSON of `as_json`."""
        return fingerprint(self.as_json())


@dataclass(frozen=True, kw_only=True)
class Configuration(CaptionConfiguration):
    """Everything that decides the bytes of the output, given the same input. Not: paths, devices, workers."""

    proposer: str
    """Name of the region proposer."""
    propose: Any
    """The proposer's own config dataclass."""
    read: ReadSettings = field(default_factory=ReadSettings)
    select: SelectSettings = field(default_factory=SelectSettings)
    val_fraction: float = 0.0
    """Share of the keys, chosen by hash, that goes to `val-` shards."""
    drop_empty: bool = False
    """Filter images in which no region is left, as the paper does."""

    def __post_init__(self) -> None:
        if not 0 <= self.val_fraction < 1:
            raise ValueError(f"--val-fraction is {self.val_fraction}, but must be at least 0 and below 1")
        check_ranges(self.propose, flag="--propose")
        check_masks(self.view, given=getattr(self.propose, "masks", False))
        needs_labels = getattr(captioner_class(self.captioner), "needs_labels", False)
        if needs_labels and not getattr(proposer_class(self.proposer), "gives_labels", True):
            raise ValueError(
                f"--captioner {self.captioner} says the label of a region, and --proposer {self.proposer} gives none; "
                "take a proposer that does, such as detr, grounding, yolov9 or manual, or another captioner"
            )
        if getattr(captioner_class(self.captioner), "needs_source", False) and self.proposer != GIVEN:
            raise ValueError(
                f"--captioner {self.captioner} keeps what the source says of its regions: give --proposer {GIVEN}, not "
                f"{self.proposer}, whose regions are its own"
            )
        super().__post_init__()

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that every unit of work is written to."""
        return splits_of(self.val_fraction)

    def as_json(self) -> dict[str, Any]:
        """Return what is fingerprinted, as JSON values: settings, weights, algorithm and schema versions."""
        return {
            "schema_version": SCHEMA_VERSION,
            "schema_revision": SCHEMA_REVISION,
            "proposer": self.identity("proposer"),
            "captioner": self.identity("captioner"),
            "read": self.read.limits(),
            "select": dataclasses.asdict(self.select),
            "view": self.view.as_json(),
            "val_fraction": self.val_fraction,
            "drop_empty": self.drop_empty,
            **self.read.excluded.as_json(proposer=self.proposer),
        }

    def as_given(self) -> dict[str, dict[str, Any]]:
        """Return the models' settings that decide the output as they were given, weights by path or name.

        Not those that do not decide it: the addresses of servers are nobody's business who has the data set.
        """
        given = {"propose": (proposers.load(self.proposer), self.propose)}
        given["caption"] = (captioners.load(self.captioner), self.caption)
        return {
            group: {
                name: value
                for name, value in dataclasses.asdict(config).items()
                if name not in getattr(backend, "not_output", ())
            }
            for group, (backend, config) in given.items()
        }

    def identity(self, kind: Literal["proposer", "captioner"]) -> dict[str, Any]:
        """Return a model's part of the configuration, its weights by hash or commit."""
        if kind == "proposer":
            return _identity(proposers, self.proposer, self.propose)
        return super().identity(kind)

    def licenses(self) -> tuple[Licensed, ...]:
        """Return the terms of the models' code and weights."""
        return (*proposers.load(self.proposer).licenses(self.propose), *super().licenses())


def splits_of(val_fraction: float) -> tuple[str, ...]:
    """Return the splits of a data set that sends `val_fraction` of its keys to `val-` shards."""
    return (TRAIN, VAL) if val_fraction > 0 else (TRAIN,)


def _identity(registry: Registry, name: str, config: Any) -> dict[str, Any]:
    """Return what tells this backend's output from another's; weights are named by hash or commit, not by path."""
    backend, package = registry.load(name), registry.package(name)
    settings = dataclasses.asdict(config) | backend.weights(config)
    identity = {"name": backend.name, "version": backend.version, "settings": settings}
    return identity | ({"package": package} if package else {})


@dataclass(frozen=True, kw_only=True)
class PlanSettings:
    """How inputs are cut into shards."""

    shard_size: int = 1000
    """Images per shard, for sources that are not already tars."""
    repack: bool = False
    """Cut tars into shards of `shard_size` too, instead of one shard per tar."""
    limit: int | None = None
    """Take only the first so many images: the preview to look at before a long job."""

    def __post_init__(self) -> None:
        if self.shard_size < 1:
            raise ValueError(f"--shard-size is {self.shard_size}, but must be at least 1")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"--limit is {self.limit}, but must be at least 1")


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """How a job is run: none of it is in the fingerprint. Of these `torch_threads` alone can change a byte."""

    engine: Literal["beam", "ray"] = "beam"
    """What schedules the work: Beam and its runners, or Ray. The engine's own options stand after `--`."""
    workers: int = 1
    """Worker processes on this machine; on other machines the engine's own options say how many."""
    two_pools: bool = False
    """Propose every shard before any is captioned, as two Beam stages that can run on different machines."""
    propose_accelerator: str | None = None
    """With --two-pools, what Beam's engine is to give the proposing step, such as type:nvidia-l4;count:1."""
    caption_accelerator: str | None = None
    """With --two-pools, the same for the captioning step."""
    decode_threads: int = 2
    """Threads a worker decodes images with, ahead of the models."""
    device: str = "auto"
    """Where the models run: auto (CUDA where there is one), cpu, cuda or cuda:N."""
    torch_threads: int = 1
    """CPU threads of torch in each worker; results depend on it in the last digits, so it does not follow the cores."""
    lease_timeout_s: float = 60.0
    """Seconds after which the shard of a worker that stopped renewing its lease goes to another."""
    stall_timeout_s: float = 3600.0
    """Seconds without a finished image, a shard or a line of the log, once work has begun, after which the run ends."""
    metrics_port: int | None = None
    """Port at which Prometheus can read how far the job is; off by default."""
    max_dead: float = 0.01
    """Share of dead images or regions above which the job ends with exit code 1."""
    permissive_only: bool = False
    """Refuse, before any work, models and code under licences that restrict their users (docs/models.md)."""
    trust_inputs: bool = False
    """Go on where INPUT's files have changed or gone since they were planned; what is finished stays as it is."""
    allow_new_answers: bool = False
    """Go on where a model gives different golden answers than before with the same weights."""

    def __post_init__(self) -> None:
        for flag, value, least in (
            ("--workers", self.workers, 1),
            ("--decode-threads", self.decode_threads, 1),
            ("--torch-threads", self.torch_threads, 1),
            ("--lease-timeout-s", self.lease_timeout_s, 1),
            ("--stall-timeout-s", self.stall_timeout_s, 1),
        ):
            if value < least:
                raise ValueError(f"{flag} is {value}, but must be at least {least}")
        if (self.propose_accelerator or self.caption_accelerator) and (not self.two_pools or self.engine != "beam"):
            raise ValueError(
                "--propose-accelerator and --caption-accelerator are of the two steps of --two-pools on Beam; for one "
                "pool give the engine's own option after --, such as Dataflow's worker_accelerator or Ray's --num-gpus"
            )
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            raise ValueError(f"--device is {self.device!r}; known: auto, cpu, cuda, cuda:N")
        if self.metrics_port is not None and not 0 < self.metrics_port < 65536:
            raise ValueError(f"--metrics-port is {self.metrics_port}, but must be between 1 and 65535")
        if not 0 <= self.max_dead <= 1:
            raise ValueError(f"--max-dead is {self.max_dead}, but must be between 0 and 1")
