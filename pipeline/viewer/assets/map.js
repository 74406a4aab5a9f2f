// A map of the regions by their features, and what is nearest to the one that is chosen.

import { h, number, plural, s } from "./dom.js";
import { get } from "./api.js";
import { colour } from "./figure.js";
import { card } from "./crops.js";
import * as edits from "./edits.js";
import * as marks from "./marks.js";
import * as url from "./url.js";

const SIDE = 1000;
let offered = null;

const place = ([x, y]) => ({ cx: ((x + 1) / 2) * SIDE, cy: ((1 - y) / 2) * SIDE });
const nameOf = ([, , shard, key, id]) => [shard, key, id].join("/");

function points(chosen, choose) {
  const dots = offered.points.map((point) => {
    const name = nameOf(point);
    const css = colour({ fields: { label: point[5] } }, 0, null);
    return s("circle", { ...place(point), r: name === chosen ? 14 : 5, class: `${css}${name === chosen ? " chosen" : ""}`, "data-name": name });
  });
  const label = `Map of ${plural(offered.points.length, "region")}; click a point to see what is near it`;
  const plot = s("svg", { viewBox: `-20 -20 ${SIDE + 40} ${SIDE + 40}`, class: "map", role: "img", "aria-label": label }, dots);
  plot.addEventListener("click", (event) => {
    const area = plot.getBoundingClientRect();
    const unit = (SIDE + 40) / Math.min(area.width, area.height);
    const at = [(event.clientX - area.left) * unit - 20, (event.clientY - area.top) * unit - 20];
    const distance = (dot) => (dot.cx.baseVal.value - at[0]) ** 2 + (dot.cy.baseVal.value - at[1]) ** 2;
    const nearest = [...plot.querySelectorAll("circle")].reduce((best, dot) => (distance(dot) < distance(best) ? dot : best));
    choose(nearest.dataset.name);
  });
  return plot;
}

async function neighbours(name, by, signal) {
  const path = name.split("/").map(encodeURIComponent).join("/");
  const found = await get(`api/near/${path}?by=${by}`, signal);
  const items = [found.region, ...found.near.map(({ item }) => item)].filter(Boolean);
  marks.receive(found.marks, items);
  edits.receive(found.edits, items);
  const switcher = ["region", "caption"].map((one) =>
    h("button", { type: "button", "aria-pressed": String(one === by), click: () => url.update({ by: one === "region" ? null : one, near: name }) }, `by ${one}`),
  );
  return [
    h("div", { class: "toolbar" }, h("h2", {}, "Nearest"), h("div", { class: "segments" }, switcher)),
    found.region && h("div", { class: "cutouts" }, card(found.region, "chosen")),
    h("div", { class: "cutouts" }, found.near.map(({ item, value }) => card(item, value.toFixed(3)))),
  ].filter(Boolean);
}

/** Show the page in `root`. */
export async function show(root, { signal }) {
  offered ??= await get("api/map", signal);
  const name = url.read().get("near") ?? (offered.points.length ? nameOf(offered.points[0]) : null);
  const by = url.read().get("by") ?? "region";
  const whole = offered.held < offered.all ? ` Held: a sample of ${number(offered.held)} of ${plural(offered.all, "region")}.` : "";
  const about = `${plural(offered.points.length, "region")} on the two directions of largest variance, which hold ${(offered.variance * 100).toFixed(0)} % of it.${whole}`;
  const list = h("div", { class: "near items", "aria-busy": "true" });
  root.replaceChildren(
    h(
      "main",
      { id: "content", class: "content mapped", tabindex: -1 },
      h("section", { class: "block" }, points(name, (chosen) => url.update({ near: chosen })), h("p", { class: "quiet" }, about)),
      list,
    ),
  );
  list.replaceChildren(...(name ? await neighbours(name, by, signal) : [h("p", { class: "empty" }, "No region has features.")]));
  list.removeAttribute("aria-busy");
  return { images: [], more: false, counting: Promise.resolve() };
}
