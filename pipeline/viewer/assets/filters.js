// The filters beside the gallery: each writes the address, and shows what the address says.

import { h, number } from "./dom.js";
import { get } from "./api.js";
import { histogram } from "./plot.js";
import * as url from "./url.js";

const RANGES = {
  proposal_score: "Proposal score",
  caption_score: "Caption score",
  area: "Box area (share of image)",
  caption_length: "Caption length (characters)",
};
const LISTS = { label: "Label", reason: "Reason", proposer: "Proposer", captioner: "Captioner", shard: "Shard" };
const STATUSES = ["ok", "filtered", "dead", "any"];
const MANY = 10;

let offered = null;
let offering = null;

/** The values and bounds that the data set offers; asked for once. */
export const offers = () => (offering ??= get("api/values").then((values) => (offered = values)));

/** The range of a parameter as [low, high], null for an open end. */
function range(name) {
  const text = url.read().get(name);
  if (!text) return null;
  const [low, high] = text.split("..");
  return [low === "" ? null : Number(low), high === "" || high === undefined ? null : Number(high)];
}

const setRange = (name, low, high) => url.update({ [name]: low === null && high === null ? null : `${low ?? ""}..${high ?? ""}` });

/** The whole panel; `summary` has the counts of what is selected, null while they are being counted. */
export function panel(summary) {
  return h(
    "div",
    { class: "filters" },
    status(),
    offered && Object.entries(RANGES).map(([name, title]) => rangeFilter(name, title, summary)),
    offered && Object.entries(LISTS).map(([name, title]) => listFilter(name, title)),
    keyFilter(),
    markFilter(),
  );
}

function status() {
  const chosen = url.read().getAll("status");
  const current = chosen.length ? chosen : [url.read().has("reason") ? "any" : "ok"];
  return h(
    "fieldset",
    {},
    h("legend", {}, "Status"),
    h(
      "div",
      { class: "segments" },
      STATUSES.map((value) =>
        h("button", { type: "button", "aria-pressed": String(current.includes(value)), click: () => url.update({ status: value === "ok" ? null : value }) }, value),
      ),
    ),
  );
}

function rangeFilter(name, title, summary) {
  const ends = offered.bounds[name];
  if (!ends) return null;
  const chosen = range(name);
  const step = name === "caption_length" ? 1 : 0.01;
  const tidy = (value) => Math.round(value / step) * step;
  const choose = (low, high) => setRange(name, Number(tidy(low).toFixed(2)), Number(tidy(high).toFixed(2)));
  const input = (side, label) => {
    const value = chosen?.[side] ?? "";
    const field = h("input", { type: "number", step: "any", placeholder: String(Number(ends[side].toFixed(2))), "aria-label": `${title}, ${label}` });
    field.value = value;
    field.addEventListener("change", () => {
      const next = [chosen?.[0] ?? null, chosen?.[1] ?? null];
      next[side] = field.value === "" ? null : Number(field.value);
      setRange(name, ...next);
    });
    return field;
  };
  return h(
    "fieldset",
    { class: "range" },
    h("legend", {}, title),
    histogram({
      back: offered.histograms[name],
      front: summary?.histograms[name] ?? Array(offered.histograms[name].length).fill(0),
      ends,
      chosen: chosen && [chosen[0] ?? ends[0], chosen[1] ?? ends[1]],
      choose,
      label: `${title}: histogram; drag to choose a range`,
    }),
    h("div", { class: "ends" }, input(0, "smallest"), h("span", {}, "to"), input(1, "largest")),
  );
}

function listFilter(name, title) {
  const values = offered.values[name].filter(([value]) => name !== "reason" || value !== null);
  if (!values.length || (values.length < 2 && name !== "reason")) return null;
  const chosen = new Set(url.read().getAll(name));
  const toggle = (value) => {
    chosen.has(value) ? chosen.delete(value) : chosen.add(value);
    url.update({ [name]: [...chosen] });
  };
  const row = ([value, count]) =>
    h(
      "label",
      { class: "choice" },
      h("input", { type: "checkbox", checked: chosen.has(value ?? ""), change: () => toggle(value ?? "") }),
      h("span", { class: "name" }, value ?? "none"),
      h("span", { class: "count" }, number(count)),
    );
  const list = h("div", { class: "choices" }, values.map(row));
  return h(
    "details",
    { open: chosen.size > 0 || name === "label" },
    h("summary", {}, title, chosen.size ? h("b", {}, String(chosen.size)) : null),
    values.length > MANY && narrowing(list, title),
    list,
  );
}

function narrowing(list, title) {
  const field = h("input", { type: "search", placeholder: "Find", "aria-label": `Find in ${title}` });
  field.addEventListener("input", () => {
    for (const row of list.children) row.hidden = !row.children[1].textContent.toLowerCase().includes(field.value.toLowerCase());
  });
  return field;
}

function keyFilter() {
  const field = h("input", { type: "search", placeholder: "part of a key", "aria-label": "Key" });
  field.value = url.read().get("key") ?? "";
  field.addEventListener("change", () => url.update({ key: field.value || null }));
  return h("fieldset", {}, h("legend", {}, "Key"), field);
}

function markFilter() {
  const current = url.read().get("mark") ?? "";
  return h(
    "fieldset",
    {},
    h("legend", {}, "Marks"),
    h(
      "div",
      { class: "segments" },
      ["", "keep", "bad", "note", "none"].map((value) =>
        h("button", { type: "button", "aria-pressed": String(current === value), click: () => url.update({ mark: value || null }) }, value || "all"),
      ),
    ),
  );
}

const CHIPS = ["q", "status", "label", "reason", "proposer", "captioner", "shard", "key", "mark", "text_hash", "diff", ...Object.keys(RANGES)];

/** What is chosen, each part with a button that takes it away. */
export function chips() {
  const parameters = url.read();
  const parts = CHIPS.flatMap((name) => parameters.getAll(name).filter((value) => name === "label" || value).map((value) => [name, value]));
  if (!parts.length) return null;
  const without = (name, value) => url.address({ [name]: parameters.getAll(name).filter((one) => one !== value) });
  return h(
    "ul",
    { class: "chips", "aria-label": "Filters" },
    parts.map(([name, value]) =>
      h("li", {}, h("span", {}, `${name.replace("_", " ")}: ${value || "none"}`), h("a", { href: without(name, value), "aria-label": `Remove ${name} ${value}`, title: "Remove" }, "✕")),
    ),
    h("li", { class: "all" }, h("a", { href: url.view() || "./" }, "Clear all")),
  );
}
