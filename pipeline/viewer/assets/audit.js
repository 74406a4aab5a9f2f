// The filters of an audit as sliders: what each drops, all of them together, and what lies on both sides of one.

import { h, number, plural } from "./dom.js";
import { choose, get } from "./api.js";
import { histogram } from "./plot.js";
import { card } from "./crops.js";
import * as edits from "./edits.js";
import * as marks from "./marks.js";
import * as url from "./url.js";

const WAIT_MS = 150;
let offered = null;

const share = (part, whole) => `${number(part)} (${((part / Math.max(1, whole)) * 100).toFixed(1)} %)`;
const tidy = (value) => Number(value.toFixed(4));

/** Thresholds by filter, as the address says; what it does not name is as the audit's list has it. */
function thresholds() {
  const parameters = url.read();
  const chosen = {};
  for (const { name, threshold } of offered.filters) {
    const said = parameters.get(name) ?? (threshold === null ? "off" : String(threshold));
    if (said !== "off") chosen[name] = Number(said);
  }
  return chosen;
}

/** The filter whose regions are shown: the one that was moved last, else the first that is on. */
function shown(chosen) {
  const asked = url.read().get("show");
  return asked in chosen ? asked : (Object.keys(chosen)[0] ?? null);
}

function slider(filter, chosen, change) {
  const { name, title, keeps, ends, step, bins, reason, recommended } = filter;
  const on = name in chosen;
  const value = chosen[name] ?? recommended ?? ends[0];
  const line = h("p", { class: "drops", "data-filter": name }, on ? "…" : "off");
  const field = h("input", { type: "number", step, "aria-label": `${title}: threshold` });
  field.value = tidy(value);
  const range = h("input", { type: "range", min: ends[0], max: ends[1], step, "aria-label": `${title}: slider` });
  range.value = value;
  const plot = (at) => {
    const kept = keeps === "at least" ? [at, ends[1]] : [ends[0], at];
    return histogram({ back: bins, front: bins.map(() => 0), ends, chosen: kept, label: `${title}: histogram of the regions` });
  };
  const frame = h("div", { class: "kept-range" }, plot(value));
  const move = (to) => {
    field.value = tidy(to);
    range.value = to;
    frame.replaceChildren(plot(to));
    change(name, to);
  };
  range.addEventListener("input", () => move(Number(range.value)));
  field.addEventListener("change", () => field.value !== "" && move(Number(field.value)));
  const toggle = h("input", { type: "checkbox", checked: on, "aria-label": `${title}: on` });
  toggle.addEventListener("change", () => change(name, toggle.checked ? value : null));
  return h(
    "fieldset",
    { class: `slider${on ? "" : " off"}` },
    h("legend", {}, h("label", {}, toggle, " ", title)),
    frame,
    range,
    h("div", { class: "kept-if" }, h("span", {}, `kept ${keeps}`), field),
    line,
    h("details", {}, h("summary", {}, recommended === null ? "not recommended" : `recommended: ${keeps} ${tidy(recommended)}`), h("p", { class: "quiet" }, reason)),
  );
}

function side(title, css, found) {
  return h(
    "section",
    {},
    h("h3", { class: css }, title),
    found.length ? h("div", { class: "cutouts" }, found.map(({ item, value }) => card(item, String(Number(value.toPrecision(4)))))) : h("p", { class: "quiet" }, "none"),
  );
}

/** Show the page in `root`. */
export async function show(root, { signal, fail }) {
  offered ??= await get("api/audit", signal);
  let chosen = thresholds();
  const total = h("p", { class: "counted", role: "status" }, "Counting…");
  const sides = h("div", { class: "both items" });
  const saved = h("p", { class: "quiet", role: "status" });
  const save = h("button", { type: "button", class: "primary" }, "Save as a filter list");
  let timer = null;
  let counting = null;

  async function count() {
    counting?.abort();
    counting = new AbortController();
    signal.addEventListener("abort", () => counting.abort(), { once: true });
    const name = shown(chosen);
    const query = new URLSearchParams({ ...chosen, ...(name && { show: name }) });
    const found = await get(`api/drops?${query}`, counting.signal);
    marks.receive(found.marks, Object.values(found.sides).flat().map(({ item }) => item));
    edits.receive(found.edits, Object.values(found.sides).flat().map(({ item }) => item));
    total.replaceChildren(
      "Drops ", h("b", {}, share(found.regions_dropped, found.regions)), ` of ${plural(found.regions, "region")}, `,
      h("b", {}, number(found.images_dropped)), ` of ${plural(found.images, "image")}`,
    );
    for (const line of root.querySelectorAll(".drops")) {
      const each = found.each[line.dataset.filter];
      line.textContent = each ? `drops ${share(each.dropped, found.regions)}, ${number(each.only)} alone` : "off";
    }
    const filter = offered.filters.find((one) => one.name === name);
    sides.replaceChildren(
      ...(filter
        ? [
            h("h2", {}, `${filter.title}: the regions nearest to ${tidy(chosen[name])}`),
            h("div", { class: "pairwise" }, side("Dropped", "dead", found.sides.dropped), side("Kept", "ok", found.sides.kept)),
          ]
        : [h("p", { class: "empty" }, "No filter is on.")]),
    );
  }

  function change(name, value) {
    const isNew = value === null || !(name in chosen);
    const moved = { ...chosen, [name]: value };
    chosen = Object.fromEntries(Object.entries(moved).filter(([, limit]) => limit !== null));
    saved.textContent = "";
    url.go(url.address({ [name]: value === null ? "off" : String(tidy(value)), show: name, open: null }), { replace: true, quiet: !isNew });
    clearTimeout(timer);
    timer = setTimeout(() => count().catch(fail), WAIT_MS);
  }

  save.addEventListener("click", () =>
    choose(chosen).then(({ path, rows }) => (saved.textContent = `${plural(rows, "row")} in ${path}: give it to --filter`), fail),
  );
  root.replaceChildren(
    h(
      "div",
      { class: "columns" },
      h("aside", { "aria-label": "Filters", class: "sliders" }, h("div", { class: "filters" }, offered.filters.map((filter) => slider(filter, chosen, change)))),
      h("main", { id: "content", class: "content", tabindex: -1 }, h("div", { class: "toolbar" }, total, h("div", { class: "tools" }, save)), saved, sides),
    ),
  );
  await count();
  return { images: [], more: false, counting: Promise.resolve() };
}
