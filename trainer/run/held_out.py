"""Evaluation while training: retrieval of captions, of regions and images, on data that is not trained on."""

from collections.abc import Callable

from schemas.dataset import Dataset
from trainer.data.index import build_index
from trainer.errors import TrainingError
from trainer.evaluate.evaluate import embed, evaluate
from trainer.evaluate.settings import EvaluateSettings, Task
from trainer.run.assemble import Parts
from trainer.run.train_settings import TrainSettings

Evaluation = Callable[[Parts], dict[str, float]]
"""Metrics of a run's model as it is; the first recall@1 is the one watched for the best checkpoint."""


def held_out_evaluation(dataset: Dataset, run: TrainSettings) -> Evaluation | None:
    """Return what evaluates a model in training, or None. Raises TrainingError where there is no data for it."""
    if run.eval_every is None:
        return None
    held_out = dataset if run.eval_data is None else Dataset.open(run.eval_data)
    split = "val" if any(shard.split == "val" for shard in held_out.shards) else "train"
    if run.eval_data is None and split == "train":
        raise TrainingError("--eval-every: the data has no val shards; give --eval-data")
    index = build_index(held_out, split)
    tasks: list[Task] = ["region-retrieval"] if index.num_regions else []
    if index.has_caption.any():
        tasks.append("retrieval")
    if not tasks:
        raise TrainingError("--eval-every: the held-out data has neither regions nor captions")
    settings = EvaluateSettings(workers=min(run.workers, 2))

    def evaluated(parts: Parts) -> dict[str, float]:
        step = parts.step
        embedded = embed(
            step.student.backbone,
            step.preparation,
            held_out,
            index,
            settings=settings,
            regions="region-retrieval" in tasks,
            device=step.device,
        )
        found: dict[str, float] = {}
        for task in tasks:
            found |= evaluate(task, embedded, parts.model, device=step.device)
        return found

    return evaluated
