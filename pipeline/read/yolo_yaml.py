"""Ultralytics' data.yaml: the names of the classes, and where the pictures of each split lie."""

from dataclasses import dataclass
from typing import Any

import yaml

from pipeline.errors import SourceError
from schemas.loose_json import shown, text

SPLITS = ("train", "val", "test")
_MAX_BYTES = 16 * 2**20


@dataclass(frozen=True, kw_only=True)
class DataYaml:
    """What a data.yaml says that is of use."""

    folder: str | None
    """`path`, the folder that the splits are relative to, as written."""
    splits: dict[str, tuple[str, ...]]
    """Folders, lists or pictures of each split that is named, as written."""
    names: dict[int, str]
    """Of the classes, by number; empty where only their number, or nothing, is said."""
    num_keypoint_columns: int
    """Columns of a pose label behind the box; 0 where labels have no keypoints."""


def parse_data_yaml(data: bytes, where: str) -> DataYaml:
    """Return what a data.yaml says. Raises SourceError, naming the key, where it cannot be used."""
    if len(data) > _MAX_BYTES:
        raise SourceError(f"{where}: more than {_MAX_BYTES} bytes; that is no data.yaml")
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(data, Loader=yaml.SafeLoader)):
            raise SourceError(f"{where}: holds aliases (*name), which may stand for gigabytes; write them out")
        value = yaml.safe_load(data)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise SourceError(f"{where}: no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(value, dict):
        raise SourceError(f"{where}: is {shown(value)}, where Ultralytics' keys (train, val, names) belong")
    value = {("val" if key == "validation" else key): entry for key, entry in value.items()}
    return DataYaml(
        folder=_path(value.get("path"), "path", where),
        splits={split: _places(value[split], split, where) for split in SPLITS if value.get(split) is not None},
        names=_names(value.get("names"), where),
        num_keypoint_columns=_keypoint_columns(value.get("kpt_shape"), where),
    )


def _path(value: Any, key: str, where: str) -> str | None:
    if value is None or isinstance(value, str):
        return (value or "").replace("\\", "/") or None
    raise SourceError(f"{where}: '{key}' is {shown(value)}, not a path")


def _places(value: Any, key: str, where: str) -> tuple[str, ...]:
    paths = [_path(entry, key, where) for entry in (value if isinstance(value, list) else [value])]
    return tuple(path for path in paths if path is not None)


def _names(value: Any, where: str) -> dict[int, str]:
    """Return the names by class: a list, or an object whose keys are numbers, as text too."""
    if value is None:
        return {}
    named = dict(enumerate(value)) if isinstance(value, list) else value
    if not isinstance(named, dict):
        raise SourceError(f"{where}: 'names' is {shown(value)}, neither a list nor names by number")
    names: dict[int, str] = {}
    for key, name in named.items():
        if isinstance(key, bool) or not str(key).strip().isdecimal() or text(name) is None:
            raise SourceError(f"{where}: 'names' has {shown(key)}: {shown(name)}; a number and a name belong there")
        names[int(key)] = str(text(name))
    return names


def _keypoint_columns(value: Any, where: str) -> int:
    if value is None:
        return 0
    if not isinstance(value, list) or len(value) != 2 or not all(isinstance(side, int) and side > 0 for side in value):
        raise SourceError(f"{where}: 'kpt_shape' is {shown(value)}, not [keypoints, 2 or 3]")
    return int(value[0] * value[1])
