"""Evaluation while training: retrieval of captions, of regions and images, on data that is not trained on."""

from collections.abc import Callable

from schemas.dataset import Dataset
from trainer.data.index import build_index
from trainer.errors import TrainingError
from trainer.evaluate.embed import embed
from trainer.evaluate.settings import EvaluateSettings, Task
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
    index = build_index(held_out, split)
    tasks: list[Task] = ["region-retrieval"] if index.num_regions else []
    if index.has_caption.any():
        tasks.append("retrieval")
    if not tasks:
        raise TrainingError("--eval-every: the held-out data has neither regions nor captions")
    how = EvaluateSettings(workers=min(settings.workers, 2))

    def evaluated(parts: Parts) -> dict[str, float]:
        step, regions = parts.step, "region-retrieval" in tasks
        backbone = step.student.backbone
        embedded = embed(backbone, step.preparation, held_out, index, settings=how, regions=regions, device=step.device)
        encoder = TextEncoder(model=parts.model, device=step.device)
        return {name: value for task in tasks for name, value in EVALUATORS[task].run(embedded, encoder)}

    return evaluated
