"""Outlines of the shapes in unit coordinates, and the textures that fill them.

Outlines are lists of closed contours `[P, 2]` float64 (x right, y down) around the origin; two contours mean that the
inner one is a hole. Their scale is free: `layout` fits the longer side to the size it wants.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Contour = npt.NDArray[np.float64]
"""`[P, 2]` x, y."""

PERIOD_PX = 7.0
"""Repeat of every texture. The same in all sizes, as a fabric's: a large object shows more of it."""


def _turns(start: float, stop: float, count: int, radius: float = 1.0) -> Contour:
    """Return `count` points `[count, 2]` on a circle, from `start` to `stop` in turns clockwise from the right."""
    angles = 2 * np.pi * np.linspace(start, stop, count)
    return radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _polygon(num_corners: int, start: float) -> Contour:
    return _turns(start, start + 1, num_corners + 1)[:-1]


def _star() -> Contour:
    corners = _polygon(10, -0.25)
    corners[1::2] *= 0.42
    return corners


def _heart() -> Contour:
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    x = 16 * np.sin(angle) ** 3
    y = -(13 * np.cos(angle) - 5 * np.cos(2 * angle) - 2 * np.cos(3 * angle) - np.cos(4 * angle))
    return np.stack([x, y], axis=1) / 16


def _crescent() -> Contour:
    outer = _turns(0.12, 0.88, 40)
    inner = _turns(0.80, 0.20, 32, radius=0.78) + np.array([0.42, 0])
    return np.concatenate([outer, inner])


def _cross() -> Contour:
    arm = 0.33
    quarter = [(arm, -1), (arm, -arm), (1, -arm)]
    turn = np.array([[0, 1], [-1, 0]])
    return np.concatenate([np.array(quarter) @ np.linalg.matrix_power(turn, k) for k in range(4)])


_CORNERS = [(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)]
_ARROW = [(-1.0, -0.28), (0.05, -0.28), (0.05, -0.8), (1.0, 0.0), (0.05, 0.8), (0.05, 0.28), (-1.0, 0.28)]
_DIAMOND = [(0.0, -1.0), (0.55, 0.0), (0.0, 1.0), (-0.55, 0.0)]

OUTLINES: dict[str, tuple[Contour, ...]] = {
    "circle": (_polygon(48, 0),),
    "square": (np.array(_CORNERS),),
    "triangle": (_polygon(3, -0.25),),
    "star": (_star(),),
    "cross": (_cross(),),
    "ring": (_polygon(48, 0), 0.55 * _polygon(40, 0)),
    "heart": (_heart(),),
    "crescent": (_crescent(),),
    "arrow": (np.array(_ARROW),),
    "diamond": (np.array(_DIAMOND),),
}

Grid = npt.NDArray[np.float32]
"""`[H, W]` coordinates in pixels, turned with the object."""
Pattern = npt.NDArray[np.bool_]
"""`[H, W]`, true where the second tone goes."""


def _solid(u: Grid, v: Grid) -> Pattern:
    return np.zeros(np.broadcast_shapes(u.shape, v.shape), dtype=np.bool_)


def _striped(u: Grid, v: Grid) -> Pattern:
    return np.asarray(np.mod(u, PERIOD_PX) < 0.45 * PERIOD_PX)


def _dotted(u: Grid, v: Grid) -> Pattern:
    from_dot_u = np.mod(u, PERIOD_PX) - PERIOD_PX / 2
    from_dot_v = np.mod(v, PERIOD_PX) - PERIOD_PX / 2
    return np.asarray(from_dot_u**2 + from_dot_v**2 < (0.32 * PERIOD_PX) ** 2)


def _checkered(u: Grid, v: Grid) -> Pattern:
    half = PERIOD_PX * 0.6
    return np.asarray(np.mod(np.floor(u / half) + np.floor(v / half), 2) < 1)


PATTERNS: dict[str, Callable[[Grid, Grid], Pattern]] = {
    "solid": _solid,
    "striped": _striped,
    "dotted": _dotted,
    "checkered": _checkered,
}
"""Texture -> function of the coordinates."""
