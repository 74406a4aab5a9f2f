"""Evaluation tasks on a model whose features are known, and on one and two processes."""

import dataclasses
import itertools
from collections.abc import Sequence

import msgspec
import numpy as np
import pytest
import torch

from schemas.dataset import Dataset
from tests.shards import tiny_sample, write_shard
from tests.trainer.processes import run_processes
from tests.trainer.runs import write_data
from tests.trainer.towers import VIT, random_weights
from trainer.errors import TrainingError
from trainer.evaluate import attributes, regions
from trainer.evaluate.embed import Embedded, Rows, embed
from trainer.evaluate.metrics import Scores
from trainer.evaluate.read.shards import read
from trainer.evaluate.settings import EvaluateSettings, RegionFeature, Task, TruthSettings
from trainer.evaluate.tasks import EVALUATORS
from trainer.evaluate.texts import TextEncoder
from trainer.evaluate.towers import image_tower
from trainer.evaluate.truth import Truth
from trainer.hyperparameters import ModelSettings
from trainer.model.open import LoadedModel, load_model
from trainer.model.student import encode_text

CPU = torch.device("cpu")
SETTINGS = ModelSettings(model=VIT, image_size=64, crop_size=32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_data(tmp_path_factory.mktemp("data"))


def model_with_weights():
    model = load_model(SETTINGS)
    random_weights(model.clip)
    return model


def truth_of(folder: str, **wanted: bool) -> Truth:
    return read(Dataset.open(folder), "train", TruthSettings(), **wanted)


def embedded_data(folder: str, *features: RegionFeature, **settings: object) -> Embedded:
    model = model_with_weights()
    return embed(
        image_tower(model.clip),
        model.preparation(SETTINGS),
        truth_of(folder),
        settings=EvaluateSettings(workers=0, **{"batch_size": 4, **settings}),
        features=features,
        device=CPU,
    )


def evaluate(task: Task, embedded: Embedded, model: LoadedModel, **options: Sequence[str]) -> dict[str, float]:
    found = dict(EVALUATORS[task].run(embedded, TextEncoder(model=model, device=CPU, **options)))
    return {name: value.value if isinstance(value, Scores) else value for name, value in found.items()}


def perfect(folder: str, **wanted: bool) -> tuple[Embedded, LoadedModel]:
    """Return an embedding whose every image and region has the feature of its own (first) caption."""
    model, truth = model_with_weights(), truth_of(folder, **wanted)

    def rows(texts: Sequence[str | None]) -> Rows:
        with torch.no_grad():
            features = encode_text(model.clip, model.tokenize([text or "" for text in texts]))
        return Rows(features=features, at=np.arange(len(texts)))

    first = [[*truth.captions[start:stop], None][0] for start, stop in itertools.pairwise(truth.caption_start)]
    return Embedded(truth=truth, image=rows(first), regions={"roi": rows(truth.region_captions)}), model


def test_perfect_features_find_everything(folder):
    embedded, model = perfect(folder)
    for task in ("retrieval", "region-retrieval"):
        found = evaluate(task, embedded, model)
        assert {value for name, value in found.items() if "recall" in name} == {1.0}
    # 13 images, two of them without a caption; 5 distinct captions.
    counts = evaluate("retrieval", embedded, model)
    assert (counts["num_images"], counts["num_texts"]) == (11, 5)
    regions = evaluate("region-retrieval", embedded, model)
    assert (regions["num_regions"], regions["num_texts"]) == (embedded.truth.num_regions, 3)


def with_region(embedded: Embedded, features: torch.Tensor) -> Embedded:
    return dataclasses.replace(embedded, regions={"roi": Rows(features=features, at=embedded.region.at)})


def test_classes_are_the_labels(folder):
    embedded, model = perfect(folder)
    names = embedded.truth.labels
    with torch.no_grad():
        tokens = model.tokenize([f"just {name}" for name in names])
        own = encode_text(model.clip, tokens)
    known = with_region(embedded, own)
    found = evaluate("regions", known, model, templates=["just {}"])
    assert found["region_accuracy@1"] == found["region_mean_class_accuracy@1"] == 1
    assert found["num_classes"] == 3
    wrong = with_region(embedded, own.roll(1, 0))
    assert evaluate("regions", wrong, model, templates=["just {}"])["region_accuracy@1"] < 1


def test_chance_is_told_beside_accuracy(folder):
    embedded, model = perfect(folder)
    found = evaluate("regions", embedded, model)
    assert found["num_classes"] == 3
    assert (found["region_chance@1"], found["region_chance@5"]) == (1 / 3, 1)


@pytest.mark.parametrize(
    ("task", "field", "remedy"),
    [("regions", "labels", "--task region-retrieval"), ("zeroshot", "captions", "--task retrieval")],
)
def test_one_class_alone_is_nothing_to_classify(folder, task, field, remedy):
    embedded, model = perfect(folder)
    alike = dataclasses.replace(embedded.truth, **{field: ["cat"] * len(getattr(embedded.truth, field))})
    same = dataclasses.replace(embedded, truth=alike)
    for measure in (lambda: evaluate(task, same, model), lambda: EVALUATORS[task].check(alike)):
        with pytest.raises(TrainingError, match=f"the same .*'cat', so any model .*{remedy}"):
            measure()
    EVALUATORS["region-retrieval"].check(alike)


def test_zeroshot_takes_captions_as_class_names(folder):
    embedded, model = perfect(folder)
    found = evaluate("zeroshot", embedded, model, templates=["{}"])
    assert found["image_accuracy@1"] == 1
    assert found["num_images"] == 11


def _features(folder: str, feature: RegionFeature) -> list[torch.Tensor]:
    embedded = embedded_data(folder, feature)
    rows = (embedded.image.at, embedded.region.at)
    return [embedded.image.features, embedded.region.features, *map(torch.from_numpy, rows)]


@pytest.mark.parametrize("feature", ["roi", "crop"])
def test_processes_embed_all_of_it_together(folder, feature):
    alone = _features(folder, feature)
    assert alone[2].tolist() == list(range(13))
    assert len(alone[1]) == len(alone[3]) == truth_of(folder).num_regions
    for together in run_processes(_features, 2, folder, feature):
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(together, alone, strict=True))


def test_a_batch_size_changes_nothing(folder):
    small, large = (embedded_data(folder, "roi", batch_size=size) for size in (2, 13))
    assert torch.allclose(small.image.features, large.image.features, atol=1e-5)
    assert torch.allclose(small.region.features, large.region.features, atol=1e-5)


def test_regions_are_not_embedded_for_nothing(folder):
    assert embedded_data(folder).regions == {}


def test_nothing_to_measure_is_said(tmp_path):
    folder = write_data(tmp_path, (1,))
    embedded = embedded_data(folder, "roi")
    model = model_with_weights()
    for task, message in (("region-retrieval", "no region"), ("regions", "no region"), ("attributes", "no region")):
        with pytest.raises(TrainingError, match=message):
            evaluate(task, embedded, model)


def test_all_captions_of_an_image_are_retrieved(tmp_path):
    sample = tiny_sample("a", image_caption="one")
    record = msgspec.structs.replace(sample.record, image_captions=["one", "two", "three"])
    write_shard(str(tmp_path), [dataclasses.replace(sample, record=record), tiny_sample("b", image_caption="four")])
    embedded, model = perfect(str(tmp_path))
    found = evaluate("retrieval", embedded, model)
    assert (found["num_images"], found["num_texts"]) == (2, 4)
    assert found["image_to_text_recall@1"] == 1
    encoder = TextEncoder(model=model, device=CPU)
    texts = encoder.captions(["one", "two", "three", "four"])
    own = (texts @ embedded.image.features.T).argmax(dim=1)
    assert found["text_to_image_recall@1"] == pytest.approx((own == torch.tensor([0, 0, 0, 1])).double().mean())


def test_attributes_on_shards_are_made_from_the_right_captions(folder):
    embedded, model = perfect(folder, wrong=True)
    found = evaluate("attributes", embedded, model)
    # Every caption is "a COLOUR shape": two wrong ones each, and perfect features tell them apart.
    assert found["attribute_accuracy@1"] == 1
    assert found["num_wrong_captions"] == 2 * found["num_attribute_regions"] == 2 * embedded.truth.num_regions
    assert found["attribute_chance@1"] == pytest.approx(1 / 3)
    others = with_region(embedded, embedded.region.features.roll(1, 0))
    assert evaluate("attributes", others, model)["attribute_accuracy@1"] < 1


def test_attributes_by_kind():
    right = torch.tensor([0.5, 0.5, 0.5])
    wrong, owner = torch.tensor([0.4, 0.6, 0.1, 0.5]), np.array([0, 0, 1, 2])
    kinds = ["colour", "size", "colour", "colour"]
    found = dict(attributes.measure(right, wrong, owner, kinds, np.arange(3)))
    assert found["attribute_accuracy@1"].hits.tolist() == [0, 1, 0]  # a tie is lost
    assert found["colour_accuracy@1"].hits.tolist() == [1, 1, 0]
    assert found["size_accuracy@1"].hits.tolist() == [0]
    assert found["attribute_chance@1"] == pytest.approx((1 / 3 + 1 / 2 + 1 / 2) / 3)


def test_things_and_stuff_are_told_apart():
    features, classes = torch.eye(4), torch.eye(4)
    labels, is_thing = np.array([0, 1, 0, 3]), np.array([True, True, False, False])
    found = dict(regions.measure(features, classes, labels, np.arange(4), is_thing))
    assert found["region_accuracy@1"].value == 3 / 4
    assert found["thing_accuracy@1"].value == 1
    assert found["stuff_mean_class_accuracy@1"].value == 1 / 2
    assert (found["num_things"], found["num_stuffs"]) == (2, 2)
