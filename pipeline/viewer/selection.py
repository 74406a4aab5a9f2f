"""What a URL's query string selects: conditions in SQL with their parameters, an order, a page.

    q=red+"wooden table"         words and phrases of the caption, or of the image's own caption
    label=cat&label=dog          any of these; also proposer, captioner, reason, shard, text_hash
    status=ok|filtered|dead|any  ok unless it is given (any, where a reason is)
    proposal_score=0.5..0.9      also caption_score, area (share of the image), caption_length; either end may be open
    key=000012                   a part of the key
    mark=keep|bad|note|none
    sort=-caption_score          -: largest first; `random` with seed=N is a seeded random sample
    diff=changed                 where two data sets are compared: images that differ
    page=2

The page, the server and `fineclip sheet --where` share this syntax.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from schemas.reasons import Status

ONE_OF = ("label", "proposer", "captioner", "status", "reason", "shard", "text_hash")
"""Parameters that may be given several times: the column holds any of the values."""

RANGES = {
    "proposal_score": "proposal_score",
    "caption_score": "caption_score",
    "area": "(x1 - x0) * (y1 - y0) / (width * height)",
    "caption_length": "length(caption)",
}
"""SQL of what can be limited to a range, sorted by and shown as a histogram. `area` is a share of the image, 0 to 1;
`caption_length` counts characters."""

MARKS = {"keep": "keep", "bad": "NOT keep", "note": "note IS NOT NULL"}
_VIEW_ONLY = {"colour", "open"}
"""Parameters that change what the page shows of the same selection."""
_ANY = "any"
_NONE = ""
_TERM = re.compile(r'"([^"]+)"|(\S+)')
_MAX_PAGE = 1_000_000


class SelectionError(ValueError):
    """A query string says something that cannot be selected; the message names the parameter."""

    exit_code = 2


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Rows, in an order, from a page on. Equal selections select the same."""

    one_of: tuple[tuple[str, tuple[str, ...]], ...] = (("status", (Status.OK.value,)),)
    """Column and the values it may have."""
    ranges: tuple[tuple[str, float, float], ...] = ()
    """Name in `RANGES`, smallest and largest value, both included."""
    terms: tuple[str, ...] = ()
    """All of these occur, in any case, in the caption of the row: the region's, or in an image's row the image's."""
    key: str = ""
    mark: str | None = None
    changed_only: bool = False
    sort: str | None = None
    """Name in `RANGES`, or `random`; None for the order of the data."""
    descending: bool = False
    seed: int = 0
    page: int = 1

    def where(self) -> tuple[str, list[Any]]:
        """Return the condition on a row, in SQL, and its parameters."""
        parts: list[tuple[str, list[Any]]] = []
        for column, values in self.one_of:
            # An empty value stands for "none": regions without a label.
            none = f" OR ({column} IS NULL AND region_id IS NOT NULL)" if _NONE in values else ""
            parts.append((f"{column} IN ({', '.join('?' * len(values))}){none}", list(values)))
        for name, low, high in self.ranges:
            parts += [
                (f"{RANGES[name]} {op} ?", [end]) for op, end in ((">=", low), ("<=", high)) if math.isfinite(end)
            ]
        # The cheapest first, then the longest, which leave least to the others.
        parts += [_term(term) for term in sorted(self.terms, key=lambda term: (_has_case(term), -len(term)))]
        if self.key:
            parts.append(("contains(key, ?)", [self.key]))
        if self.mark is not None:
            negation, rows = ("NOT ", "") if self.mark == "none" else ("", f" WHERE {MARKS[self.mark]}")
            marked = f"(SELECT (key, region_id) FROM marks{rows})"
            parts.append((f"(key, coalesce(region_id, '')) {negation}IN {marked}", []))
        if self.changed_only:
            parts.append(("key IN (SELECT key FROM changed)", []))
        if self.sort in RANGES:
            parts.append((f"{RANGES[self.sort]} IS NOT NULL", []))
        sql = " AND ".join(f"({part})" for part, _ in parts) or "true"
        return sql, [value for _, values in parts for value in values]

    def order(self, *, of_regions: bool = False) -> tuple[str, list[Any]]:
        """Return the ORDER BY clause, empty for the order of the data, and its parameters.

        A random order keeps the regions of an image together, unless it is an order `of_regions`.
        """
        if self.sort is None:
            # DuckDB reads rows in their order, but a join (with marks or changes) may return them in another.
            return ("ORDER BY shard, row" if self.mark or self.changed_only else ""), []
        if self.sort == "random":
            unit = "key, ':', region_id" if of_regions else "key"
            return f"ORDER BY md5(concat(?::VARCHAR, ':', {unit})), shard, row", [str(self.seed)]
        return f"ORDER BY {RANGES[self.sort]} {'DESC' if self.descending else 'ASC'}, shard, row", []


def parse(query: str | Iterable[tuple[str, str]]) -> Selection:
    """Read a query string (with or without its `?`) or its pairs. Raises SelectionError for what it does not know."""
    pairs = parse_qsl(query.removeprefix("?"), keep_blank_values=True) if isinstance(query, str) else list(query)
    values: dict[str, list[str]] = {}
    for name, value in pairs:
        values.setdefault(name, []).append(value)
    single = {name: given[-1] for name, given in values.items() if name not in ONE_OF}
    known = {*ONE_OF, *RANGES, *_VIEW_ONLY, "q", "key", "mark", "diff", "sort", "seed", "page"}
    unknown = sorted(values.keys() - known)
    if unknown:
        raise SelectionError(f"no parameter {', '.join(unknown)}; there are {', '.join(sorted(known - _VIEW_ONLY))}")
    sort = single.get("sort", "")
    _check_choice("sort", sort.removeprefix("-"), ("", "random", *RANGES))
    _check_choice("mark", single.get("mark", ""), ("", "none", *MARKS))
    _check_choice("diff", single.get("diff", ""), ("", "changed"))
    return Selection(
        one_of=_parse_one_of(values),
        ranges=tuple(_parse_range(name, single[name]) for name in RANGES if single.get(name)),
        terms=tuple(phrase or word for phrase, word in _TERM.findall(single.get("q", ""))),
        key=single.get("key", ""),
        mark=single.get("mark") or None,
        changed_only=bool(single.get("diff")),
        sort=sort.removeprefix("-") or None,
        descending=sort.startswith("-"),
        seed=parse_int("seed", single.get("seed") or "0", low=0, high=2**53),
        page=parse_int("page", single.get("page") or "1", low=1, high=_MAX_PAGE),
    )


def _parse_one_of(values: dict[str, list[str]]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    chosen = {name: tuple(dict.fromkeys(values[name])) for name in ONE_OF if name in values}
    if "status" not in chosen and "reason" not in chosen:
        chosen["status"] = (Status.OK.value,)
    for status in chosen.get("status", ()):
        _check_choice("status", status, (_ANY, *(status.value for status in Status)))
    if _ANY in chosen.get("status", ()):
        del chosen["status"]
    return tuple(chosen.items())


def _parse_range(name: str, text: str) -> tuple[str, float, float]:
    low, dots, high = text.partition("..")
    try:
        ends = (float(low) if low else -math.inf), (float(high) if high else math.inf)
    except ValueError:
        ends = (math.nan, math.nan)
    if not dots or not ends[0] <= ends[1]:
        raise SelectionError(f"{name}={text}: give a range such as 0.5..0.9, 0.5.. or ..0.9")
    return name, *ends


def parse_int(name: str, text: str, *, low: int, high: int) -> int:
    """Return the whole number that the parameter `name` gives. Raises SelectionError for anything else."""
    if not text.isascii() or not text.isdigit() or not low <= int(text[:20]) <= high:
        raise SelectionError(f"{name}={text[:40]}: give a whole number from {low} to {high}")
    return int(text)


def parse_box(name: str, text: str) -> tuple[float, float, float, float]:
    """Return the xyxy box, in pixels, that the parameter `name` gives. Raises SelectionError for anything else."""
    try:
        x0, y0, x1, y1 = map(float, text.split(","))
    except ValueError:
        x0 = y0 = x1 = y1 = math.nan
    if not (x0 < x1 and y0 < y1) or not all(map(math.isfinite, (x0, y0, x1, y1))):
        raise SelectionError(f"{name}={text[:40]}: give a box as x0,y0,x1,y1 in pixels")
    return x0, y0, x1, y1


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise SelectionError(f"{name}={value}: choose from {', '.join(filter(None, choices))}")


def _has_case(term: str) -> bool:
    return term.lower() != term.upper()


def _term(term: str) -> tuple[str, list[Any]]:
    text = "CASE WHEN region_id IS NULL THEN image_caption ELSE caption END"
    if not _has_case(term):
        return f"contains({text}, ?)", [term]
    # A case-insensitive regular expression takes less time than ILIKE.
    return f"regexp_matches({text}, ?, 'i')", [re.escape(term)]
