"""RegionCLIP's concepts: the names that regions' labels are among."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from trainer.data.index import SampleIndex
from trainer.errors import TrainingError


def read_concepts(path: str | None, index: SampleIndex) -> list[str]:
    """Return the concepts of a file, one a line, or for None the distinct labels of the data. Raises TrainingError."""
    if path is None:
        names = sorted(pc.unique(index.labels).drop_null().to_pylist())
        if not names:
            raise TrainingError("--region-objective concepts: no region of the data has a label; annotate with one")
        return names
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(f"--concepts {path}: {error}") from error
    return list(dict.fromkeys(line.strip() for line in lines if line.strip()))


def concept_labels(index: SampleIndex, concepts: list[str]) -> Tensor:
    """Return `[R]` int64: which concept each region of the index is.

    Raises TrainingError for a region whose label is none of them.
    """
    at = pc.index_in(index.labels, value_set=pa.array(concepts, pa.string()))
    unknown = pc.index(pc.is_null(at), True).as_py()
    if unknown >= 0:
        raise TrainingError(
            f"--region-objective concepts: region {unknown} has the label {index.labels[unknown].as_py()!r}, which is "
            "no concept; name it in the --concepts file, or take the region away by a filter list"
        )
    return torch.from_numpy(at.to_numpy().astype("int64"))
