"""Several processes with uneven pairs give the single process's loss and gradients on the joined batch, in float64."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tests.trainer.processes import run_processes
from trainer.hyperparameters import LossSettings
from trainer.loss.choose import objective_of
from trainer.loss.gather import exchange_counts, gather_ids, gather_rows, rank, world_size
from trainer.loss.methods import CLIP, CLIPSelf, FineCLIP, RegionCLIP
from trainer.loss.objective import Counts, Losses, Pairs
from trainer.loss.official import OfficialFineCLIP
from trainer.model.backbone import normalise

DIM = 4


class TinyStudent(nn.Module):
    """Two linear towers in place of the real ones."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.vision = nn.Linear(5, DIM).double()
        self.text = nn.Linear(3, DIM).double()
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)

    def forward(self, images: Tensor, rois: Tensor, crops: Tensor, texts: Tensor) -> list[Tensor]:
        vision = [normalise(self.vision(tensor)) for tensor in (images, rois, crops)]
        return [*vision, normalise(self.text(texts))]


@dataclass(frozen=True)
class Batch:
    images: Tensor
    rois: Tensor
    crops: Tensor
    texts: Tensor
    ids: Tensor
    """Of images, then regions."""
    region_image_index: Tensor
    labels: Tensor

    def part(self, images: slice, regions: slice) -> "Batch":
        num_images = len(self.images)
        texts, ids = (
            torch.cat([tensor[:num_images][images], tensor[num_images:][regions]]) for tensor in (self.texts, self.ids)
        )
        own = (tensor[regions] for tensor in (self.rois, self.crops))
        owners = self.region_image_index[regions] - images.start
        return Batch(self.images[images], *own, texts, ids, owners, self.labels[regions])


def joined_batch(num_images: int = 6, num_regions: int = 9) -> Batch:
    generator = torch.Generator().manual_seed(2)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    ids = torch.tensor([1, 2, 1, 3, 4, 5, 20, 21, 22, 20, 20, 23, 24, 21, 25])
    # Of two official processes the first has images 0 to 2, so four regions, and the second five.
    owners = torch.tensor([0, 0, 1, 2, 3, 3, 3, 3, 3])
    labels = torch.tensor([0, 3, 3, 1, 0, 2, 5, 5, 1])
    sizes = (num_images, num_regions, num_regions)
    return Batch(*(draw(n, 5) for n in sizes), draw(15, 3), ids, owners, labels)


def loss_and_gradients(batch: Batch, settings: LossSettings) -> dict[str, Tensor]:
    """Return the joined loss and all gradients, as a step takes them: through DDP where there are several processes."""
    student = TinyStudent()
    logit_scale = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
    module = DistributedDataParallel(student) if world_size() > 1 else student
    image, roi, crop, text = module(batch.images, batch.rois, batch.crops, batch.texts)
    num_images = len(batch.images)
    pairs = Pairs(
        image=image,
        image_text=text[:num_images],
        image_text_ids=batch.ids[:num_images],
        roi=roi,
        region_text=text[num_images:],
        region_text_ids=batch.ids[num_images:],
        crop=crop,
        region_image_index=batch.region_image_index,
        labels=batch.labels,
    )
    everyone = exchange_counts([num_images, len(batch.rois), num_images], torch.device("cpu"))
    concepts = normalise(torch.randn(6, DIM, generator=torch.Generator().manual_seed(3), dtype=torch.float64))
    objective = objective_of(settings, max_regions=4, concept_features=concepts)
    gathered = objective.gather(pairs, [Counts(*row) for row in everyone])
    losses: Losses = objective.losses(gathered, logit_scale=logit_scale, seed=0)
    (losses.loss * world_size()).backward()
    if logit_scale.grad is None:
        logit_scale.grad = torch.zeros_like(logit_scale)
    found = {"loss": losses.loss.detach(), "logit_scale": logit_scale.grad}
    if world_size() > 1:
        for value in found.values():
            torch.distributed.all_reduce(value)
        found["logit_scale"] /= world_size()
    gradients = {name: p.grad for name, p in student.named_parameters()}
    return found | gradients | {"duplicates": torch.tensor([losses.num_duplicates, losses.num_texts])}


SPLITS = {
    1: [(slice(0, 6), slice(0, 9))],
    # The second process of two has no region; of three, the first has no image and the last no region.
    2: [(slice(0, 4), slice(0, 9)), (slice(4, 6), slice(9, 9))],
    3: [(slice(0, 0), slice(0, 0)), (slice(0, 5), slice(0, 9)), (slice(5, 6), slice(9, 9))],
}

SETTINGS = {
    "paper": LossSettings(),
    "mask": LossSettings(duplicate_text="mask", distill_weight=2.5),
    "negative": LossSettings(duplicate_text="negative", global_weight=0.5),
    "official 2": LossSettings(official_quirks=2),
    "official 1": LossSettings(official_quirks=1),
    "clipself": LossSettings(global_weight=0, region_weight=0),
    "regionclip": LossSettings(global_weight=0, distill_weight=0, region_objective="concepts", concepts_per_step=5),
    "clip": LossSettings(region_weight=0, distill_weight=0),
}


def _one_process_of(num_processes: int) -> list[dict[str, Tensor]]:
    batch = joined_batch().part(*SPLITS[num_processes][rank()])
    return [loss_and_gradients(batch, settings) for settings in SETTINGS.values()]


@pytest.mark.parametrize("num_processes", [1, 2, 3])
def test_processes_give_the_joined_batch(num_processes):
    found_by_rank = run_processes(_one_process_of, num_processes, num_processes)
    for at, (name, settings) in enumerate(SETTINGS.items()):
        expected = loss_and_gradients(joined_batch(), settings)
        for process, found in enumerate(result[at] for result in found_by_rank):
            for tensor in expected:
                difference = (found[tensor] - expected[tensor]).abs().max()
                assert difference < 1e-9, (name, process, tensor)


def test_the_losses_differ_from_each_other():
    losses = {name: float(loss_and_gradients(joined_batch(), settings)["loss"]) for name, settings in SETTINGS.items()}
    assert len({round(loss, 6) for loss in losses.values()}) == len(SETTINGS)


def test_official_quirks_divide_contrastive_gradients_only():
    plain = LossSettings(duplicate_text="negative", distill_weight=0)
    official = LossSettings(official_quirks=4, distill_weight=0)
    ours, theirs = (loss_and_gradients(joined_batch(), settings) for settings in (plain, official))
    assert torch.allclose(theirs["vision.weight"], ours["vision.weight"] / 4, atol=1e-12)
    assert torch.allclose(theirs["logit_scale"], ours["logit_scale"], atol=1e-12)
    assert torch.equal(theirs["loss"], ours["loss"])


def test_duplicates_are_counted_over_processes():
    found = run_processes(_one_process_of, 3, 3)
    # Image texts: 1 twice. Region texts: 20 three times, 21 twice. Of 6 + 9 texts.
    assert {tuple(result[0]["duplicates"].tolist()) for result in found} == {(7, 15)}


def _gathered() -> tuple[list[Tensor], Tensor]:
    mine = rank()
    rows = torch.full((mine, 2), float(mine), requires_grad=True)
    fixed = torch.full((2 - mine, 2), -float(mine))
    counts = exchange_counts([len(rows), len(fixed)], torch.device("cpu"))
    joined = gather_rows([rows, fixed], counts)
    (joined[0] * (1 + mine)).sum().backward()
    ids = gather_ids(torch.full((mine,), mine), [row[0] for row in counts])
    assert not joined[1].requires_grad
    assert rows.grad is not None
    return [tensor.detach() for tensor in joined] + [rows.grad], ids


def test_rows_stand_in_rank_order_and_their_gradients_are_summed():
    for process, ((first, second, gradient), ids) in enumerate(run_processes(_gathered, 3)):
        assert first[:, 0].tolist() == [1, 2, 2]
        assert second[:, 0].tolist() == [0, 0, -1]
        assert ids.tolist() == [1, 2, 2]
        # What the three processes' losses say: 1 + 2 + 3.
        assert gradient.tolist() == [[6.0, 6.0]] * process


def _gathered_nothing() -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    none = torch.zeros(0, 2, requires_grad=True)
    counts = exchange_counts([0], torch.device("cpu"))
    (joined,) = gather_rows([none], counts)
    joined.sum().backward()
    ids = gather_ids(torch.zeros(0, dtype=torch.int64), [row[0] for row in counts])
    return tuple(joined.shape), tuple(none.grad.shape), tuple(ids.shape)


def test_no_rows_anywhere_are_no_rows():
    assert run_processes(_gathered_nothing, 2) == [((0, 2), (0, 2), (0,))] * 2


def _nothing_of(kinds: str) -> list[dict[str, Tensor]]:
    """Return losses and gradients where no process has a captioned image, or a region, or either."""
    whole = joined_batch()
    images = slice(0, 0) if "images" in kinds else slice(3 * rank(), 3 * rank() + 3)
    regions = slice(0, 0) if "regions" in kinds else slice(4 * rank(), 4 * rank() + 4)
    return [loss_and_gradients(whole.part(images, regions), settings) for settings in SETTINGS.values()]


@pytest.mark.parametrize("kinds", ["images", "regions", "images and regions"])
def test_a_step_where_no_process_has_one_kind(kinds):
    for found_by_settings in run_processes(_nothing_of, 2, kinds):
        for name, found in zip(SETTINGS, found_by_settings, strict=True):
            assert all(tensor.isfinite().all() for tensor in found.values()), name


@pytest.mark.parametrize(
    "weights",
    [{"global_weight": -1.0}, {"global_weight": 0, "region_weight": 0, "distill_weight": 0}, {"official_quirks": 0}],
)
def test_settings_that_train_nothing_are_refused(weights):
    with pytest.raises(ValueError, match=r"loss weights|official-quirks"):
        LossSettings(**weights)


def test_what_an_objective_lacks_is_named():
    with pytest.raises(ValueError, match="max-regions"):
        objective_of(LossSettings(official_quirks=1))
    with pytest.raises(ValueError, match="concepts"):
        objective_of(LossSettings(region_objective="concepts"))


@pytest.mark.parametrize(
    ("settings", "method"),
    [
        (LossSettings(), FineCLIP),
        (LossSettings(global_weight=0), FineCLIP),
        (LossSettings(region_weight=0, distill_weight=0), CLIP),
        (LossSettings(global_weight=0, region_weight=0), CLIPSelf),
        (LossSettings(region_objective="concepts"), RegionCLIP),
        (LossSettings(official_quirks=8), OfficialFineCLIP),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_settings_mean_a_method(settings, method):
    assert type(objective_of(settings, concept_features=torch.eye(DIM))) is method
