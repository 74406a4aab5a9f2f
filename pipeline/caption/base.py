"""What a captioner is: crops in, sentences out. One backend a file, one class, one config, one line in `CAPTIONERS`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from pipeline.backends import Backend, BackendBase
from pipeline.sample import Caption, Crop, Drop


class Captioner(Backend, Protocol):
    """Describes regions, a batch of crops a call.

    `caption` is pure: the same crop and prompt give the same caption, alone or among any others. A captioner that
    knows which crop went wrong returns a `Drop` in that crop's place; an exception is one of the whole batch, which
    is bisected for its cause; a WorkError stops the run.
    """

    prompt: str | None
    """What the model is asked about each crop; None where it is asked nothing."""

    def caption(self, crops: Sequence[Crop], prompts: Sequence[str | None]) -> Sequence[Caption | Drop]:
        """Return the caption of each crop, or why it has none, in order."""


@dataclass(frozen=True, kw_only=True)
class Watched:
    """Settings of all captioners that are models."""

    allow_constant: bool = False
    """Go on where the answer is the same whatever the picture, as that of a model is which sees none."""


class CaptionerBase(BackendBase):
    """What most captioners do alike."""

    prompt: str | None = None

    def provenance(self) -> dict[str, Any]:
        """Return a backend's provenance, with the prompt."""
        return super().provenance() | {"prompt": self.prompt}


@runtime_checkable
class PreparingCaptioner(Captioner, Protocol):
    """A captioner whose CPU part can run ahead of the model: `caption(...)` is `generate(prepare(...))`.

    One with `runs_elsewhere` set is prepared ahead on every machine: its model wants no CPU here.
    """

    def prepare(self, crops: Sequence[Crop], prompts: Sequence[str | None]) -> Any:
        """Return the model's inputs: resized, tokenised, padded to a fixed shape, pinned.

        Called on another thread; keeps no state.
        """

    def generate(self, prepared: Any) -> Sequence[Caption | Drop]:
        """Run the model on what `prepare` returned."""


@runtime_checkable
class UnevenCaptioner(Captioner, Protocol):
    """A captioner to whom some crops are more work than others: its batches are filled by places, not by number."""

    def places(self, crop: Crop) -> float:
        """Return how many of the `batch_size` places of a batch the crop takes, at least 1."""


@runtime_checkable
class RestartingCaptioner(Captioner, Protocol):
    """A captioner whose model runs in a process of its own, which may die and is started again."""

    def new_restarts(self) -> int:
        """Return how many times that happened since this was last asked."""
