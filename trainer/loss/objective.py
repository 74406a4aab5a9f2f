"""What a method compares, and its losses. `methods.py` has a class a method, `official.py` that of the official code.

    gathered = objective.gather(pairs, counts)           what all processes hold, by one collective
    losses = objective.losses(gathered, ...)             weighted and summed, to call `backward()` on

loss = global_weight * global + region_weight * region + distill_weight * distill        (the paper's: 1, gamma, lambda)
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from trainer.hyperparameters import LossSettings
from trainer.loss.gather import gather_ids, gather_rows, rank
from trainer.loss.losses import duplicate_rate


class Counts(NamedTuple):
    """How much of a step's batch a process holds."""

    captioned: int
    """Images with a caption."""
    regions: int
    images: int


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """This process's normalised features: c captioned of B images, n regions, with what says which are alike."""

    image: Tensor
    """`[c, D]`."""
    image_text: Tensor | None
    """`[c, D]`; None where images are not compared."""
    image_text_ids: Tensor
    """`[c]` int64, equal for equal texts."""
    roi: Tensor | None
    """`[n, D]`; None where no loss looks at regions."""
    region_text: Tensor | None
    """`[n, D]`; None where regions are not compared with their captions."""
    region_text_ids: Tensor
    """`[n]` int64."""
    crop: Tensor | None
    """`[n, D]`; None where nothing is distilled."""
    region_image_index: Tensor
    """`[n]` int64: which of the B images each region is of."""
    labels: Tensor | None
    """`[n]` int64: the region's concept, for RegionCLIP."""
    negative_text: Tensor | None = None
    """`[h, D]`: hard negatives of regions; None where regions are not compared with them."""
    negative_owner: Tensor | None = None
    """`[h]` int64: which of the n regions each is of."""


class Matches(NamedTuple):
    """N images (or regions) of all processes and their texts."""

    features: Tensor
    """`[N, D]`."""
    text_features: Tensor
    """`[N, D]`."""
    text_ids: Tensor
    """`[N]` int64, equal for equal texts."""
    rows: slice
    """Which of the N are this process's."""


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """What all processes hold, as far as the method compares it."""

    mine: Pairs
    counts: Sequence[Counts]
    """Of each process, in rank order."""
    images: Matches | None
    regions: Matches | None

    @property
    def region_counts(self) -> list[int]:
        """Regions of each process."""
        return [count.regions for count in self.counts]


class Losses(NamedTuple):
    """This process's part of each loss; the processes' parts add up to the loss of the joined batch."""

    global_loss: Tensor | None
    region_loss: Tensor | None
    distill_loss: Tensor | None
    hard_negative_loss: Tensor | None
    loss: Tensor
    """The weighted sum, to call `backward()` on."""
    num_duplicates: int
    """Texts of the joined batch that another of its pairs has too."""
    num_texts: int

    def detached(self) -> "Losses":
        """Return the same values, without the graph that made them."""
        return Losses(*(value.detach() if isinstance(value, Tensor) else value for value in self))  # type: ignore[arg-type]


Term = Callable[[Gathered, Tensor, int], Tensor]
"""A loss: from what was gathered, the temperature's multiplier and the step's seed to a scalar."""


class Objective(ABC):
    """A method, for any number of processes. All must call it, each step, with pairs or without."""

    def __init__(self, settings: LossSettings) -> None:
        """Leave out the terms whose weight is 0."""
        self.settings = settings
        weights = {"global": settings.global_weight, "region": settings.region_weight}
        weights |= {"distill": settings.distill_weight, "hard_negative": settings.hard_negative_weight}
        self._terms = {name: (weights[name], term) for name, term in self.terms().items() if weights[name]}

    @abstractmethod
    def terms(self) -> Mapping[str, Term]:
        """Return the method's losses by name, in the order `global`, `region`, `distill`, `hard_negative`."""

    @property
    def compares_images(self) -> bool:
        """Whether images are compared with their captions."""
        return "global" in self._terms

    @property
    def compares_regions(self) -> bool:
        """Whether regions are compared with their captions."""
        return "region" in self._terms

    @property
    def distills(self) -> bool:
        """Whether regions' crops are looked at."""
        return "distill" in self._terms

    @property
    def uses_negatives(self) -> bool:
        """Whether regions are compared with hard negatives."""
        return "hard_negative" in self._terms

    @property
    def uses_regions(self) -> bool:
        """Whether any loss looks at regions."""
        return "region" in self._terms or "distill" in self._terms

    def sent(self, features: Tensor) -> Tensor:
        """Return features as other processes, and this one's own comparisons, get them."""
        return features

    def gather(self, pairs: Pairs, counts: Sequence[Counts]) -> Gathered:
        """Join the features that are compared with texts. `counts` are those of each process, in rank order."""
        kinds: list[tuple[Tensor, Tensor, Tensor, list[int]]] = []
        if self.compares_images:
            assert pairs.image_text is not None
            kinds.append((pairs.image, pairs.image_text, pairs.image_text_ids, [c.captioned for c in counts]))
        if self.compares_regions:
            assert pairs.roi is not None and pairs.region_text is not None
            kinds.append((pairs.roi, pairs.region_text, pairs.region_text_ids, [c.regions for c in counts]))
        sent = [self.sent(tensor) for features, texts, _, _ in kinds for tensor in (features, texts)]
        rows = list(zip(*(of_kind for *_, of_kind in kinds for _ in range(2)), strict=True))
        joined = gather_rows(sent, rows) if kinds else []
        matches = [
            Matches(features, texts, gather_ids(ids, of_kind), own_rows(of_kind))
            for features, texts, (_, _, ids, of_kind) in zip(joined[::2], joined[1::2], kinds, strict=True)
        ]
        images = matches.pop(0) if self.compares_images else None
        return Gathered(mine=pairs, counts=counts, images=images, regions=matches[0] if matches else None)

    def losses(self, gathered: Gathered, *, logit_scale: Tensor, seed: int) -> Losses:
        """Return the losses of all processes' pairs together.

        `logit_scale` is the parameter (a logarithm); `seed`, equal in all processes, samples concepts.
        """
        multiplier = logit_scale.exp()
        found = {name: term(gathered, multiplier, seed) for name, (_, term) in self._terms.items()}
        weighted = torch.stack([self._terms[name][0] * value for name, value in found.items()]).sum()
        # 0, from all features that have a gradient: every process then runs the same backward pass.
        mine = gathered.mine
        features = (mine.image, mine.image_text, mine.roi, mine.region_text, mine.crop, mine.negative_text)
        anchor = 0.0 * torch.stack([tensor.sum() for tensor in features if tensor is not None]).sum()
        rates = [duplicate_rate(match.text_ids) for match in (gathered.images, gathered.regions) if match is not None]
        return Losses(
            global_loss=found.get("global"),
            region_loss=found.get("region"),
            distill_loss=found.get("distill"),
            hard_negative_loss=found.get("hard_negative"),
            loss=weighted + anchor,
            num_duplicates=sum(duplicates for duplicates, _ in rates),
            num_texts=sum(texts for _, texts in rates),
        )


def own_rows(counts: Sequence[int]) -> slice:
    """Return where this process's rows stand among the joined ones, of which each process has so many."""
    first = sum(counts[: rank()])
    return slice(first, first + counts[rank()])
