"""The losses against numbers worked out by hand, all in float64."""

import math

import pytest
import torch
from torch import Tensor

from trainer.loss.losses import (
    concept_loss,
    contrastive_loss,
    distill_loss,
    duplicate_rate,
    hard_negative_loss,
    sample_concepts,
)
from trainer.loss.official import mean_of_means, scale_gradient

EYE = torch.eye(2, dtype=torch.float64)
DISTINCT, EQUAL = torch.tensor([10, 11]), torch.tensor([10, 10])
SCALE = torch.tensor(2.0, dtype=torch.float64)
TILTED = torch.tensor([[0.6, 0.8], [0.0, 1.0]], dtype=torch.float64)


def loss(images: Tensor, texts: Tensor, ids: Tensor = DISTINCT, duplicate_text: str = "negative", **options) -> float:
    value = contrastive_loss(
        images, texts, logit_multiplier=SCALE, text_ids=ids, duplicate_text=duplicate_text, **options
    )
    return float(value)


def log_softmax(own: float, other: float) -> float:
    return math.log(math.exp(own) / (math.exp(own) + math.exp(other)))


def test_hard_negatives_are_told_from_the_own_text():
    # The first region has one hard negative, the second none, so the sum is the first one's; of four regions in all.
    found = hard_negative_loss(EYE, TILTED, EYE[1:], torch.tensor([0]), logit_multiplier=SCALE, num_regions=4)
    assert float(found) == pytest.approx(-log_softmax(2 * 0.6, 0.0) / 4, abs=1e-12)
    both = hard_negative_loss(
        EYE, TILTED, torch.cat([EYE, EYE]), torch.tensor([0, 0, 1, 1]), logit_multiplier=100 * SCALE, num_regions=1
    )
    # The first region's own text loses by 80, which overflows nothing; the second's is as near as a wrong one.
    assert float(both) == pytest.approx(200 * 0.4 + math.log(2), rel=1e-9)
    nobody = torch.zeros(0, dtype=torch.int64)
    none = hard_negative_loss(EYE, EYE, EYE[:0], nobody, logit_multiplier=SCALE, num_regions=0)
    assert float(none) == 0


def test_orthogonal_pairs():
    # Logits are [[2, 0], [0, 2]]: every row and column says log(1 + e^-2).
    assert loss(EYE, EYE) == pytest.approx(math.log(1 + math.exp(-2)), abs=1e-12)


def test_rows_and_columns_count_alike():
    # Logits are 2 * [[0.6, 0.8], [0, 1]].
    rows = log_softmax(1.2, 1.6) + log_softmax(2.0, 0.0)
    columns = log_softmax(1.2, 0.0) + log_softmax(2.0, 1.6)
    assert loss(TILTED, EYE) == pytest.approx(-(rows + columns) / 4, abs=1e-12)


def test_equal_texts_share_the_target():
    # Both columns match each row: the target is half and half, the logits as above.
    rows = (log_softmax(1.2, 1.6) + log_softmax(1.6, 1.2)) / 2 + (log_softmax(2, 0) + log_softmax(0, 2)) / 2
    columns = (log_softmax(1.2, 0) + log_softmax(0, 1.2)) / 2 + (log_softmax(1.6, 2) + log_softmax(2, 1.6)) / 2
    assert loss(TILTED, EYE, EQUAL, "positive") == pytest.approx(-(rows + columns) / 4, abs=1e-12)


def test_masked_equal_texts_leave_nothing_to_tell_apart():
    assert loss(TILTED, EYE, EQUAL, "mask") == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("duplicate_text", ["positive", "mask", "negative"])
def test_different_texts_are_the_same_to_all_rules(duplicate_text):
    assert loss(TILTED, EYE, DISTINCT, duplicate_text) == pytest.approx(loss(TILTED, EYE), abs=1e-12)


@pytest.mark.parametrize(
    ("duplicate_text", "expected"),
    # With logits [[2, 0], [0, 2]] of equal texts, the gradient of the first image's feature [g_own, g_other]:
    # softmax minus target, over rows and columns, times the multiplier 2 and 1 / (2 N).
    [
        ("negative", [-(1 - 1 / (1 + math.exp(-2))), 1 - 1 / (1 + math.exp(-2))]),
        ("positive", [1 / (1 + math.exp(-2)) - 0.5, -(1 / (1 + math.exp(-2)) - 0.5)]),
        ("mask", [0.0, 0.0]),
    ],
)
def test_duplicate_text_changes_the_gradient_as_documented(duplicate_text, expected):
    images = EYE.clone().requires_grad_()
    contrastive_loss(images, EYE, logit_multiplier=SCALE, text_ids=EQUAL, duplicate_text=duplicate_text).backward()
    # Row 0 and, by symmetry, the columns' parts: 2 (multiplier) * 2 (both ways) / 4 = 1 times the difference.
    assert images.grad[0].tolist() == pytest.approx(expected, abs=1e-12)


def test_padding_is_that_of_all_zero_rows():
    padded_images, padded_texts = (torch.cat([f, torch.zeros(3, 2, dtype=torch.float64)]) for f in (TILTED, EYE))
    ids = torch.arange(5)
    assert loss(TILTED, EYE, num_padding=3) == pytest.approx(loss(padded_images, padded_texts, ids), abs=1e-12)


def test_padding_is_counted_once_by_several_processes():
    whole = loss(TILTED, EYE, num_padding=3)
    parts = [loss(TILTED, EYE, num_padding=3, rows=slice(i, i + 1)) for i in range(2)]
    assert sum(parts) == pytest.approx(whole, abs=1e-12)


@pytest.mark.parametrize("duplicate_text", ["positive", "mask", "negative"])
def test_parts_add_up(duplicate_text):
    generator = torch.Generator().manual_seed(0)
    images, texts = (
        torch.nn.functional.normalize(torch.randn(7, 4, generator=generator, dtype=torch.float64)) for _ in range(2)
    )
    ids = torch.tensor([1, 2, 1, 3, 4, 2, 5])
    whole = loss(images, texts, ids, duplicate_text)
    parts = [loss(images, texts, ids, duplicate_text, rows=rows) for rows in (slice(0, 3), slice(3, 3), slice(3, 7))]
    assert sum(parts) == pytest.approx(whole, abs=1e-12)


@pytest.mark.parametrize("duplicate_text", ["positive", "mask", "negative"])
def test_no_pairs_is_zero_and_differentiable(duplicate_text):
    nothing = torch.zeros(0, 2, dtype=torch.float64, requires_grad=True)
    value = contrastive_loss(
        nothing,
        nothing.detach(),
        logit_multiplier=SCALE,
        text_ids=torch.zeros(0, dtype=torch.int64),
        duplicate_text=duplicate_text,
    )
    value.backward()
    assert value == 0
    assert nothing.grad is not None


def test_distill_is_one_minus_the_mean_cosine():
    weights = torch.tensor([0.5, 0.5], dtype=torch.float64)
    assert float(distill_loss(TILTED, EYE, weights)) == pytest.approx(1 - (0.6 + 1.0) / 2, abs=1e-7)


def test_distill_weights_of_an_official_run():
    # Process 0 has one region, process 1 none, process 2 three: a mean of the two means there are.
    weights = mean_of_means(torch.tensor([0, 2, 2, 2]), 3)
    assert weights.tolist() == pytest.approx([1 / 2, 1 / 6, 1 / 6, 1 / 6])


def test_concept_loss_asks_every_concept():
    value = concept_loss(TILTED, EYE, torch.tensor([0, 1]), logit_multiplier=SCALE, num_regions=2)
    sigmoid = [1 / (1 + math.exp(-x)) for x in (1.2, 1.6, 0.0, 2.0)]
    by_hand = -(math.log(sigmoid[0]) + math.log(1 - sigmoid[1]) + math.log(1 - sigmoid[2]) + math.log(sigmoid[3])) / 2
    assert float(value) == pytest.approx(by_hand, abs=1e-12)


def test_sampled_concepts_hold_those_present():
    labels = torch.tensor([7, 3, 7])
    concepts = sample_concepts(labels, 50, num_sampled=10, seed=1)
    assert {3, 7} <= set(concepts.tolist())
    assert len(concepts.unique()) == 10
    assert torch.equal(concepts, sample_concepts(labels, 50, num_sampled=10, seed=1))
    assert not torch.equal(concepts, sample_concepts(labels, 50, num_sampled=10, seed=2))
    assert sample_concepts(labels, 9, num_sampled=100, seed=1).tolist() == list(range(9))


def test_scaled_gradient():
    features = TILTED.clone().requires_grad_()
    scaled = scale_gradient(features, 0.25)
    scaled.sum().backward()
    assert torch.equal(scaled, TILTED)
    assert torch.equal(features.grad, torch.full_like(TILTED, 0.25))


def test_duplicate_rate_counts_both_of_two():
    assert duplicate_rate(torch.tensor([5, 6, 5, 7])) == (2, 4)
