"""`--task words`: regions against the words that captions are made of: which colour, which shape, which pair of both.

A file (`--words`) lists the words by attribute, and sentences that use them. A class is a word, or a pair of words; its
feature is the mean over all sentences that have it, whatever the other words are. A region's class is the one word of
the attribute that its caption has; regions whose captions have none, or several, are left out.
"""

from collections.abc import Iterator, Sequence

import torch
from torch.nn.functional import normalize

from trainer.errors import TrainingError
from trainer.evaluate.embed import Embedded
from trainer.evaluate.metrics import Metric, Scores, accuracy_at
from trainer.evaluate.texts import TextEncoder
from trainer.evaluate.truth import Truth
from trainer.evaluate.vocabulary import Vocabulary

USES_REGIONS = True


def check(truth: Truth) -> None:
    """Raise TrainingError where no region has a caption."""
    if not any(caption is not None for caption in truth.region_captions):
        raise TrainingError("no region of the data has a caption: there are no words to tell apart")


def run(embedded: Embedded, encoder: TextEncoder) -> Iterator[Metric]:
    """Yield for each task, such as `colour`: accuracy over regions and over classes, and the level of chance."""
    assert encoder.vocabulary is not None
    truth, rows, vocabulary = embedded.truth, embedded.region, encoder.vocabulary
    prompts = vocabulary.prompts()
    texts = encoder.captions(list(prompts))
    said = _words_of([truth.region_captions[at] for at in rows.at], vocabulary)
    for task in vocabulary.tasks:
        classes = vocabulary.classes(task)
        number = {words: i for i, words in enumerate(classes)}
        owners = [tuple(words.get(name, "") for name in task) for words in prompts.values()]
        features = torch.stack([texts[[owner == words for owner in owners]].mean(dim=0) for words in classes])
        known = [row for row, words in enumerate(said) if all(name in words for name in task)]
        if not known:
            raise TrainingError(f"--words: no caption of a region has a word of {' and '.join(task)}")
        labels = torch.tensor([number[tuple(said[row][name] for name in task)] for row in known])
        hits = accuracy_at(rows.features[known] @ normalize(features).T, labels, 1).double().numpy()
        images, name = truth.region_image[rows.at[known]], "_".join(task)
        yield f"{name}_accuracy@1", Scores(hits=hits, images=images)
        yield f"{name}_mean_class_accuracy@1", Scores(hits=hits, images=images, classes=labels.numpy())
        yield f"{name}_chance@1", 1 / len(classes)
        yield f"num_{name}_regions", float(len(known))


def _words_of(captions: Sequence[str | None], vocabulary: Vocabulary) -> list[dict[str, str]]:
    """Return for each caption the attributes that it has exactly one word of."""
    found = []
    for caption in captions:
        spoken = {word.strip(".,;").lower() for word in (caption or "").split()}
        own = {name: [word for word in words if word in spoken] for name, words in vocabulary.words.items()}
        found.append({name: words[0] for name, words in own.items() if len(words) == 1})
    return found
