"""One image on its way through a unit of work: what each step has found out about it."""

from dataclasses import dataclass, field

from pipeline.failures import Failure
from pipeline.images import DecodedImage
from pipeline.propose.base import Proposals
from pipeline.propose.select import Selected
from pipeline.read.base import SourceItem


@dataclass(frozen=True, kw_only=True)
class RegionCaption:
    """What the captioner made of a region: a text, or the failure that stands in its place."""

    text: str = ""
    score: float | None = None
    """Rounded to 1e-4."""
    failure: Failure | None = None


@dataclass(kw_only=True)
class Sample:
    """A source item and what became of it; each step of the flow fills in one field, or `failure`."""

    item: SourceItem
    """Without its bytes once it was decoded."""
    failure: Failure | None = None
    """Why the image is not ok; later steps pass such a sample on untouched."""
    image: DecodedImage | None = None
    proposals: Proposals | None = None
    """None until proposed, and where the proposer failed."""
    selected: list[Selected] = field(default_factory=list)
    """One result a proposal (some stand for several), best first."""
    captions: dict[str, RegionCaption] = field(default_factory=dict)
    """By region id, for the selected regions."""

    @property
    def key(self) -> str:
        """The sample's key."""
        return self.item.key

    @property
    def regions(self) -> list[Selected]:
        """The proposals that became regions, captioned or to be captioned."""
        return [selected for selected in self.selected if selected.failure is None]
