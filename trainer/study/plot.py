"""A dot plot as SVG, written here: a mean, its interval and each seed, row by row, a panel a metric.

Not by matplotlib: the trainer would depend on it for this one picture, and its files change with its version. These are
the same bytes everywhere, a few kilobytes, and text in them stays text.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

_TITLE_PX, _PANEL_PX, _GAP_PX, _ROW_PX, _HEAD_PX, _FOOT_PX = 34, 150, 24, 22, 36, 34
_COLUMNS = 4
_LETTER_PX = 7.2
_INK, _FAINT, _GRID, _MARK = "#1b1f24", "#57606a", "#d8dee4", "#0a58ca"
_TICKS = (1, 2, 5, 10, 20, 25, 50)


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A row of a panel, in the panel's unit."""

    name: str
    values: Sequence[float]
    """By seed."""
    span: tuple[float, float] | None
    """The interval of their mean."""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A metric."""

    title: str
    marks: Sequence[Mark]
    chance: float | None
    """Drawn as a dashed line."""


def draw(title: str, panels: Sequence[Panel]) -> str:
    """Return an SVG document: rows by name, four panels side by side, each from 0 to its own largest value."""
    names = list(dict.fromkeys(mark.name for panel in panels for mark in panel.marks))
    left = 16 + _LETTER_PX * max(map(len, names))
    width = left + min(len(panels), _COLUMNS) * (_PANEL_PX + _GAP_PX) + 8
    line_px = _HEAD_PX + _ROW_PX * len(names) + _FOOT_PX
    height = _TITLE_PX + line_px * -(-len(panels) // _COLUMNS)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" font-family="Helvetica, Arial, sans-serif" font-size="13">',
        f"<title>{escape(title)}</title>",
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        _text(12, 22, title, weight="bold"),
    ]
    for number, panel in enumerate(panels):
        line, column = divmod(number, _COLUMNS)
        top = _TITLE_PX + line * line_px
        if column == 0:
            parts += [_text(left - 10, _middle(at, top) + 4, name, anchor="end") for at, name in enumerate(names)]
        parts += _panel(panel, names, left + column * (_PANEL_PX + _GAP_PX), top)
    return "\n".join([*parts, "</svg>", ""])


def _panel(panel: Panel, names: Sequence[str], x0: float, top: float) -> list[str]:
    tops = [value for mark in panel.marks for value in (*mark.values, *(mark.span or ()))]
    largest = max(*tops, panel.chance or 0, 1e-9)
    tick = next((tick for tick in _TICKS if largest / tick <= 4.5), 50)
    scale = (_PANEL_PX - 14) / (largest * 1.02)
    first, bottom = top + _HEAD_PX, top + _HEAD_PX + _ROW_PX * len(names)
    parts = [_text(x0, first - 15, f"{panel.title}, %")]
    for step in range(int(largest / tick) + 1):
        x = x0 + step * tick * scale
        parts.append(f'<path d="M{x:.1f} {first} V{bottom}" stroke="{_GRID}"/>')
        parts.append(_text(x, bottom + 18, f"{step * tick:g}", anchor="middle", colour=_FAINT))
    if panel.chance is not None:
        x = x0 + panel.chance * scale
        parts.append(f'<path d="M{x:.1f} {first} V{bottom}" stroke="{_FAINT}" stroke-dasharray="4 3"/>')
        parts.append(_text(x + 3, first - 2, "chance", colour=_FAINT, size=10))
    for mark in panel.marks:
        y = _middle(names.index(mark.name), top)
        if mark.span is not None:
            low, high = (x0 + edge * scale for edge in mark.span)
            parts.append(f'<path d="M{low:.1f} {y} H{high:.1f}" stroke="{_MARK}" stroke-width="2"/>')
        for value in mark.values:
            parts.append(f'<circle cx="{x0 + value * scale:.1f}" cy="{y}" r="3" fill="none" stroke="{_MARK}"/>')
        mean = sum(mark.values) / len(mark.values)
        parts.append(f'<circle cx="{x0 + mean * scale:.1f}" cy="{y}" r="4.5" fill="{_MARK}"/>')
    return parts


def _middle(number: int, top: float) -> float:
    return top + _HEAD_PX + _ROW_PX * (number + 0.5)


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", colour: str = _INK, weight: str = "normal", size: int = 13
) -> str:
    style = f'text-anchor="{anchor}" fill="{colour}" font-weight="{weight}" font-size="{size}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(text)}</text>'
