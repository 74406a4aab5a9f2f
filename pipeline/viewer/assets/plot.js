// Plots as SVG: histograms, bars, shares. No numbers are made up here: the server counts.

import { h, number, s } from "./dom.js";

const HEIGHT = 44;

/** A histogram over `ends`; `front` (counts) before the paler `back`. Dragging calls `choose(low, high)`. */
export function histogram({ back, front = null, ends, height = HEIGHT, chosen = null, choose = null, label }) {
  const bins = back.length;
  const top = Math.max(1, ...back, ...(front ?? []));
  // A root, so that a few among many can still be seen.
  const tall = (count) => (count ? Math.max(1, Math.sqrt(count / top) * height) : 0);
  const bar = (css) => (count, bin) =>
    s("rect", { class: css, x: bin + 0.08, y: height - tall(count), width: 0.84, height: tall(count) });
  const [low, high] = ends;
  const position = (value) => ((Math.min(Math.max(value, low), high) - low) / (high - low || 1)) * bins;
  const plot = s(
    "svg",
    { viewBox: `0 0 ${bins} ${height}`, preserveAspectRatio: "none", class: "histogram", role: "img", "aria-label": label },
    back.map(bar(front ? "back" : "front")),
    (front ?? []).map(bar("front")),
    chosen && s("rect", { class: "chosen", x: position(chosen[0]), width: Math.max(0.2, position(chosen[1]) - position(chosen[0])), y: 0, height }),
  );
  if (choose) brush(plot, bins, height, (from, to) => choose(low + (from / bins) * (high - low), low + (to / bins) * (high - low)));
  return plot;
}

function brush(plot, bins, height, choose) {
  let start = null;
  const band = s("rect", { class: "chosen", y: 0, height, x: 0, width: 0 });
  const at = (event) => {
    const area = plot.getBoundingClientRect();
    return Math.min(Math.max((event.clientX - area.left) / area.width, 0), 1) * bins;
  };
  plot.classList.add("brush");
  plot.addEventListener("pointerdown", (event) => {
    start = at(event);
    plot.setPointerCapture(event.pointerId);
    plot.append(band);
  });
  plot.addEventListener("pointermove", (event) => {
    if (start === null) return;
    band.setAttribute("x", Math.min(start, at(event)));
    band.setAttribute("width", Math.abs(at(event) - start));
  });
  plot.addEventListener("pointerup", (event) => {
    const [from, to] = [Math.min(start, at(event)), Math.max(start, at(event))];
    start = null;
    band.remove();
    if (to - from > bins / 100) choose(Math.floor(from), Math.ceil(to));
  });
}

/** A share of several parts: {css, count, title}. */
export function share(parts) {
  const total = parts.reduce((sum, part) => sum + part.count, 0) || 1;
  let x = 0;
  return s(
    "svg",
    { viewBox: "0 0 100 8", preserveAspectRatio: "none", class: "share", role: "img", "aria-label": parts.map((part) => part.title).join(", ") },
    parts.map((part) => {
      const width = (part.count / total) * 100;
      const bar = s("rect", { class: part.css, x, y: 0, width, height: 8 }, s("title", {}, part.title));
      x += width;
      return bar;
    }),
  );
}

/** Horizontal bars: rows of {text, count, href}. */
export function bars(rows, css = "") {
  const top = Math.max(1, ...rows.map((row) => row.count));
  return h(
    "ul",
    { class: `bars ${css}` },
    rows.map((row) =>
      h(
        "li",
        {},
        h(row.href ? "a" : "span", { class: "name", href: row.href, title: row.text }, row.text),
        s(
          "svg",
          { viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" },
          s("rect", { class: "front", x: 0, y: 0, width: Math.max(0.5, (row.count / top) * 100), height: 10 }),
        ),
        h("span", { class: "count" }, number(row.count)),
      ),
    ),
  );
}
