"""YOLO's labels: a text file an image, a line an object, all coordinates shares of the image's width and height.

    class x y width height [score]                a box by its centre; a track's number is no score
    class x y x y x y ... [score]                 an outline, or OBB's four corners: the box around it
    class x y width height, then keypoints        with `kpt_shape` in data.yaml: the box

A line that cannot be used is a region with a problem, and the others are as they are. (Ultralytics drops the image.)
"""

from pipeline.read.record import NOWHERE, SampleRecord, is_beyond
from pipeline.sample import GivenRegion
from schemas.loose_json import number, shown
from schemas.text import lines_of

_BOX = 5
"""Columns of a line of one box."""


def read_labels(data: bytes, name: str, names: dict[int, str], num_keypoint_columns: int = 0) -> SampleRecord:
    """Return the objects of the label file called `name`, none for an empty one; ids are line numbers from 1.

    `names` are the classes', empty where there are none to tell; pose labels have `num_keypoint_columns` behind a box.
    """
    lines = [(place, line.split()) for place, line in enumerate(lines_of(data), start=1) if line.strip()]
    num_tracks = sum(_is_track(fields) for _, fields in lines)
    told = f"{name}: {num_tracks:,} of its boxes have a whole number above 1, as of a track: it is not read as a score"
    return SampleRecord(
        given=tuple(_region(fields, place, name, names, num_keypoint_columns) for place, fields in lines),
        in_shares=True,
        has_regions=True,
        note=told if num_tracks else None,
    )


def _is_track(fields: list[str]) -> bool:
    """Return whether a box has the number of a track where its score may be."""
    last = number(fields[-1]) if len(fields) == _BOX + 1 else None
    return last is not None and last > 1 and float(last).is_integer()


def _region(fields: list[str], line: int, name: str, names: dict[int, str], num_keypoint_columns: int) -> GivenRegion:
    numbers = [value for value in map(number, fields) if value is not None]
    problem = _problem(fields, numbers, names)
    if problem is not None:
        return GivenRegion(box=NOWHERE, id=str(line), problem=f"{name}, line {line}: {problem}")
    if num_keypoint_columns and len(numbers) == _BOX + num_keypoint_columns:
        numbers = numbers[:_BOX]
    box, score = _box(numbers[1 : _BOX if _is_track(fields) else None])
    if is_beyond(box):
        problem = f"{name}, line {line}: {shown(' '.join(fields))} lies outside the image; shares in 0..1 are due"
    elif score is not None and not 0 <= score <= 1:
        problem = f"{name}, line {line}: the last of {shown(' '.join(fields))} is no score, and angles are not read"
    return GivenRegion(box=box, label=names.get(int(numbers[0])), score=score, id=str(line), problem=problem)


def _problem(fields: list[str], numbers: list[float], names: dict[int, str]) -> str | None:
    """Return what makes the fields no label at all."""
    said = shown(" ".join(fields))
    if len(numbers) < len(fields):
        return f"{said} is not all numbers"
    if len(numbers) < _BOX:
        return f"{said} has {len(numbers)} columns; a box has {_BOX}, an outline 7 or more"
    if not numbers[0].is_integer() or numbers[0] < 0:
        return f"the class {fields[0]} is no whole number from 0"
    if names and int(numbers[0]) not in names:
        return f"the class {fields[0]} is none of the {len(names):,} of 'names'"
    return None


def _box(coordinates: list[float]) -> tuple[tuple[float, float, float, float], float | None]:
    """Return the box in xyxy shares, and the score; an outline has an even number of coordinates."""
    if len(coordinates) <= _BOX:
        x, y, width, height = coordinates[:4]
        score = coordinates[4] if len(coordinates) == _BOX else None
        return (x - width / 2, y - height / 2, x + width / 2, y + height / 2), score
    score = coordinates.pop() if len(coordinates) % 2 else None
    xs, ys = coordinates[::2], coordinates[1::2]
    return (min(xs), min(ys), max(xs), max(ys)), score
