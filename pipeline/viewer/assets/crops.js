// Regions as crops with their captions: the quickest way to judge captions.

import { h, score, sentence } from "./dom.js";
import { imageUrl } from "./api.js";
import { colour, explain } from "./figure.js";
import { browse, toolbar } from "./gallery.js";
import * as edits from "./edits.js";
import * as marks from "./marks.js";
import * as url from "./url.js";

const CROP_PX = 360;

/** The pixels of one region, or why there are none. */
function pixels(image, region) {
  const frame = h("span", { class: "frame" });
  if (!image.stored || !region.box) {
    frame.append(h("span", { class: "broken" }, image.stored ? `${region.count} proposals without a box` : "the image is not in the tar"));
    return frame;
  }
  const name = region.fields.caption ?? region.fields.reason ?? region.id;
  const picture = h("img", { src: imageUrl("a", image, CROP_PX, region.box), alt: `Crop: ${name}`, loading: "lazy" });
  picture.addEventListener("error", () => explain(frame, picture.src));
  frame.append(picture);
  return frame;
}

let mapped = false;

/** Whether there is a map, on which what is near a region can be seen. */
export const allowMap = (on) => (mapped = on);

/** A region as a card; `value` is a number to show with it, and its meaning. */
export function card(image, value = null) {
  const [region] = image.regions;
  const { label, caption, caption_score, proposal_score, status, reason, message } = region.fields;
  const open = url.address({ open: `${image.shard}/${image.key}/${region.id}` });
  return h(
    "article",
    { class: `cutout ${status}`, tabindex: -1, "data-shard": image.shard, "data-key": image.key, "data-region": region.id },
    h("a", { href: open, class: "picture", title: `Open ${image.key}` }, pixels(image, region)),
    h(
      "div",
      { class: "body" },
      h("p", { class: "caption" }, caption !== null ? edits.text(image, region, "caption") : h("em", {}, sentence(message || `${status}: ${reason}`))),
      h(
        "small",
        {},
        (label || caption !== null) && edits.text(image, region, "label", { class: `label ${colour(region, 0, null)}` }),
        status !== "ok" && h("span", { class: `status ${status}` }, `${status}: ${reason}`),
        proposal_score !== null && h("span", { title: `proposal score ${proposal_score}` }, `box ${score(proposal_score)}`),
        caption_score !== null && h("span", { title: `caption score ${caption_score}` }, `text ${score(caption_score)}`),
        value !== null && h("b", {}, value),
        mapped && h("a", { href: `map?near=${[image.shard, image.key, region.id].map(encodeURIComponent).join("/")}`, title: "What is nearest to it" }, "near"),
      ),
    ),
    marks.buttons(image, region.id, edits.button(image, region)),
  );
}

/** Show the crops in `root`; returns the images that they are of. */
export async function show(root, context) {
  const page = await browse(root, context, {
    path: "api/crops",
    toolbarFor: (text) => toolbar(text, { colours: false }),
    draw: (items) => h("div", { class: "cutouts" }, items.map((image) => card(image))),
    numPages: ({ regions }) => Math.ceil(regions / context.about.crops_page_size),
  });
  const images = new Map(page.images.map((image) => [`${image.shard}/${image.key}`, image]));
  return { ...page, images: [...images.values()] };
}
