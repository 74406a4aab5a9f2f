"""The mask of a proposal on its way to the table: through the selection, and between two pools."""

from pathlib import Path

import numpy as np

from pipeline.propose.select import SelectSettings, select
from pipeline.sample import Proposals, RegionCaption, Sample, SourceItem
from pipeline.store.storage import open_storage
from pipeline.write import proposals_file, rows
from schemas.boxes import as_boxes
from schemas.names import ShardName
from tests.builders import decoded_image

PROPOSALS = Proposals(
    boxes=as_boxes([(0, 0, 20, 20), (30, 30, 60, 60), (30, 30, 61, 60), (0, 0, 2, 2), (0, 0, 20, 20)]),
    scores=np.array([0.5, 0.9, 0.8, 0.7, 0.5], dtype=np.float32),
    labels=(None,) * 5,
    masks=("b", "best", "covered", "small", "a"),
)


def _select(proposals: Proposals, **settings: float) -> list[str | None]:
    options = SelectSettings(**settings)  # type: ignore[arg-type]
    return [one.mask for one in select(proposals, options, key="k", width=64, height=64, proposer="p")]


def test_each_proposal_keeps_its_mask_and_equal_ones_are_ranked_by_it() -> None:
    assert _select(PROPOSALS) == ["best", "covered", "small", "a", "b"]


def test_the_proposals_order_does_not_matter() -> None:
    turned = Proposals(
        boxes=PROPOSALS.boxes[::-1],
        scores=PROPOSALS.scores[::-1],
        labels=PROPOSALS.labels,
        masks=(PROPOSALS.masks or ())[::-1],
    )
    assert _select(turned) == _select(PROPOSALS)


def test_those_not_looked_at_have_none() -> None:
    assert _select(PROPOSALS, max_proposals=2) == ["best", "covered", None]


def test_without_masks_there_are_none() -> None:
    bare = Proposals(boxes=PROPOSALS.boxes, scores=PROPOSALS.scores, labels=PROPOSALS.labels)
    assert _select(bare) == [None] * 5


def test_the_table_holds_the_masks() -> None:
    image = decoded_image(np.zeros((64, 64, 3), np.uint8))
    sample = Sample(item=SourceItem(key="k", index=0, uri="k.png", data=None), image=image)
    sample.candidates = select(PROPOSALS, SelectSettings(), key="k", width=64, height=64, proposer="p")
    sample.captions = {region.region_id: RegionCaption(text="a thing") for region in sample.regions}
    shard = ShardName(split="train", index=0)
    table = list(rows.table_rows(sample, shard, proposer="p", captioner="c", tar_range=(0, 1)))
    assert [row.mask_rle for row in table] == [None, "best", "covered", "small", "a", "b"]


def test_masks_pass_between_two_pools(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path))
    bare = Proposals(boxes=PROPOSALS.boxes, scores=PROPOSALS.scores, labels=PROPOSALS.labels)

    def samples(*proposals: Proposals | None) -> list[Sample]:
        items = [SourceItem(key=f"k{index}", index=index, uri="k.png", data=None) for index in range(len(proposals))]
        return [Sample(item=item, proposals=one) for item, one in zip(items, proposals, strict=True)]

    proposals_file.save(storage, 3, samples(PROPOSALS, bare), provenance={})
    masked, unmasked = proposals_file.load(storage, 3).given_to(samples(None, None))
    assert masked.proposals is not None
    assert unmasked.proposals is not None
    assert masked.proposals.masks == PROPOSALS.masks
    assert unmasked.proposals.masks is None
