// An image with its boxes, and the link between a box and its caption.

import { h, s } from "./dom.js";
import { imageUrl } from "./api.js";

const NUM_COLOURS = 10;
const STATUS_COLOURS = { ok: "ok", filtered: "filtered", dead: "dead" };

function hash(text) {
  let value = 7;
  for (const letter of text) value = (value * 31 + letter.codePointAt(0)) % 65521;
  return value;
}

/** The class that colours a region: by its label (its number, where it has none), number or status. */
export function colour(region, index, by) {
  if (by === "status") return `c-${STATUS_COLOURS[region.fields.status] ?? "dead"}`;
  const { label } = region.fields;
  return `c${(by !== "number" && label ? hash(label) : index) % NUM_COLOURS}`;
}

/** The numbers of an image's regions by id: those that are ok first. Filters change none of them. */
export function numbers(image) {
  const isOk = (region) => region.fields.status === "ok";
  const all = [...image.regions.filter(isOk), ...image.regions.filter((region) => !isOk(region))];
  return new Map(all.map((region, index) => [region.id, index + 1]));
}

/** What figures and lists need of `regions` of an image. */
export function entries(image, regions, by) {
  const numberOf = numbers(image);
  return regions.map((region) => ({ id: region.id, region, number: numberOf.get(region.id), css: colour(region, numberOf.get(region.id) - 1, by) }));
}

/** Figure of `image`: `entries` are {id, region, number, css}; `size` limits the pixels asked for; `tags` scales numbers. */
export function figure(image, entries, { side = "a", size = null, tags = 1 } = {}) {
  const { width, height } = image.fields;
  const frame = h("div", { class: "frame" });
  if (!image.stored) {
    frame.append(h("p", { class: "broken" }, image.fields.message || "the image is not in the tar"));
    return frame;
  }
  const picture = h("img", { src: imageUrl(side, image, size), alt: image.fields.image_caption ?? image.key, loading: "lazy" });
  picture.addEventListener("error", () => explain(frame, picture.src));
  frame.append(picture, boxes(width, height, entries, tags));
  return frame;
}

/** Say in `frame` why the image at `address` cannot be shown. */
export async function explain(frame, address) {
  let text = "the browser cannot decode this image; its bytes in the tar are damaged";
  const response = await fetch(address).catch(() => null);
  if (response === null) text = "the viewer does not answer; is it still running?";
  else if (!response.ok) text = (await response.json()).error;
  frame.replaceChildren(h("p", { class: "broken" }, text));
}

function boxes(width, height, entries, tags) {
  const drawn = entries.filter(({ region }) => region.box);
  // The smallest come last, on top, so that each can be pointed at.
  drawn.sort((one, other) => area(other.region.box) - area(one.region.box));
  // A hundredth of what the frame of a card shows of the image, so that tags are of one size there.
  const unit = (Math.max(width / 4, height / 3) / 66) * tags;
  return s(
    "svg",
    { viewBox: `0 0 ${width} ${height}`, class: "boxes", "aria-hidden": "true" },
    drawn.map((entry) => box(entry, unit)),
  );
}

const area = ([x0, y0, x1, y1]) => (x1 - x0) * (y1 - y0);

function box({ id, region, number, css }, unit) {
  const [x0, y0, x1, y1] = region.box;
  const place = { x: x0, y: y0, width: x1 - x0, height: y1 - y0 };
  const tag = { width: (String(number).length * 3.2 + 3.6) * unit, height: 7.4 * unit };
  return s(
    "g",
    { class: `box ${css}`, "data-region": id },
    s("rect", { ...place, class: "halo" }),
    s("rect", { ...place, class: "line" }),
    s("rect", { x: x0, y: y0, ...tag, class: "tag" }),
    s("text", { x: x0 + tag.width / 2, y: y0 + 5.5 * unit, "font-size": 5.6 * unit }, String(number)),
  );
}

/** Light up the box of the caption that is pointed at, and the caption of the box, inside `scope`. */
export function link(scope) {
  const show = (id) => {
    scope.classList.toggle("linked", id !== null);
    for (const part of scope.querySelectorAll("[data-region]")) part.classList.toggle("hot", part.dataset.region === id);
    // Only the list itself is scrolled: the page must not move under the pointer.
    const row = id === null ? null : scope.querySelector(`.regions [data-region="${CSS.escape(id)}"]`);
    const list = row?.closest(".regions");
    if (!list || list.scrollHeight <= list.clientHeight) return;
    const top = row.getBoundingClientRect().top - list.getBoundingClientRect().top;
    if (top < 0 || top + row.offsetHeight > list.clientHeight) list.scrollTop += top;
  };
  const of = (event) => event.target.closest?.("[data-region]")?.dataset.region ?? null;
  scope.addEventListener("pointerover", (event) => show(of(event)));
  scope.addEventListener("pointerleave", () => show(null));
  scope.addEventListener("focusin", (event) => show(of(event)));
  return scope;
}

/** Draw a region of a loaded image at its original size: one pixel of the image for each of the page. */
export function crop(picture, box) {
  const [x0, y0, x1, y1] = box;
  const left = Math.floor(x0);
  const top = Math.floor(y0);
  const canvas = h("canvas", { class: "crop", width: Math.ceil(x1) - left, height: Math.ceil(y1) - top });
  canvas.getContext("2d").drawImage(picture, -left, -top);
  return canvas;
}

