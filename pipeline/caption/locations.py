"""Answers that say places in an image: tokens such as `<loc_12>` are no part of a caption."""

import inspect
import re
from typing import Any

_TOKEN = re.compile(r"<(?:loc|seg)_?\d+>")
_TASK = re.compile(r"<[A-Z_]+>")
"""The word that a prompt begins with where a model was trained on tasks."""
_LABELS = ("labels", "bboxes_labels", "polygons_labels")
_ANY_SIZE = (1000, 1000)
"""Of an image in which places are told: they are thrown away."""


def location_tags(tokenizer: Any) -> dict[int, str]:
    """Return the special tokens, by id, that say places: decoding would skip them before they are understood."""
    added = tokenizer.added_tokens_decoder.items()
    return {number: token.content for number, token in added if token.special and _TOKEN.fullmatch(token.content)}


def without_locations(text: str, processor: Any, *, prompt: str) -> str:
    """Return what an answer to `prompt` says in words: by the processor's own post-processing, where it has one.

    That of a task which finds several things gives their names, each once, with commas between them.
    """
    post_process = getattr(processor, "post_process_generation", None)
    if post_process is not None and "task" in inspect.signature(post_process).parameters:
        named = _TASK.match(prompt)
        task = named[0] if named else prompt
        answer = post_process(text=text, task=task, image_size=_ANY_SIZE)[task]
        if isinstance(answer, dict):
            names = [name.strip() for kind in _LABELS for name in answer.get(kind, ())]
            answer = ", ".join(dict.fromkeys(filter(None, names)))
        text = answer
    return " ".join(_TOKEN.sub(" ", text).split()) if _TOKEN.search(text) else text
