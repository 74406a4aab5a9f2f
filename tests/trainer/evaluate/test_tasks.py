"""Evaluation tasks on a model whose features are known, and on one and two processes."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
import torch

from schemas.dataset import Dataset
from tests.trainer.processes import run_processes
from tests.trainer.runs import write_data
from tests.trainer.towers import VIT, random_weights
from trainer.data.index import build_index
from trainer.errors import TrainingError
from trainer.evaluate.embed import Embedded, embed
from trainer.evaluate.settings import EvaluateSettings, Task
from trainer.evaluate.tasks import EVALUATORS
from trainer.evaluate.texts import TextEncoder
from trainer.hyperparameters import ModelSettings
from trainer.model.open import LoadedModel, load_model
from trainer.model.student import Student, encode_text

CPU = torch.device("cpu")
SETTINGS = ModelSettings(model=VIT, image_size=64, crop_size=32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_data(tmp_path_factory.mktemp("data"))


def model_with_weights():
    model = load_model(SETTINGS)
    random_weights(model.clip)
    return model


def embedded_data(folder: str, *, regions: bool = True, **settings: object) -> Embedded:
    dataset, model = Dataset.open(folder), model_with_weights()
    return embed(
        Student(model.clip).backbone,
        model.preparation(SETTINGS),
        dataset,
        build_index(dataset, "train"),
        settings=EvaluateSettings(workers=0, **{"batch_size": 4, **settings}),
        regions=regions,
        device=CPU,
    )


def evaluate(task: Task, embedded: Embedded, model: LoadedModel, **options: Sequence[str]) -> dict[str, float]:
    return dict(EVALUATORS[task].run(embedded, TextEncoder(model=model, device=CPU, **options)))


def perfect(folder: str) -> tuple[Embedded, object]:
    """Return an embedding whose every image and region has the feature of its own caption."""
    model, index = model_with_weights(), build_index(Dataset.open(folder), "train")

    def features(column: pa.ChunkedArray) -> torch.Tensor:
        with torch.no_grad():
            return encode_text(model.clip, model.tokenize([text or "" for text in column.to_pylist()]))

    rows = np.arange(len(index)), np.arange(index.num_regions)
    image, region = features(index.image_captions), features(index.region_captions)
    return Embedded(index=index, image=image, image_rows=rows[0], region=region, region_rows=rows[1]), model


def test_perfect_features_find_everything(folder):
    embedded, model = perfect(folder)
    for task in ("retrieval", "region-retrieval"):
        found = evaluate(task, embedded, model)
        assert {value for name, value in found.items() if "recall" in name} == {1.0}
    # 13 images, two of them without a caption; 5 distinct captions.
    counts = evaluate("retrieval", embedded, model)
    assert (counts["num_images"], counts["num_texts"]) == (11, 5)
    regions = evaluate("region-retrieval", embedded, model)
    assert (regions["num_regions"], regions["num_texts"]) == (embedded.index.num_regions, 3)


def test_classes_are_the_labels(folder):
    embedded, model = perfect(folder)
    names = embedded.index.labels.to_pylist()
    with torch.no_grad():
        tokens = model.tokenize([f"just {name}" for name in names])
        own = encode_text(model.clip, tokens)
    known = Embedded(**{**vars(embedded), "region": own})
    found = evaluate("regions", known, model, templates=["just {}"])
    assert found["region_accuracy@1"] == found["region_mean_class_accuracy@1"] == 1
    assert found["num_classes"] == 3
    wrong = Embedded(**{**vars(embedded), "region": own.roll(1, 0)})
    assert evaluate("regions", wrong, model, templates=["just {}"])["region_accuracy@1"] < 1


def test_chance_is_told_beside_accuracy(folder):
    embedded, model = perfect(folder)
    found = evaluate("regions", embedded, model)
    assert found["num_classes"] == 3
    assert (found["region_chance@1"], found["region_chance@5"]) == (1 / 3, 1)


@pytest.mark.parametrize(
    ("task", "column", "remedy"),
    [("regions", "labels", "--task region-retrieval"), ("zeroshot", "image_captions", "--task retrieval")],
)
def test_one_class_alone_is_nothing_to_classify(folder, task, column, remedy):
    embedded, model = perfect(folder)
    names = getattr(embedded.index, column)
    alike = pa.chunked_array([[None if name is None else "cat" for name in names.to_pylist()]])
    index = dataclasses.replace(embedded.index, **{column: alike})
    same = dataclasses.replace(embedded, index=index)
    for measure in (lambda: evaluate(task, same, model), lambda: EVALUATORS[task].check(index)):
        with pytest.raises(TrainingError, match=f"the same .*'cat', so any model .*{remedy}"):
            measure()
    EVALUATORS["region-retrieval"].check(index)


def test_zeroshot_takes_captions_as_class_names(folder):
    embedded, model = perfect(folder)
    found = evaluate("zeroshot", embedded, model, templates=["{}"])
    assert found["image_accuracy@1"] == 1
    assert found["num_images"] == 11


def _features(folder: str, feature: str) -> list[torch.Tensor]:
    embedded = embedded_data(folder, region_feature=feature)
    return [
        embedded.image,
        embedded.region,
        torch.from_numpy(embedded.image_rows),
        torch.from_numpy(embedded.region_rows),
    ]


@pytest.mark.parametrize("feature", ["roi", "crop"])
def test_processes_embed_all_of_it_together(folder, feature):
    alone = _features(folder, feature)
    assert alone[2].tolist() == list(range(13))
    assert len(alone[1]) == len(alone[3]) == build_index(Dataset.open(folder), "train").num_regions
    for together in run_processes(_features, 2, folder, feature):
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(together, alone, strict=True))


def test_a_batch_size_changes_nothing(folder):
    small, large = (embedded_data(folder, batch_size=size) for size in (2, 13))
    assert torch.allclose(small.image, large.image, atol=1e-5)
    assert torch.allclose(small.region, large.region, atol=1e-5)


def test_regions_are_not_embedded_for_nothing(folder):
    assert embedded_data(folder, regions=False).region is None


def test_nothing_to_measure_is_said(tmp_path):
    folder = write_data(tmp_path, (1,))
    embedded = embedded_data(folder)
    model = model_with_weights()
    for task, message in (("region-retrieval", "no region"), ("regions", "no region")):
        with pytest.raises(TrainingError, match=message):
            evaluate(task, embedded, model)
