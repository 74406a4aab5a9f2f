"""Outlines of the shapes in unit coordinates, and the textures that fill them.

Outlines are lists of closed contours `[P, 2]` float64 (x right, y down) around the origin; two contours mean that the
inner one is a hole. Their scale is free: `layout` fits the longer side to the size it wants.
"""

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


_CIRCLE = _polygon(48, 0)
_CORNERS = [(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)]
_STAR = _polygon(10, -0.25)
_STAR[1::2] *= 0.42
_ARM, _QUARTER_TURN = 0.33, np.array([[0, 1], [-1, 0]])
_QUARTER = np.array([(_ARM, -1), (_ARM, -_ARM), (1, -_ARM)])
_CROSS = np.concatenate([_QUARTER @ np.linalg.matrix_power(_QUARTER_TURN, k) for k in range(4)])
_ANGLE = np.linspace(0, 2 * np.pi, 48, endpoint=False)
_HEART_X = 16 * np.sin(_ANGLE) ** 3
_HEART_Y = -(13 * np.cos(_ANGLE) - 5 * np.cos(2 * _ANGLE) - 2 * np.cos(3 * _ANGLE) - np.cos(4 * _ANGLE))
_HEART = np.stack([_HEART_X, _HEART_Y], axis=1) / 16
_CRESCENT = np.concatenate([_turns(0.12, 0.88, 40), _turns(0.80, 0.20, 32, radius=0.78) + np.array([0.42, 0])])
_ARROW = [(-1.0, -0.28), (0.05, -0.28), (0.05, -0.8), (1.0, 0.0), (0.05, 0.8), (0.05, 0.28), (-1.0, 0.28)]
_DIAMOND = [(0.0, -1.0), (0.55, 0.0), (0.0, 1.0), (-0.55, 0.0)]

OUTLINES: dict[str, tuple[Contour, ...]] = {
    "circle": (_CIRCLE,),
    "square": (np.array(_CORNERS),),
    "triangle": (_polygon(3, -0.25),),
    "star": (_STAR,),
    "cross": (_CROSS,),
    "ring": (_CIRCLE, 0.55 * _polygon(40, 0)),
    "heart": (_HEART,),
    "crescent": (_CRESCENT,),
    "arrow": (np.array(_ARROW),),
    "diamond": (np.array(_DIAMOND),),
}

Grid = npt.NDArray[np.float32]
"""`[H, W]` coordinates in pixels, turned with the object."""


def pattern(texture: str, u: Grid, v: Grid) -> npt.NDArray[np.bool_]:
    """Return `[H, W]`, true where the second tone of a texture goes. Raises ValueError for an unknown texture."""
    if texture == "solid":
        return np.zeros(np.broadcast_shapes(u.shape, v.shape), dtype=np.bool_)
    if texture == "striped":
        return np.asarray(np.mod(u, PERIOD_PX) < 0.45 * PERIOD_PX)
    if texture == "dotted":
        from_dot_u, from_dot_v = (np.mod(axis, PERIOD_PX) - PERIOD_PX / 2 for axis in (u, v))
        return np.asarray(from_dot_u**2 + from_dot_v**2 < (0.32 * PERIOD_PX) ** 2)
    if texture == "checkered":
        half = PERIOD_PX * 0.6
        return np.asarray(np.mod(np.floor(u / half) + np.floor(v / half), 2) < 1)
    raise ValueError(f"texture {texture!r} is not one of solid, striped, dotted, checkered")
