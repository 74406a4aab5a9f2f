"""How a training is carried out, and how it ended; the run itself is `loop.py`. Nothing here imports torch."""

from dataclasses import dataclass, field

from trainer.cores import default_workers
from trainer.ranges import check_at_least, check_shares


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """How any training is carried out; its result does not depend on it, but for rounding."""

    workers: int = field(default_factory=lambda: default_workers(4))
    """Processes that decode images, for each training process; unless given one a core, 4 at most."""
    log_every: int = 10
    """Steps between lines of metrics.jsonl."""
    checkpoint_every: int = 500
    """Steps between checkpoints; the end is one too, and that of an epoch where there are epochs."""
    stop_after: int | None = None
    """Stop after this many steps in all, with a checkpoint and exit code 0; without it the same command goes on."""
    max_skipped: float = 0.01
    """Largest share of images that may be unusable; more than that, and more than 10, stops the run."""
    device: str = "auto"
    """`auto` (CUDA where there is one, else the CPU), `cpu` or `cuda`."""
    threads: int | None = None
    """CPU threads of torch; None takes the cores that the workers leave, one at least. Bits depend on it."""

    def __post_init__(self) -> None:
        """Check the ranges. Raises ValueError."""
        check_at_least(self, 0, ["workers"])
        check_at_least(self, 1, ["log_every", "checkpoint_every", "stop_after", "threads"])
        check_shares(self, ["max_skipped"])


@dataclass(frozen=True, kw_only=True)
class TrainSettings(RunSettings):
    """How `fineclip train` is carried out."""

    micro_batch_size: int | None = None
    """Images embedded at a time on a device; larger batches are embedded in pieces (GradCache). None embeds all."""
    eval_every: int | None = None
    """Steps between evaluations; the start and the end are evaluated too. None does not evaluate."""
    eval_data: str | None = None
    """Data set to evaluate on; None takes the val shards of the training data."""
    text_cache: str | None = None
    """Folder of text features; None takes RUN/text_cache. Share it among runs from the same text tower."""
    compile: bool = False
    """Compile the towers' blocks: slow first steps, faster ones after."""
    tensorboard: bool = False
    """Write TensorBoard's files to RUN/tensorboard too."""

    def __post_init__(self) -> None:
        """Check the ranges. Raises ValueError."""
        super().__post_init__()
        check_at_least(self, 1, ["eval_every", "micro_batch_size"])


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """How a run ended."""

    step: int
    num_steps: int
    metrics: dict[str, float] = field(default_factory=dict)
    """Of the last evaluation."""

    @property
    def finished(self) -> bool:
        """Whether all steps are done."""
        return self.step == self.num_steps
