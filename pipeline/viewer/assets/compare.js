// Two data sets or overlays side by side: the same images, their regions paired, what differs marked.

import { h, number, plural, score } from "./dom.js";
import { get } from "./api.js";
import { figure, link } from "./figure.js";
import { count, layout, pager, toolbar } from "./gallery.js";
import * as marks from "./marks.js";
import * as url from "./url.js";

const THUMBNAIL_PX = 768;
const NUM_COLOURS = 10;

/** The words of two texts as [same, only in one, only in other] runs: the longest common subsequence. */
export function diff(one, other) {
  const [left, right] = [one, other].map((text) => (text ?? "").split(/(?<=\s)/));
  const lengths = Array.from({ length: left.length + 1 }, () => new Uint16Array(right.length + 1));
  for (let i = left.length - 1; i >= 0; i--)
    for (let j = right.length - 1; j >= 0; j--)
      lengths[i][j] = left[i].trim() === right[j].trim() ? lengths[i + 1][j + 1] + 1 : Math.max(lengths[i + 1][j], lengths[i][j + 1]);
  const marked = [[], []];
  let [i, j] = [0, 0];
  while (i < left.length || j < right.length) {
    if (i < left.length && j < right.length && left[i].trim() === right[j].trim()) {
      marked[0].push([left[i++], false]);
      marked[1].push([right[j++], false]);
    } else if (j >= right.length || (i < left.length && lengths[i + 1][j] >= lengths[i][j + 1])) marked[0].push([left[i++], true]);
    else marked[1].push([right[j++], true]);
  }
  return marked;
}

const MOST_WORDS = 400;

function texts(ours, theirs) {
  const both = [ours, theirs].map((region) => region?.fields.caption ?? region?.fields.reason ?? "");
  if (!ours || !theirs || both[0] === both[1] || both.some((text) => text.split(" ").length > MOST_WORDS)) return both.map((text) => [text]);
  return diff(...both).map((words) => words.map(([word, changed]) => (changed ? [h("mark", {}, word.trimEnd()), word.slice(word.trimEnd().length)] : word)));
}

function cell(region, words, css, place, image) {
  if (!region) return h("div", { class: "cell none" }, "no such region");
  const { label, proposal_score, caption_score, status } = region.fields;
  return h(
    "div",
    { class: "cell" },
    h("span", { class: `chip ${css}` }, String(place)),
    h(
      "div",
      { class: "text" },
      words,
      h(
        "small",
        {},
        label && h("span", { class: `label ${css}` }, label),
        status !== "ok" && h("span", { class: `status ${status}` }, status),
        h("span", {}, `box ${score(proposal_score)}`),
        caption_score !== null && h("span", {}, `text ${score(caption_score)}`),
      ),
    ),
    image && marks.buttons(image, region.id),
  );
}

function verdict(pair) {
  if (pair.ours === null || pair.theirs === null) return ["only here", "only"];
  if (!pair.differences.length) return ["same", "same"];
  const names = pair.differences.map((name) => (name === "box" ? `box, IoU ${score(pair.iou)}` : name));
  return [`differs: ${names.join("; ")}`, "differs"];
}

function item({ ours, theirs, pairs }, titles) {
  const sides = [[], []];
  const rows = pairs.map((pair, index) => {
    const css = `c${index % NUM_COLOURS}`;
    const [left, right] = [ours.regions[pair.ours] ?? null, theirs?.regions[pair.theirs] ?? null];
    [left, right].forEach((region, side) => {
      const alone = pair.ours === null || pair.theirs === null ? " alone" : "";
      if (region) sides[side].push({ id: String(index), region, number: index + 1, css: css + alone });
    });
    const words = texts(left, right);
    const [text, kind] = verdict(pair);
    return h("li", { "data-region": String(index), tabindex: 0, class: `pair ${kind}` }, cell(left, words[0], css, index + 1, ours), cell(right, words[1], css, index + 1, null), h("span", { class: "verdict" }, text));
  });
  const changed = pairs.filter((pair) => verdict(pair)[1] !== "same").length;
  const side = (title, image, boxes, name) => h("figure", {}, h("figcaption", {}, title), image ? figure(image, boxes, { side: name, size: THUMBNAIL_PX }) : h("div", { class: "frame" }, h("p", { class: "broken" }, "this image is not in the other data set")));
  return link(
    h(
      "article",
      { class: "comparison", tabindex: -1, "data-key": ours.key, "data-shard": ours.shard },
      h("header", {}, h("h2", {}, ours.key), h("span", { class: changed ? "verdict differs" : "verdict" }, changed ? `${number(changed)} of ${plural(pairs.length, "region")} differ` : "the same")),
      h("div", { class: "pictures" }, side(titles[0], ours, sides[0], "a"), side(titles[1], theirs, sides[1], "b")),
      ours.fields.image_caption && h("p", { class: "image-caption" }, ours.fields.image_caption),
      h("ol", { class: "pairs regions" }, rows),
    ),
  );
}

async function tell(target, titles, signal) {
  const found = await get("api/differences", signal);
  const tile = (value, text) => h("li", {}, h("b", {}, number(value)), text);
  target.replaceChildren(
    h(
      "ul",
      { class: "tiles" },
      tile(found.images_changed - found.images_only_first - found.images_only_second, "images differ"),
      tile(found.captions_changed, "captions differ on the same box"),
      tile(found.regions_same_box, "regions on the same box"),
      tile(found.regions_first, `regions in ${titles[0]}`),
      tile(found.regions_second, `regions in ${titles[1]}`),
      found.images_only_first > 0 && tile(found.images_only_first, `images only in ${titles[0]}`),
      found.images_only_second > 0 && tile(found.images_only_second, `images only in ${titles[1]}`),
    ),
  );
}

/** Show the comparison in `root`; returns the images of the page. */
export async function show(root, { signal, about, fail }) {
  const only = url.read().get("diff") === "changed";
  const toggle = () => h("button", { type: "button", "aria-pressed": String(only), click: () => url.update({ diff: only ? null : "changed" }) }, "Only images that differ");
  const toolbarFor = (counted) => toolbar(counted, { colours: false, extra: toggle() });
  const parts = layout(root, { toolbarFor });
  const tiles = h("section", { class: "differences", "aria-label": "Differences" });
  parts.bar.before(tiles);
  tell(tiles, about.titles, signal).catch(fail);
  const counting = count(parts, { signal, toolbarFor });
  const page = await get(`api/compare?${url.selection()}`, signal);
  marks.receive(page.marks, page.items.map((one) => one.ours));
  parts.content.removeAttribute("aria-busy");
  parts.content.replaceChildren(page.items.length ? h("div", { class: "comparisons" }, page.items.map((one) => item(one, about.titles))) : h("p", { class: "empty" }, "Nothing is selected."));
  parts.foot.replaceChildren(pager(page.more));
  const paged = counting.then((summary) => parts.foot.replaceChildren(pager(page.more, Math.ceil(summary.images / about.page_size))));
  return { images: page.items.map((one) => one.ours), more: page.more, counting: paged };
}

