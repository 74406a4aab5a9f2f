// One image at full size: zoom, every region, the crop of one, the record in the tar.

import { h, pixels, plural, sentence } from "./dom.js";
import { get, imageUrl } from "./api.js";
import { crop, entries, figure, link } from "./figure.js";
import { chosen, regionLine } from "./gallery.js";
import * as edits from "./edits.js";
import * as marks from "./marks.js";
import * as url from "./url.js";

const NARROW_PX = 820;
const STEP = 1.3;
const MOST = 16;

let current = null;

/** Close the detail, if it is open. */
export function close() {
  current?.dialog.remove();
  current = null;
}

/** Open `SHARD/KEY` or `SHARD/KEY/REGION`; `images` are those of the page, to step through. */
export async function open(name, { images, fail }) {
  const [shard, key, regionId] = name.split("/");
  if (current?.name === name) return;
  try {
    const answer = await get(`api/image/${encodeURIComponent(shard)}/${encodeURIComponent(key ?? "")}`);
    if (url.read().get("open") !== name) return;
    marks.receive(answer.marks, answer.items);
    edits.receive(answer.edits, answer.items);
    const here = images.find((one) => one.shard === shard && one.key === key);
    build(name, { ...answer.items[0], hits: new Set(here ? chosen(here).map((region) => region.id) : []) }, images, regionId);
  } catch (error) {
    fail(error);
  }
}

function build(name, image, images, regionId) {
  close();
  // First what the filters chose, then what is ok, then the rest: as in the card that was opened.
  const rank = (region) => (image.hits.has(region.id) ? 0 : region.fields.status === "ok" ? 1 : 2);
  const regions = [...image.regions].sort((one, other) => rank(one) - rank(other));
  const all = entries(image, regions, url.read().get("colour"));
  const drawn = all.filter(({ region }) => rank(region) < 2);
  const view = figure(image, drawn, { tags: innerWidth < NARROW_PX ? 0.9 : 0.45 });
  const stage = h("div", { class: "stage", tabindex: -1, autofocus: true }, view);
  const region = h("section", { class: "region" });
  const lines = all.map((entry) => regionLine(image, entry));
  const list = h("ol", { class: "regions" }, lines);
  const record = h("dl", { class: "facts" });
  const place = images.findIndex((one) => one.shard === image.shard && one.key === image.key);
  const step = (by) => images[place + by] && place >= 0 && url.update({ open: `${images[place + by].shard}/${images[place + by].key}` }, { replace: true });
  const dialog = h(
    "dialog",
    { class: "detail", "aria-label": image.key },
    h(
      "header",
      {},
      h("h2", {}, image.key),
      h("span", { class: "quiet" }, `${image.shard}${image.fields.width ? ` · ${image.fields.width} × ${image.fields.height}` : ""} · ${plural(regions.length, "region")}`),
      h(
        "span",
        { class: "tools" },
        marks.buttons(image, null),
        h("button", { type: "button", title: "Zoom out (-)", "aria-label": "Zoom out", click: () => zoom.by(1 / STEP) }, "−"),
        h("button", { type: "button", title: "Fit (0)", class: "level", "aria-label": "Fit", click: () => zoom.fit() }, "fit"),
        h("button", { type: "button", title: "Zoom in (+)", "aria-label": "Zoom in", click: () => zoom.by(STEP) }, "+"),
        h("button", { type: "button", title: "Original size (1)", click: () => zoom.original() }, "1:1"),
        h("button", { type: "button", title: "Previous image (←)", "aria-label": "Previous image", disabled: place < 1, click: () => step(-1) }, "←"),
        h("button", { type: "button", title: "Next image (→)", "aria-label": "Next image", disabled: place < 0 || place + 1 >= images.length, click: () => step(1) }, "→"),
        h("button", { type: "button", title: "Close (Esc)", "aria-label": "Close", click: () => url.update({ open: null }) }, "✕"),
      ),
    ),
    h(
      "div",
      { class: "sides" },
      stage,
      h("div", { class: "panel" }, image.fields.image_caption && h("p", { class: "image-caption" }, image.fields.image_caption), region, list, record),
    ),
  );
  const zoom = zoomable(stage, view, image, dialog.querySelector(".level"));
  let selected = -1;
  const select = (index) => {
    selected = Math.min(Math.max(index, 0), all.length - 1);
    if (selected < 0) return;
    lines.forEach((line, position) => line.classList.toggle("selected", position === selected));
    lines[selected].scrollIntoView({ block: "nearest" });
    for (const box of view.querySelectorAll(".box")) box.classList.toggle("selected", box.dataset.region === all[selected].id);
    about(region, image, all[selected].region, view.querySelector("img"));
  };
  lines.forEach((line, index) => line.addEventListener("click", () => select(index)));
  view.addEventListener("click", (event) => {
    const id = event.target.closest("[data-region]")?.dataset.region;
    if (id) select(all.findIndex((entry) => entry.id === id));
  });
  dialog.addEventListener("cancel", (event) => (event.preventDefault(), url.update({ open: null })));
  dialog.addEventListener("close", () => url.read().has("open") && url.update({ open: null }));
  link(dialog);
  document.body.append(dialog);
  dialog.showModal();
  zoom.fit();
  current = { name, dialog, image, zoom, step, select: (by) => select(selected + by), region: () => all[selected]?.region ?? null };
  select(Math.max(0, all.findIndex((entry) => entry.id === regionId)));
  if (image.stored) facts(record, image);
}

function about(section, image, region, picture) {
  const { fields, box } = region;
  const row = (term, value) => value !== null && value !== undefined && [h("dt", {}, term), h("dd", {}, value)];
  section.replaceChildren(
    h(
      "dl",
      { class: "facts" },
      row("box", box && `${box.map(pixels).join(", ")} px`),
      row("size", box && `${pixels(box[2] - box[0])} × ${pixels(box[3] - box[1])} px`),
      row("proposer", fields.proposer),
      row("captioner", fields.captioner),
      fields.status !== "ok" && row("why", sentence(fields.message || fields.reason)),
      row("id", region.id),
    ),
  );
  if (!box || !picture) return;
  const holder = h("div", { class: "crop-holder", title: "The region at its original size" });
  section.prepend(holder);
  const draw = () => holder.replaceChildren(crop(picture, box));
  if (picture.complete && picture.naturalWidth) draw();
  else picture.addEventListener("load", draw, { once: true });
}

async function facts(list, image) {
  const row = (term, value) => value !== null && [h("dt", {}, term), h("dd", {}, String(value))];
  try {
    const record = await get(`api/record/a/${encodeURIComponent(image.shard)}/${encodeURIComponent(image.key)}`);
    const { uri, url: address, license } = record.source;
    list.append(...[row("source", uri), row("address", address), row("licence", license ?? "not stated"), row("sha256", record.image_sha256), row("stored", record.reencoded ? "re-encoded upright" : "as it came")].flat().filter(Boolean));
  } catch (error) {
    list.append(h("dt", {}, "record"), h("dd", { class: "error" }, error.message));
  }
  list.append(h("dt", {}, "file"), h("dd", {}, h("a", { href: imageUrl("a", image), target: "_blank", rel: "noopener" }, "the stored image")));
}

/** Zoom by size, so that lines stay thin and scrolling pans. */
function zoomable(stage, view, image, level) {
  const { width, height } = image.fields;
  let scale = null;
  const fitted = () => Math.min(stage.clientWidth / width, stage.clientHeight / height);
  const apply = (next, at = null) => {
    const before = scale ?? fitted();
    scale = Math.min(Math.max(next, Math.min(1, fitted() / 2)), Math.max(MOST, fitted()));
    const [x, y] = at ?? [stage.clientWidth / 2, stage.clientHeight / 2];
    const [left, top] = [stage.scrollLeft + x, stage.scrollTop + y];
    view.style.setProperty("width", `${width * scale}px`);
    view.style.setProperty("height", `${height * scale}px`);
    stage.scrollTo(left * (scale / before) - x, top * (scale / before) - y);
    level.textContent = `${Math.round(scale * 100)} %`;
    view.classList.toggle("pixelated", scale > 3);
  };
  if (!width) return { by() {}, fit() {}, original() {} };
  stage.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey && !event.altKey && stage.scrollHeight > stage.clientHeight) return;
    event.preventDefault();
    const area = stage.getBoundingClientRect();
    apply(scale * (event.deltaY < 0 ? STEP : 1 / STEP), [event.clientX - area.left, event.clientY - area.top]);
  }, { passive: false });
  pannable(stage);
  return { by: (factor) => apply(scale * factor), fit: () => apply(fitted()), original: () => apply(1) };
}

function pannable(stage) {
  let from = null;
  stage.addEventListener("pointerdown", (event) => (from = [event.clientX + stage.scrollLeft, event.clientY + stage.scrollTop]));
  addEventListener("pointerup", () => (from = null));
  stage.addEventListener("pointermove", (event) => from && stage.scrollTo(from[0] - event.clientX, from[1] - event.clientY));
  stage.addEventListener("dragstart", (event) => event.preventDefault());
}

const KEYS = {
  "+": () => current.zoom.by(STEP),
  "=": () => current.zoom.by(STEP),
  "-": () => current.zoom.by(1 / STEP),
  0: () => current.zoom.fit(),
  1: () => current.zoom.original(),
  ArrowLeft: () => current.step(-1),
  ArrowRight: () => current.step(1),
  j: () => current.select(1),
  ArrowDown: () => current.select(1),
  k: () => current.select(-1),
  ArrowUp: () => current.select(-1),
  y: () => marks.decide(current.image, current.region()?.id ?? null, true),
  x: () => marks.decide(current.image, current.region()?.id ?? null, false),
  n: () => marks.note(current.image, current.region()?.id ?? null),
  e: () => edits.open(current.image, current.region()?.id ?? null),
  z: edits.undo,
};

/** Whether an image is open: it has keys of its own. */
export const isOpen = () => current !== null;

/** Act on a key; whether it is one of an open image. */
export function key(name) {
  KEYS[name]?.();
  return name in KEYS;
}

