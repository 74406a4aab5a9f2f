"""Proposals that must be the same whatever an image is proposed with."""

from collections.abc import Sequence

import numpy as np

from pipeline.propose.pretrained import PretrainedProposer
from pipeline.sample import DecodedImage, Drop, Proposals


def proposals_of(found: Proposals | Drop) -> Proposals:
    assert isinstance(found, Proposals), found
    return found


def assert_alike(one: Proposals | Drop, other: Proposals | Drop) -> None:
    one, other = proposals_of(one), proposals_of(other)
    np.testing.assert_allclose(one.boxes, other.boxes, atol=0.1)
    np.testing.assert_allclose(one.scores, other.scores, atol=1e-4)
    assert one.labels == other.labels


def assert_batch_mates_change_nothing(proposer: PretrainedProposer, images: Sequence[DecodedImage]) -> None:
    """Each of the images, which must give different proposals, gives the same alone, among the others, and in another
    order.
    """
    together = proposer.propose(images)
    reversed_order = proposer.propose(images[::-1])[::-1]
    distinct = {proposals_of(found).scores.tobytes() + proposals_of(found).boxes.tobytes() for found in together}
    assert len(distinct) == len(images)  # or this could not fail
    for image, among, otherwise in zip(images, together, reversed_order, strict=True):
        assert_alike(proposer.propose([image])[0], among)
        assert_alike(otherwise, among)
