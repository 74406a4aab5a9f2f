"""The report of an audit: one HTML page that needs nothing else and runs no script, and the same as JSON."""

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.audit.filters import Filter
from pipeline.audit.pictures import Sheets, Shown
from pipeline.audit.recommend import Advice
from pipeline.audit.sweep import Sweep, Totals
from pipeline.html_page import lone_page
from schemas.text import counted

_CSS = """\
:root { color-scheme: light dark; --line: light-dark(#dfe3e8, #2a2f37); --quiet: light-dark(#5d6673, #97a1ae);
  --accent: light-dark(#2f55d4, #8ea8ff); --drop: light-dark(#c9302c, #ff7a74); --keep: light-dark(#18784a, #45b97f);
  font: 15px/1.5 system-ui, sans-serif; background: light-dark(#f6f7f9, #101215); color: light-dark(#1b1f26, #e7eaee); }
body { margin: 0 auto; max-width: 1080px; padding: 24px 20px 60px; }
h1 { font-size: 24px; margin: 0; } h2 { font-size: 18px; margin: 0 0 4px; } h3 { font-size: 14px; margin: 10px 0 6px; }
p { margin: 4px 0 10px; } .quiet { color: var(--quiet); } .drop { color: var(--drop); } .keep { color: var(--keep); }
section { background: light-dark(#fff, #181b20); border: 1px solid var(--line); border-radius: 10px;
  padding: 16px 20px; margin-top: 16px; }
table { border-collapse: collapse; width: 100%; } td, th { padding: 4px 10px 4px 0; text-align: left;
  border-bottom: 1px solid var(--line); vertical-align: top; } .n { text-align: right; white-space: nowrap;
  font-variant-numeric: tabular-nums; } .scroll { overflow-x: auto; }
svg { display: block; width: 100%; height: 90px; } .area { fill: var(--accent); opacity: .25; }
.curve { fill: none; stroke: var(--accent); stroke-width: 2; vector-effect: non-scaling-stroke; }
.at { stroke: var(--drop); stroke-width: 1.5; stroke-dasharray: 4 3; vector-effect: non-scaling-stroke; }
.ends { display: flex; justify-content: space-between; color: var(--quiet); font-size: 13px; }
.sheets { display: grid; grid-template-columns: 1fr 1fr; gap: 20px; } ol { list-style: none; margin: 0; padding: 0;
  display: grid; grid-template-columns: repeat(auto-fill, minmax(110px, 1fr)); gap: 10px; }
li { font-size: 12px; line-height: 1.35; overflow-wrap: anywhere; } li img { display: block; width: 100%; height: 96px;
  object-fit: contain; background: light-dark(#eceef2, #0b0d10); border-radius: 6px; margin-bottom: 3px; }
a { color: inherit; } .wide { min-width: 640px; } .wide td:last-child { width: 50%; }
@media (max-width: 700px) { .sheets { grid-template-columns: 1fr; } }
"""


@dataclass(frozen=True, kw_only=True)
class Audited:
    """What was found of one filter."""

    sweep: Sweep
    advice: Advice
    threshold: float | None
    """What goes into the filter list; None where the filter is off."""
    sheets: Sheets | None
    """At the threshold, or where it is off at one that drops some."""

    @property
    def filter(self) -> Filter:
        """The filter."""
        return self.sweep.filter


def as_json(audited: Sequence[Audited], totals: Totals, about: dict[str, Any]) -> dict[str, Any]:
    """Return the report as values of JSON."""
    return {
        **about,
        "regions": {"audited": totals.regions, "dropped": totals.regions_dropped},
        "images": {
            "audited": totals.images,
            "dropped": totals.images_dropped,
            "left_without_regions": totals.images_left_empty,
        },
        "filters": [_filter_json(each, totals) for each in audited],
    }


def _filter_json(each: Audited, totals: Totals) -> dict[str, Any]:
    sweep, name = each.sweep, each.filter.name
    measured = sweep.num_measured > 0
    return {
        "name": name,
        "title": each.filter.title,
        "drops": each.filter.what,
        "keeps": each.filter.keeps,
        "column": each.filter.column,
        "measured": sweep.num_measured,
        "was_measured": each.advice.was_measured,
        "least": round(sweep.least, 6) if measured else None,
        "most": round(sweep.most, 6) if measured else None,
        "recommended": each.advice.threshold,
        "reason": each.advice.reason,
        "threshold": each.threshold,
        "dropped": totals.alone.get(name, 0),
        "dropped_by_it_alone": totals.only.get(name, 0),
        "thresholds": [
            {"threshold": round(float(each.filter.thresholds[at]), 6), "dropped": int(sweep.drops[at])}
            for at in sweep.telling()
        ]
        if measured
        else [],
    }


def as_html(
    audited: Sequence[Audited],
    totals: Totals,
    about: dict[str, Any],
    *,
    crop: Callable[[dict[str, Any]], str | None],
) -> bytes:
    """Return the report as a page; `crop` gives a region's pixels as the address of an image."""
    measured = [each for each in audited if each.sweep.num_measured]
    title = f"Audit of {about['title']}"
    sections = "\n".join(_section(each, totals, crop) for each in measured)
    body = f"""<h1>{html.escape(title)}</h1>
<p>{_headline(totals)}</p>
<section><h2>The filters together</h2>
<div class="scroll"><table class="wide">
<tr><th>filter</th><th>kept if</th><th class="n">drops</th><th class="n">it alone</th><th>why</th></tr>
{"".join(_row(each, totals) for each in audited)}
</table></div>
<p class="quiet">"It alone": regions that no other filter drops. What a filter has no number of, it keeps.</p></section>
{sections}"""
    return lone_page(title, _CSS, body)


def _headline(totals: Totals) -> str:
    kept = totals.regions - totals.regions_dropped
    share = kept / totals.regions if totals.regions else 1.0
    said = (
        f"The filter list keeps {kept:,} of {counted(totals.regions, 'region')} ({share:.1%}) and drops "
        f"{counted(totals.images_dropped, 'image')} of {totals.images:,}."
    )
    if totals.images_left_empty:
        said += f" {counted(totals.images_left_empty, 'image')} would have no region left."
    return html.escape(said)


def _row(each: Audited, totals: Totals) -> str:
    name = each.filter.name
    if not each.advice.was_measured:
        what = f"<td>{html.escape(each.filter.title)}</td><td colspan='3'>not measured</td>"
        return f"<tr class='quiet'>{what}<td>{html.escape(each.advice.reason)}</td></tr>"
    condition = "off" if each.threshold is None else each.filter.says(each.threshold)
    alone, only = totals.alone.get(name, 0), totals.only.get(name, 0)
    title = html.escape(each.filter.title)
    title = f"<a href='#{name}'>{title}</a>" if each.sweep.num_measured else title
    return (
        f"<tr><td>{title}</td><td>{condition}</td><td class='n'>{alone:,}</td>"
        f"<td class='n'>{only:,}</td><td>{html.escape(each.advice.reason)}</td></tr>"
    )


def _section(each: Audited, totals: Totals, crop: Callable[[dict[str, Any]], str | None]) -> str:
    sweep, limits = each.sweep, each.filter.thresholds
    rows = "".join(
        f"<tr><td>{each.filter.says(float(limits[at]))}</td><td class='n'>{int(sweep.drops[at]):,}</td>"
        f"<td class='n'>{sweep.drops[at] / max(1, totals.regions):.1%}</td></tr>"
        for at in sweep.telling()
    )
    table = f"<tr><th>kept if</th><th class='n'>regions dropped</th><th class='n'>share</th></tr>{rows}"
    measured = counted(sweep.num_measured, "image" if each.filter.of_images else "region")
    what = html.escape(f"Drops {each.filter.what}. Measured of {measured}, from {sweep.least:.4g} to {sweep.most:.4g}.")
    return f"""<section id="{each.filter.name}"><h2>{html.escape(each.filter.title)}</h2>
<p class="quiet">{what}</p>
<p><b>{"Recommended: " + each.filter.says(each.advice.threshold) if each.advice.threshold is not None else "Off"}</b>:
{html.escape(each.advice.reason)}.</p>
{_curve(each, totals.regions)}
{f'<div class="scroll"><table>{table}</table></div>' if rows else "<p>No threshold drops any.</p>"}
{_sheets(each.sheets, crop) if each.sheets else ""}</section>"""


def _curve(each: Audited, num_regions: int) -> str:
    """Return the share of the regions that is dropped, by threshold, over the range of what was measured."""
    limits, sweep = each.filter.thresholds, each.sweep
    low, high = max(each.filter.low, sweep.least), min(each.filter.high, sweep.most)
    inside = np.flatnonzero((limits >= low) & (limits <= high))
    if len(inside) < 2 or not num_regions:
        return ""
    spread = float(limits[inside[-1]] - limits[inside[0]])
    across = (limits[inside] - limits[inside[0]]) / spread * 100
    down = 100 - sweep.drops[inside] / num_regions * 100
    points = " ".join(f"{x:.2f},{y:.2f}" for x, y in zip(across.tolist(), down.tolist(), strict=True))
    at = ""
    if each.threshold is not None and limits[inside[0]] <= each.threshold <= limits[inside[-1]]:
        place = (each.threshold - float(limits[inside[0]])) / spread * 100
        at = f'<line class="at" x1="{place:.2f}" x2="{place:.2f}" y1="0" y2="100"/>'
    name = html.escape(f"Share of the regions that is dropped, by threshold: {each.filter.title}")
    return (
        f'<svg viewBox="0 0 100 100" preserveAspectRatio="none" role="img" aria-label="{name}">'
        f'<polygon class="area" points="0,100 {points} 100,100"/><polyline class="curve" points="{points}"/>{at}</svg>'
        f'<div class="ends"><span>{limits[inside[0]]:.4g}</span><span>share dropped, 0 to 100 %</span>'
        f"<span>{limits[inside[-1]]:.4g}</span></div>"
    )


def _sheets(sheets: Sheets, crop: Callable[[dict[str, Any]], str | None]) -> str:
    dropped = ("drop", f"Dropped: {sheets.filter.says_not(sheets.threshold)}", sheets.dropped)
    kept = ("keep", f"Kept: {sheets.filter.says(sheets.threshold)}", sheets.kept)
    parts = [
        f'<div><h3 class="{css}">{html.escape(title)}</h3><ol>{"".join(_item(one, crop) for _, one in shown)}</ol>'
        f"{'' if shown else '<p>none</p>'}</div>"
        for css, title, shown in (dropped, kept)
    ]
    return f'<div class="sheets">{"".join(parts)}</div>'


def _item(shown: Shown, crop: Callable[[dict[str, Any]], str | None]) -> str:
    row = shown.row
    uri = crop(row)
    picture = f'<img src="{uri}" alt="">' if uri else ""
    near = next((row[name] for name in ("duplicate_of", "against_of") if row[name]), None)
    more = f" near {near}" if near and shown.value in (row["duplicate"], row["against"]) else ""
    text = row["caption"] if row["caption"] is not None else "(no caption)"
    return f'<li>{picture}{html.escape(text)} <span class="quiet">{shown.value:.4g}{html.escape(more)}</span></li>'
