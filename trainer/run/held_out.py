"""Evaluation while training: retrieval of captions, of regions and images, on data that is not trained on."""

from collections.abc import Callable

from schemas.dataset import Dataset
from trainer.errors import TrainingError
from trainer.evaluate.embed import embed
from trainer.evaluate.metrics import Scores
from trainer.evaluate.read.shards import read
from trainer.evaluate.settings import EvaluateSettings, RegionFeature, Task, TruthSettings
from trainer.evaluate.tasks import EVALUATORS
from trainer.evaluate.texts import TextEncoder
from trainer.run.assemble import Parts
from trainer.run.train_settings import TrainSettings

Evaluation = Callable[[Parts], dict[str, float]]
"""Metrics of a run's model as it is; the first recall@1 is the one watched for the best checkpoint."""


def held_out_evaluation(dataset: Dataset, settings: TrainSettings) -> Evaluation | None:
    """Return what evaluates a model in training, or None. Raises TrainingError where there is no data for it."""
    if settings.eval_every is None:
        return None
    held_out = dataset if settings.eval_data is None else Dataset.open(settings.eval_data)
    split = "val" if any(shard.split == "val" for shard in held_out.shards) else "train"
    if settings.eval_data is None and split == "train":
        raise TrainingError("--eval-every: the data has no val shards; give --eval-data")
    truth = read(held_out, split, TruthSettings())
    tasks: list[Task] = ["region-retrieval"] if truth.num_regions else []
    if len(truth.captions):
        tasks.append("retrieval")
    if not tasks:
        raise TrainingError("--eval-every: the held-out data has neither regions nor captions")
    how = EvaluateSettings(workers=min(settings.workers, 2))

    def evaluated(parts: Parts) -> dict[str, float]:
        step, tower = parts.step, parts.step.student.backbone
        features: list[RegionFeature] = ["roi"] if "region-retrieval" in tasks else []
        embedded = embed(tower, step.preparation, truth, settings=how, features=features, device=step.device)
        encoder = TextEncoder(model=parts.model, device=step.device)
        found = (metric for task in tasks for metric in EVALUATORS[task].run(embedded, encoder))
        return {name: value.value if isinstance(value, Scores) else value for name, value in found}

    return evaluated
