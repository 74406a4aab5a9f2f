// The page: which view the address asks for, notices, and the keyboard.

import { h } from "./dom.js";
import { get } from "./api.js";
import * as audit from "./audit.js";
import * as compare from "./compare.js";
import * as crops from "./crops.js";
import * as detail from "./detail.js";
import * as edits from "./edits.js";
import * as gallery from "./gallery.js";
import * as map from "./map.js";
import * as marks from "./marks.js";
import * as overview from "./overview.js";
import * as url from "./url.js";

const VIEWS = { "": ["Gallery", gallery], crops: ["Crops", crops], compare: ["Compare", compare], audit: ["Audit", audit], map: ["Map", map], dataset: ["Data set", overview] };
/** Views whose address says something else than a selection. */
const APART = ["dataset", "audit", "map"];
const HELP = [
  ["j, k or ↓, ↑", "next, previous image or crop; in an open image, region"],
  ["Enter", "open the image"],
  ["←, →", "previous, next page; in an open image, image"],
  ["/", "search"],
  ["r", "another random sample"],
  ["g, p, c, d", "gallery, crops, compare, data set"],
  ["a, m", "audit, map"],
  ["y, x, n", "keep, bad, note on the crop or the region that is chosen"],
  ["e, z", "edit its caption and label; take the last edit back"],
  ["+, −, 0, 1", "in an open image: zoom in, out, fit, original size"],
  ["Esc", "close"],
  ["?", "this list"],
];
const root = document.querySelector("#view");
const notices = document.querySelector("#notices");
const search = document.querySelector("#search input");
const state = { about: null, shown: null, page: { images: [], more: false }, running: null, failed: null };

function notice(text, kind) {
  const line = h("p", { class: `notice ${kind}` }, text, h("button", { type: "button", "aria-label": "Dismiss", click: () => line.remove() }, "✕"));
  return line;
}

function fail(error) {
  if (error.name === "AbortError") return;
  state.failed?.remove();
  state.failed = notice(error.message, "error");
  notices.append(state.failed);
}

function tabs() {
  const query = url.selection().replace(/(^|&)page=\d+/, "");
  const open = { compare: state.about.titles.length > 1, audit: state.about.audit, map: state.about.features };
  const shown = Object.entries(VIEWS).filter(([path]) => open[path] ?? true);
  document.querySelector("#tabs").replaceChildren(
    ...shown.map(([path, [name]]) => {
      const carried = APART.includes(path) || APART.includes(url.view()) ? "" : query.replace(/(^|&)diff=[^&]*/, "");
      return h("a", { href: (path || "./") + (carried && `?${carried}`), "aria-current": url.view() === path ? "page" : null }, name);
    }),
  );
}

async function about() {
  state.about = await get("api/about");
  marks.allow(state.about.marks);
  edits.allow(state.about.edits);
  crops.allowMap(state.about.features);
  const name = state.about.titles.join(" and ");
  document.querySelector("#title").textContent = name;
  document.title = `${name} · FineCLIP Regions`;
  const seen = new Set([...notices.querySelectorAll(".problem")].map((line) => line.firstChild.data));
  for (const { message } of state.about.problems) if (!seen.has(message)) notices.append(notice(message, "problem"));
}

async function render() {
  const address = url.view() + "?" + withoutOpen();
  if (address !== state.shown) {
    state.running?.abort();
    state.running = new AbortController();
    state.failed?.remove();
    document.body.classList.remove("filtering");
    search.value = url.read().get("q") ?? "";
    const moved = state.shown !== null;
    state.shown = address;
    tabs();
    const [, view] = VIEWS[url.view()] ?? VIEWS[""];
    try {
      if (moved) scrollTo(0, 0);
      state.page = await view.show(root, { signal: state.running.signal, about: state.about, fail });
      state.page.counting.catch(fail);
      // A table that turned out to be damaged is a problem from now on.
      state.page.counting.then(about, () => {});
    } catch (error) {
      fail(error);
      if (error.name !== "AbortError") root.querySelector(".items")?.replaceChildren(h("p", { class: "empty" }, "This cannot be shown: see above."));
    }
  }
  const open = url.read().get("open");
  if (open) await detail.open(open, { images: state.page.images, fail });
  else detail.close();
}

function withoutOpen() {
  const parameters = url.read();
  parameters.delete("open");
  return parameters.toString();
}

function help() {
  const dialog = h(
    "dialog",
    { class: "small", "aria-label": "Keyboard shortcuts" },
    h("h2", {}, "Keyboard"),
    h("dl", { class: "keys" }, HELP.map(([keys, text]) => [h("dt", {}, h("kbd", {}, keys)), h("dd", {}, text)])),
    h("form", { method: "dialog" }, h("button", { class: "primary" }, "Close")),
  );
  dialog.addEventListener("close", () => dialog.remove());
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  document.body.append(dialog);
  dialog.showModal();
}

function move(by) {
  const cards = [...root.querySelectorAll("article")];
  const now = cards.findIndex((card) => card.contains(document.activeElement));
  const next = cards[Math.min(Math.max(now + by, 0), cards.length - 1)];
  next?.focus();
  next?.scrollIntoView({ block: "nearest", behavior: "smooth" });
}

function turn(by) {
  const page = Number(url.read().get("page") ?? 1) + by;
  if (page >= 1 && (by < 0 || state.page.more)) url.update({ page: page === 1 ? null : page });
}

/** Call `act` with the image and id of the region that has the focus. */
function onFocused(act) {
  const region = document.activeElement.closest("[data-region]")?.dataset.region;
  const { shard, key } = document.activeElement.closest("article")?.dataset ?? {};
  if (region && shard && url.view() !== "compare") act({ shard, key }, region);
}

const KEYS = {
  j: () => move(1),
  ArrowDown: () => move(1),
  k: () => move(-1),
  ArrowUp: () => move(-1),
  ArrowLeft: () => turn(-1),
  ArrowRight: () => turn(1),
  Enter: () => {
    const { shard, key, region } = document.activeElement.closest("article")?.dataset ?? {};
    if (shard) url.update({ open: [shard, key, region].filter(Boolean).join("/") });
  },
  "/": () => search.select(),
  r: () => APART.includes(url.view()) || gallery.shuffle(),
  g: () => url.go("./"),
  p: () => url.go("crops"),
  c: () => state.about.titles.length > 1 && url.go("compare"),
  d: () => url.go("dataset"),
  a: () => state.about.audit && url.go("audit"),
  m: () => state.about.features && url.go("map"),
  y: () => onFocused((image, region) => marks.decide(image, region, true)),
  x: () => onFocused((image, region) => marks.decide(image, region, false)),
  n: () => onFocused(marks.note),
  e: () => onFocused(edits.open),
  z: edits.undo,
  "?": help,
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const target = event.target;
  if (target.matches("input, textarea, select")) {
    if (event.key === "Escape") target.blur();
    return;
  }
  if (document.querySelector("dialog.small[open]")) return;
  if (event.key === "Enter" && target.matches("button, a, summary")) return;
  if (detail.isOpen()) {
    if (detail.key(event.key)) event.preventDefault();
  } else if (event.key in KEYS) {
    event.preventDefault();
    KEYS[event.key]();
  }
});

search.form.addEventListener("submit", (event) => {
  event.preventDefault();
  const apart = APART.includes(url.view());
  const q = search.value.trim();
  url.go(apart ? `./?${new URLSearchParams({ q })}` : url.address({ q: q || null, side: null, open: null, page: null }));
  search.blur();
});
search.addEventListener("search", () => search.value === "" && url.read().has("q") && url.update({ q: null }));
document.querySelector("#help").addEventListener("click", help);
marks.onMark(({ error, count }) => {
  if (error) fail(error);
  else state.about.num_marks = count;
});
edits.onFailure(fail);
url.onChange(render);

try {
  await about();
  await render();
} catch (error) {
  fail(error);
}
