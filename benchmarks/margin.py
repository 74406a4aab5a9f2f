"""Does the margin find wrong captions? Scenes with a fifth of their captions swapped on purpose, scored by two CLIPs.

    python -m benchmarks.margin --start STUDY/work/train/KEY/model [--out docs/results]

The shipped CLIP saw crops with true captions when it was trained; the start of the scenes benchmark (`--start`, recipe
scenes_clip) saw whole scenes and their captions alone. The threshold that is best by F1 is chosen on one set of scenes;
precision and recall are those of another. Writes margin.json and margin.svg.
"""

import argparse
import contextlib
import io
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import numpy.typing as npt

import fineclip
from schemas.dataset import Dataset
from schemas.overlays import SCORES

SHARE = 0.2
NAMES = dict(zip(SCORES, ("CLIP score", "margin in the image", "margin in the sample"), strict=True))
COLOURS = {"margin_in_sample": "#0a58ca", "margin_in_image": "#b35900", "clip_score": "#57606a"}
_SIDE, _GAP, _LEFT, _TOP = 260, 70, 60, 66

Floats = npt.NDArray[np.float64]


def run(*arguments: str) -> None:
    """Run a `fineclip` command, which must end well."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = fineclip.main(arguments)
    if code:
        raise SystemExit(f"fineclip {' '.join(arguments)}: exit code {code}\n{said.getvalue()}")


def make(folder: Path, num: int, seed: int) -> str:
    """Make scenes with true boxes, and the overlay `swapped`; return the data set."""
    data = str(folder / f"scenes-{seed}")
    flags = ("--proposer", "manual", "--captioner", "rule", "--shard-size", "1000")
    run("annotate", f"scenes:{num}?seed={seed}", data, *flags)
    run("truth", data, "--swap", str(SHARE), "--seed", str(seed))
    return data


def scored(data: str, model: str, name: str) -> dict[str, npt.NDArray[Any]]:
    """Return the scores of a data set's regions by a model, and which of the captions are wrong."""
    run("score-regions", data, "--model", model, "--as", name, "--overlay", "swapped")
    rows = Dataset.open(data, overlays=["swapped", name]).regions(["region_id", "captioner", "status", *SCORES])
    kept = [row for row in rows.to_pylist() if row["region_id"] is not None and row["status"] == "ok"]
    columns = {each: np.array([row[each] for row in kept], dtype=np.float64) for each in SCORES}
    return {**columns, "wrong": np.array([row["captioner"] == "swapped" for row in kept])}


def curve(values: Floats, wrong: npt.NDArray[np.bool_]) -> tuple[Floats, Floats, Floats]:
    """Return thresholds, and precision and recall of "wrong where the value is below", ascending by threshold.

    What has no value is not told to be wrong.
    """
    there = ~np.isnan(values)
    order = np.argsort(values[there], kind="stable")
    ordered, hits = values[there][order], np.cumsum(wrong[there][order])
    last = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)
    precision, recall = hits[last] / (last + 1), hits[last] / max(1, int(wrong.sum()))
    limits = np.append((ordered[last[:-1]] + ordered[last[:-1] + 1]) / 2, ordered[-1] + 1)
    return limits, precision, recall


def best(values: Floats, wrong: npt.NDArray[np.bool_]) -> float:
    """Return the threshold with the largest F1, to two digits."""
    limits, precision, recall = curve(values, wrong)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-9)
    return round(float(limits[f1.argmax()]), 2)


def at(values: Floats, wrong: npt.NDArray[np.bool_], threshold: float) -> dict[str, float]:
    """Return what a threshold finds."""
    told = values < threshold
    found = int((told & wrong).sum())
    precision, recall = found / max(1, int(told.sum())), found / max(1, int(wrong.sum()))
    return {
        "threshold": threshold,
        "told": int(told.sum()),
        "precision": round(precision, 4),
        "recall": round(recall, 4),
        "f1": round(2 * precision * recall / max(precision + recall, 1e-9), 4),
        "wrong_left": round(1 - (len(wrong) - wrong.sum() - (told & ~wrong).sum()) / max(1, int((~told).sum())), 4),
    }


def draw(panels: dict[str, dict[str, tuple[Floats, Floats]]], dots: dict[str, dict[str, dict[str, float]]]) -> str:
    """Return an SVG of precision over recall, a panel a model, with a dot where the threshold was chosen."""
    width = _LEFT + len(panels) * (_SIDE + _GAP)
    height = _TOP + _SIDE + 76
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="Helvetica, Arial, sans-serif" font-size="13">',
        "<title>Precision and recall of swapped captions</title>",
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        _text(12, 22, "Swapped captions found: precision over recall; dots: threshold chosen on other scenes", "bold"),
    ]
    for number, (title, curves) in enumerate(panels.items()):
        left = _LEFT + number * (_SIDE + _GAP)
        parts.append(_text(left, _TOP - 14, title, "bold"))
        parts += _axes(left)
        for name, (precision, recall) in curves.items():
            points = " ".join(
                f"{left + x * _SIDE:.1f},{_TOP + (1 - y) * _SIDE:.1f}"
                for x, y in zip(recall.tolist(), precision.tolist(), strict=True)
            )
            parts.append(f'<polyline points="{points}" fill="none" stroke="{COLOURS[name]}" stroke-width="2"/>')
            dot = dots[title][name]
            x, y = left + dot["recall"] * _SIDE, _TOP + (1 - dot["precision"]) * _SIDE
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{COLOURS[name]}"/>')
    for number, (name, title) in enumerate(NAMES.items()):
        left = _LEFT + number * 170
        parts.append(f'<rect x="{left}" y="{height - 24}" width="14" height="4" fill="{COLOURS[name]}"/>')
        parts.append(_text(left + 20, height - 18, title))
    return "\n".join([*parts, "</svg>", ""])


def _axes(left: int) -> list[str]:
    parts = []
    for share in (0, 0.2, 0.4, 0.6, 0.8, 1.0):
        x, y = left + share * _SIDE, _TOP + (1 - share) * _SIDE
        parts.append(f'<path d="M{left},{y:.0f}h{_SIDE}M{x:.0f},{_TOP}v{_SIDE}" stroke="#d8dee4" fill="none"/>')
        parts.append(_text(left - 8, y + 4, f"{share:.0%}", anchor="end"))
        parts.append(_text(x, _TOP + _SIDE + 18, f"{share:.0%}", anchor="middle"))
    parts.append(_text(left + _SIDE / 2, _TOP + _SIDE + 36, "recall", anchor="middle"))
    y = _TOP + (1 - SHARE) * _SIDE
    parts.append(f'<path d="M{left},{y:.0f}h{_SIDE}" stroke="#57606a" stroke-dasharray="4 3"/>')
    return parts


def _text(x: float, y: float, text: str, weight: str = "normal", *, anchor: str = "start") -> str:
    place = f'x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}" font-weight="{weight}"'
    return f'<text {place} fill="#1b1f24">{escape(text)}</text>'


def thinned(precision: Floats, recall: Floats, most: int = 200) -> tuple[Floats, Floats]:
    """Return a curve of at most `most` points, even in recall."""
    if len(recall) <= most:
        return precision, recall
    places = np.unique(np.searchsorted(recall, np.linspace(recall[0], 1, most)).clip(0, len(recall) - 1))
    return precision[places], recall[places]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--start", required=True, help="the CLIP of whole scenes: a folder in open_clip's layout")
    parser.add_argument("--scenes", type=int, default=1000, help="of each of the two sets (default: 1000)")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    options = parser.parse_args(arguments)
    models = {"the shipped CLIP, which saw true crops": "mini", "the CLIP of whole scenes": options.start}
    with tempfile.TemporaryDirectory() as folder:
        chosen_on, told_on = (make(Path(folder), options.scenes, seed) for seed in (21, 22))
        found: dict[str, Any] = {}
        panels: dict[str, dict[str, tuple[Floats, Floats]]] = {}
        for number, (title, model) in enumerate(models.items()):
            choose, tell = (scored(data, model, f"model{number}") for data in (chosen_on, told_on))
            limits = {name: best(choose[name], choose["wrong"]) for name in NAMES}
            found[title] = {name: at(tell[name], tell["wrong"], limits[name]) for name in NAMES}
            panels[title] = {name: thinned(*curve(tell[name], tell["wrong"])[1:]) for name in NAMES}
            regions = {"regions": len(tell["wrong"]), "wrong": int(tell["wrong"].sum())}
            print(title, regions, json.dumps(found[title], indent=1))
    said = {"share": SHARE, "scenes": options.scenes, "seeds": {"threshold": 21, "figures": 22}, **regions}
    (options.out / "margin.json").write_text(json.dumps({**said, "models": found}, indent=1) + "\n")
    (options.out / "margin.svg").write_text(draw(panels, found))


if __name__ == "__main__":
    main()
