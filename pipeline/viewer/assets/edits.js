// Captions and labels corrected by hand: texts that follow their edit, a dialog, and the way back.

import { h } from "./dom.js";
import { edit as send } from "./api.js";

const known = new Map();
const undone = [];
let enabled = false;
const listeners = [];

const name = (key, regionId) => `${key}\n${regionId}`;

/** Whether edits can be saved. */
export const allow = (can) => (enabled = can);

/** Call `listener` with a message when an edit could not be saved. */
export const onFailure = (listener) => listeners.push(listener);

/** Take in the edits that came with a page of images. */
export function receive(rows, images) {
  for (const { key, regions } of images) for (const { id } of regions) known.delete(name(key, id));
  for (const row of rows) known.set(name(row.key, row.region_id), row);
}

const editOf = (key, regionId) => known.get(name(key, regionId)) ?? null;

/** A region's caption or label as a person left it, or as the data have it; it follows the region's edit. */
export function text(image, region, field, properties = {}) {
  const span = h("span", { ...properties, "data-edit-key": image.key, "data-edit-region": region.id, "data-edit-field": field, "data-edit-seen": region.fields[field] ?? "" });
  paint(span);
  return span;
}

function paint(span) {
  const { editKey, editRegion, editField, editSeen } = span.dataset;
  const now = editOf(editKey, editRegion);
  const shown = now ? (now[editField] ?? "") : editSeen;
  const changed = shown !== editSeen;
  span.replaceChildren(shown, ...(changed ? [" ", h("span", { class: "edited", title: `before: ${editSeen || "no label"}` }, "edited")] : []));
  span.hidden = shown === "" && !changed;
}

/** A button that opens the dialog for a region. */
export function button(image, region) {
  if (!enabled || region.fields.status !== "ok") return null;
  return h("button", { type: "button", class: "mark edit", title: "Edit caption and label (e)", "aria-label": "Edit", click: (event) => (event.stopPropagation(), open(image, region.id)) }, "Aa");
}

/** Ask for a region's caption and label, and save them. */
export async function open(image, regionId) {
  if (!enabled || !regionId) return;
  const spans = [...document.querySelectorAll("[data-edit-region]")].filter((span) => span.dataset.editKey === image.key && span.dataset.editRegion === regionId);
  const seen = (field) => spans.find((span) => span.dataset.editField === field)?.dataset.editSeen ?? "";
  if (!seen("caption")) return;
  const before = editOf(image.key, regionId);
  const now = before ?? { caption: seen("caption"), label: seen("label") };
  const answer = await ask(now.caption, now.label ?? "", seen("caption"));
  if (answer && (await save(image, regionId, answer))) undone.push({ image, regionId, before });
}

/** Take the last edit of this page back. */
export async function undo() {
  const last = undone.pop();
  if (last) await save(last.image, last.regionId, last.before ?? { caption: null, label: null });
}

async function save(image, regionId, { caption, label }) {
  try {
    const answer = await send({ shard: image.shard, key: image.key, region_id: regionId, caption, label: label || null });
    if (answer.edit) known.set(name(image.key, regionId), answer.edit);
    else known.delete(name(image.key, regionId));
    for (const span of document.querySelectorAll("[data-edit-region]"))
      if (span.dataset.editKey === image.key && span.dataset.editRegion === regionId) paint(span);
    return true;
  } catch (error) {
    listeners.forEach((listener) => listener(error));
    return false;
  }
}

function ask(caption, label, seen) {
  const text = h("textarea", { rows: 3, maxlength: 2000, "aria-label": "Caption" });
  const kind = h("input", { type: "text", maxlength: 200, "aria-label": "Label" });
  text.value = caption;
  kind.value = label;
  const dialog = h(
    "dialog",
    { class: "small", "aria-label": "Edit" },
    h(
      "form",
      { method: "dialog", class: "edit" },
      h("h2", {}, "Edit"),
      h("label", {}, "Caption", text),
      h("label", {}, "Label", kind),
      caption !== seen && h("p", { class: "quiet" }, `before: ${seen}`),
      h("menu", {}, h("button", { value: "save", class: "primary" }, "Save"), h("button", { value: "" }, "Cancel")),
    ),
  );
  document.body.append(dialog);
  text.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) dialog.close("save");
  });
  dialog.showModal();
  return new Promise((resolve) =>
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "save" ? { caption: text.value, label: kind.value.trim() } : null);
    }),
  );
}
