"""Models as transformers opens them: all of their weights from the files, or none."""

from typing import Any

from pipeline.models.state_dict import WeightsError
from pipeline.models.weights import ModelFiles

_COUNTER = "num_batches_tracked"
"""A batch norm's, which training alone looks at; conversions of older models lack it."""


def from_pretrained(kind: Any, files: ModelFiles, *, flag: str, **arguments: Any) -> Any:
    """Return the model in the folder of `files`, which `flag` named, as `kind`, a class of transformers', opens it.

    `arguments` go to its `from_pretrained`. Raises WeightsError where weights are missing or of another shape than
    config.json says: transformers would draw them at random, and the model would answer all the same.
    """
    import transformers

    quiet: Any = transformers.utils.logging.disable_progress_bar  # a worker's; the job has one of its own
    quiet()
    model, loaded = kind.from_pretrained(
        files.path, local_files_only=True, output_loading_info=True, ignore_mismatched_sizes=True, **arguments
    )
    mismatched = (name for name, *_ in loaded["mismatched_keys"])  # such as those of a head for other classes
    missing = (name for name in loaded["missing_keys"] if not name.endswith(_COUNTER))
    wrong = sorted({*missing, *mismatched})
    if wrong:
        raise WeightsError(
            f"{flag} {files.name}: its weights do not fit its config.json: {len(wrong)} of {type(model).__name__} "
            f"are missing or of another shape, such as {wrong[:3]}; download them anew, or give the config.json that "
            "was saved with them"
        )
    return model
