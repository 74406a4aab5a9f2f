// Keep, bad and notes: buttons, and the marks as the server last said they are.

import { h } from "./dom.js";
import { mark as send } from "./api.js";

const known = new Map();
let enabled = false;
const listeners = [];

const name = (key, regionId) => `${key}\n${regionId ?? ""}`;

/** Whether marks can be saved. */
export const allow = (path) => (enabled = path !== null);

/** Call `listener` with (key, region id) when a mark changes, and with a message when that failed. */
export const onMark = (listener) => listeners.push(listener);

/** Take in the marks that came with a page of images. */
export function receive(rows, images) {
  for (const { key, regions } of images)
    [null, ...regions.map((region) => region.id)].forEach((id) => known.delete(name(key, id)));
  for (const row of rows) known.set(name(row.key, row.region_id), row);
}

/** The mark of a region, or with null of the image. */
export const markOf = (key, regionId) => known.get(name(key, regionId)) ?? null;

/** Save a decision; the same decision again takes it back. */
export async function decide(image, regionId, keep) {
  const now = markOf(image.key, regionId);
  await save(image, regionId, { keep: now?.keep === keep ? null : keep, note: now?.note ?? null });
}

/** Ask for a note and save it. */
export async function note(image, regionId) {
  const now = markOf(image.key, regionId);
  const text = await ask(now?.note ?? "");
  if (text !== null) await save(image, regionId, { keep: now?.keep ?? null, note: text || null });
}

async function save(image, regionId, { keep, note: text }) {
  if (!enabled) return;
  try {
    const answer = await send({ shard: image.shard, key: image.key, region_id: regionId, keep, note: text });
    if (answer.mark) known.set(name(image.key, regionId), answer.mark);
    else known.delete(name(image.key, regionId));
    listeners.forEach((listener) => listener({ key: image.key, regionId, count: answer.num_marks }));
  } catch (error) {
    listeners.forEach((listener) => listener({ key: image.key, regionId, error }));
  }
}

function ask(text) {
  const input = h("textarea", { rows: 3, maxlength: 2000, "aria-label": "Note" });
  input.value = text;
  const dialog = h(
    "dialog",
    { class: "small" },
    h("form", { method: "dialog" }, h("h2", {}, "Note"), input, h("menu", {}, h("button", { value: "save", class: "primary" }, "Save"), h("button", { value: "" }, "Cancel"))),
  );
  document.body.append(dialog);
  input.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) dialog.close("save");
  });
  dialog.showModal();
  return new Promise((resolve) =>
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "save" ? input.value.trim() : null);
    }),
  );
}

/** Buttons to mark a region; they show its mark, and follow it. `more` stands after them. */
export function buttons(image, regionId, more = null) {
  if (!enabled) return null;
  const make = (kind, symbol, title, act) =>
    h("button", { type: "button", class: `mark ${kind}`, title, "aria-label": title, click: (event) => (event.stopPropagation(), act()) }, symbol);
  const group = h(
    "span",
    { class: "marks", "data-mark-key": image.key, "data-mark-region": regionId ?? "" },
    make("keep", "✓", "Keep", () => decide(image, regionId, true)),
    make("bad", "✕", "Bad", () => decide(image, regionId, false)),
    make("note", "✎", "Note", () => note(image, regionId)),
    more,
  );
  paint(group);
  return group;
}

function paint(group) {
  const mark = markOf(group.dataset.markKey, group.dataset.markRegion || null);
  const [keep, bad, noted] = group.children;
  keep.setAttribute("aria-pressed", String(mark?.keep === true));
  bad.setAttribute("aria-pressed", String(mark?.keep === false));
  noted.setAttribute("aria-pressed", String(Boolean(mark?.note)));
  noted.title = mark?.note ? `Note: ${mark.note}` : "Note";
  group.classList.toggle("marked", mark !== null);
}

onMark(({ key, regionId }) => {
  for (const group of document.querySelectorAll(".marks"))
    if (group.dataset.markKey === key && group.dataset.markRegion === (regionId ?? "")) paint(group);
});
