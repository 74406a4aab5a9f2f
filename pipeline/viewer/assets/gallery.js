// The gallery: a page of cards, each an image with its regions.

import { h, number, plural, score, sentence } from "./dom.js";
import { get } from "./api.js";
import { entries, figure, link } from "./figure.js";
import * as edits from "./edits.js";
import * as filters from "./filters.js";
import * as marks from "./marks.js";
import * as url from "./url.js";

const THUMBNAIL_PX = 768;
const SORTS = {
  "": "Order of the data",
  random: "Random sample",
  "-proposal_score": "Proposal score, high first",
  proposal_score: "Proposal score, low first",
  "-caption_score": "Caption score, high first",
  caption_score: "Caption score, low first",
  "-area": "Box area, large first",
  area: "Box area, small first",
  "-caption_length": "Caption length, long first",
  caption_length: "Caption length, short first",
};

/** Regions to show first: those that the filters chose, else those that are ok. */
export function chosen(image) {
  const hits = image.regions.filter((region) => region.hit);
  return hits.length ? hits : image.regions.filter((region) => region.fields.status === "ok");
}

/** One line of a list of regions. */
export function regionLine(image, { id, region, number: place, css }) {
  const { label, caption, caption_score, proposal_score, status, reason, message } = region.fields;
  return h(
    "li",
    { "data-region": id, tabindex: 0, class: status },
    h("span", { class: `chip ${css}` }, String(place)),
    h(
      "div",
      { class: "text" },
      caption !== null ? edits.text(image, region, "caption") : h("em", {}, sentence(message || `${status}: ${reason}`)),
      h(
        "small",
        {},
        (label || caption !== null) && edits.text(image, region, "label", { class: `label ${css}` }),
        status !== "ok" && h("span", { class: `status ${status}` }, `${status}: ${reason}`),
        region.count > 1 && h("span", {}, `${number(region.count)} proposals`),
        proposal_score !== null && h("span", { title: `proposal score ${proposal_score}` }, `box ${score(proposal_score)}`),
        caption_score !== null && h("span", { title: `caption score ${caption_score}` }, `text ${score(caption_score)}`),
      ),
    ),
    marks.buttons(image, region.id, edits.button(image, region)),
  );
}

function card(image, by) {
  const shown = entries(image, chosen(image), by);
  const others = image.regions.length - shown.length;
  const open = url.address({ open: `${image.shard}/${image.key}` });
  const bad = image.fields.status !== "ok";
  return link(
    h(
      "article",
      { class: "card", tabindex: -1, "data-key": image.key, "data-shard": image.shard },
      h("a", { href: open, class: "picture", tabindex: -1, "aria-label": `Open ${image.key}` }, figure(image, shown, { size: THUMBNAIL_PX })),
      h(
        "div",
        { class: "body" },
        bad && h("p", { class: `status ${image.fields.status}` }, `${image.fields.status}: ${image.fields.reason}`),
        image.fields.image_caption && h("p", { class: "image-caption" }, image.fields.image_caption),
        shown.length ? h("ol", { class: "regions" }, shown.map((entry) => regionLine(image, entry))) : h("p", { class: "quiet" }, "no regions"),
      ),
      h(
        "footer",
        {},
        h("a", { href: open, class: "key", title: image.key }, image.key),
        h("span", {}, others ? `${image.regions.length} regions, ${shown.length} shown` : plural(shown.length, "region")),
        image.fields.width && h("span", {}, `${image.fields.width} × ${image.fields.height}`),
      ),
    ),
  );
}

/** The toolbar above cards: what is chosen, sort, colours. */
export function toolbar(counted, { colours = true, extra = null } = {}) {
  const parameters = url.read();
  const sort = parameters.get("sort") ?? "";
  const select = (name, label, options, value) => {
    const field = h("select", { "aria-label": label }, Object.entries(options).map(([key, text]) => h("option", { value: key, selected: key === value }, text)));
    field.addEventListener("change", () => url.update({ [name]: field.value || null, ...(name === "sort" ? { seed: null } : {}) }));
    return field;
  };
  return h(
    "div",
    { class: "toolbar" },
    h("button", { type: "button", class: "show-filters", click: () => document.body.classList.toggle("filtering") }, "Filters"),
    counted,
    extra,
    h(
      "div",
      { class: "tools" },
      select("sort", "Sort", SORTS, sort),
      h("button", { type: "button", title: "Another random sample (r)", "aria-label": "Another random sample", click: shuffle }, sort === "random" ? `Sample ${parameters.get("seed") ?? 0}` : "Sample"),
      colours && select("colour", "Colour", { "": "Colour by label", number: "Colour by number", status: "Colour by status" }, parameters.get("colour") ?? ""),
    ),
    filters.chips(),
  );
}

/** Show the next seeded random sample. */
export function shuffle() {
  const parameters = url.read();
  const seed = parameters.get("sort") === "random" ? Number(parameters.get("seed") ?? 0) + 1 : 1;
  url.update({ sort: "random", seed });
}

/** Links to the pages before and after. */
export function pager(more, pages = null) {
  const page = Number(url.read().get("page") ?? 1);
  const step = (to, text, on, rel) => (on ? h("a", { href: url.address({ page: to === 1 ? null : to }), rel }, text) : h("span", { class: "off" }, text));
  return h(
    "nav",
    { class: "pager", "aria-label": "Pages" },
    step(page - 1, "← Previous", page > 1, "prev"),
    h("span", {}, pages === null ? `Page ${number(page)}` : `Page ${number(page)} of ${number(Math.max(pages, page))}`),
    step(page + 1, "Next →", more, "next"),
  );
}

/** Layout with the filters at the side; returns its parts. */
export function layout(root, { toolbarFor }) {
  const side = h("aside", { "aria-label": "Filters" }, filters.panel(null));
  const bar = h("div", {}, toolbarFor(h("p", { class: "counted" }, "Counting…")));
  const content = h("div", { class: "items", "aria-busy": "true" });
  const foot = h("div");
  root.replaceChildren(h("div", { class: "columns" }, side, h("main", { id: "content", class: "content", tabindex: -1 }, bar, content, foot)));
  return { side, bar, content, foot };
}

/** What a summary counts, in words. */
function counted({ regions, images }) {
  const found = h("b", {}, plural(images, "image"));
  return h("p", { class: "counted" }, regions ? [h("b", {}, plural(regions, "region")), " in ", found] : images ? [found, ", no region"] : "Nothing");
}

/** Fill the filters and the count once the server has counted; returns the summary. */
export async function count({ side, bar }, { signal, toolbarFor }) {
  const painted = (summary) => {
    const field = document.activeElement?.closest?.("aside") ? document.activeElement : null;
    if (!field) side.replaceChildren(filters.panel(summary));
  };
  filters.offers().then(() => signal.aborted || painted(null));
  const [summary] = await Promise.all([get(`api/summary?${url.selection()}`, signal), filters.offers()]);
  painted(summary);
  bar.replaceChildren(toolbarFor(counted(summary)));
  return summary;
}

/** Show a page of what `path` answers, as `draw(items)` shows it; `numPages` follows from the summary. */
export async function browse(root, { signal }, { path, toolbarFor, draw, numPages }) {
  const parts = layout(root, { toolbarFor });
  const counting = count(parts, { signal, toolbarFor });
  const page = await get(`${path}?${url.selection()}`, signal);
  marks.receive(page.marks, page.items);
  edits.receive(page.edits, page.items);
  parts.content.removeAttribute("aria-busy");
  parts.content.replaceChildren(
    page.items.length ? draw(page.items) : h("p", { class: "empty" }, "Nothing is selected. ", h("a", { href: url.view() || "./" }, "Clear the filters")),
  );
  parts.foot.replaceChildren(pager(page.more));
  const paged = counting.then((summary) => parts.foot.replaceChildren(pager(page.more, numPages(summary))));
  return { images: page.items, more: page.more, counting: paged };
}

/** Show the gallery in `root`; returns the images of the page. */
export async function show(root, context) {
  const by = url.read().get("colour");
  return browse(root, context, {
    path: "api/page",
    toolbarFor: (text) => toolbar(text),
    draw: (items) => h("div", { class: "grid" }, items.map((image) => card(image, by))),
    numPages: ({ images }) => Math.ceil(images / context.about.page_size),
  });
}
