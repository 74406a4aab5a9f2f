// The data set as a whole.

import { bytes, h, number, plural, sentence } from "./dom.js";
import { get } from "./api.js";
import { bars, histogram, share } from "./plot.js";
import * as url from "./url.js";

const NAMES = { proposal_score: "Proposal score", caption_score: "Caption score", area: "Box area, share of the image", caption_length: "Caption length, characters" };

const section = (title, ...children) => h("section", { class: "block" }, h("h2", {}, title), ...children);

function totals({ totals: rows, meanings }) {
  const sum = (reasons) => Object.values(reasons).reduce((total, count) => total + count, 0);
  return h(
    "div",
    { class: "totals" },
    rows.map((row) => {
      const [filtered, dead] = [sum(row.filtered), sum(row.dead)];
      const parts = [["ok", row.ok], ["filtered", filtered], ["dead", dead]].map(([css, count]) => ({ css, count, title: `${number(count)} ${css}` }));
      const reasons = ["filtered", "dead"].flatMap((status) => Object.entries(row[status]).map(([reason, count]) => ({ status, reason, count })));
      reasons.sort((one, other) => other.count - one.count);
      return h(
        "section",
        { class: "block" },
        h("h2", {}, `${number(row.inputs)} ${row.name}`),
        share(parts),
        h("p", { class: "legend" }, parts.map((part) => h("span", { class: part.css }, part.title))),
        h("p", { class: row.balanced ? "balanced" : "unbalanced" }, row.balanced ? "✓ " : "✕ ", `${number(row.inputs)} = ${number(row.ok)} ok + ${number(filtered)} filtered + ${number(dead)} dead`),
        reasons.length > 0 &&
          h(
            "ul",
            { class: "reasons" },
            reasons.map(({ status, reason, count }) =>
              h("li", {}, h("a", { href: `./?reason=${encodeURIComponent(reason)}`, class: `status ${status}` }, reason), h("span", { class: "count" }, number(count)), h("span", { class: "quiet" }, sentence(meanings[reason] ?? ""))),
            ),
          ),
      );
    }),
  );
}

function plots({ histograms, bounds, regions_an_image: regions }) {
  const tick = (value) => number(Number(value.toFixed(2)));
  const plot = (title, back, ends) => h("figure", { class: "block plot" }, h("figcaption", {}, title), histogram({ back, ends, height: 90, label: title }), h("div", { class: "axis" }, h("span", {}, tick(ends[0])), h("span", {}, tick(ends[1]))));
  const most = regions.length - 1;
  return h(
    "div",
    { class: "plots" },
    Object.entries(histograms).map(([name, counts]) => plot(NAMES[name], counts, bounds[name])),
    h("figure", { class: "block plot" }, h("figcaption", {}, "Regions per image"), histogram({ back: regions, ends: [0, most], height: 90, label: "Regions per image" }), h("div", { class: "axis" }, h("span", {}, "0"), h("span", {}, `${most} or more`))),
  );
}

function tree(value) {
  if (value === null) return h("span", { class: "quiet" }, "none");
  if (Array.isArray(value)) return value.length ? h("ul", {}, value.map((one) => h("li", {}, tree(one)))) : h("span", { class: "quiet" }, "none");
  if (typeof value !== "object") return String(value);
  if (!Object.keys(value).length) return h("span", { class: "quiet" }, "none");
  return h("dl", { class: "facts" }, Object.entries(value).map(([name, one]) => [h("dt", {}, name.replaceAll("_", " ")), h("dd", {}, tree(one))]));
}

function licenses({ provenance, licenses: images }) {
  const stated = provenance.flatMap((one) => Object.entries(one.provenance).flatMap(([role, part]) => (part?.licenses ?? []).map((terms) => [role, terms])));
  const models = new Map(stated.map(([role, { kind, what, license, note, permissive }]) => [`${role}, ${kind}: ${what}`, permissive ? license : [license, " ", h("span", { class: "quiet" }, note || "restricts use")]]));
  return section(
    "Licences",
    h("dl", { class: "facts" }, [...models].map(([name, license]) => [h("dt", {}, name), h("dd", {}, license)]), images.licenses.map(([license, count]) => [h("dt", {}, plural(count, "image")), h("dd", {}, license)])),
    h("p", { class: "quiet" }, `Images' licences are those of ${plural(images.looked_at, "record")} looked at, from shards spread over the data set.`),
  );
}

function repeated({ repeated: found }) {
  return section(
    "Repeated captions",
    h("p", { class: "quiet" }, found.num_captions ? `${plural(found.num_captions, "caption")} ${found.num_captions === 1 ? "occurs" : "occur"} more than once, on ${plural(found.num_regions, "region")}.` : "Every caption occurs once."),
    found.captions.length > 0 && bars(found.captions.map((one) => ({ text: one.caption, count: one.number, href: `./?text_hash=${one.text_hash}` })), "wide"),
  );
}

function shards({ shards: rows, num_shards: count }) {
  return section(
    plural(count, "shard"),
    h(
      "div",
      { class: "scroll" },
      h(
        "table",
        {},
        h("thead", {}, h("tr", {}, ["shard", "images", "regions", "filtered", "dead", "tar", "table", "balance"].map((name) => h("th", {}, name)))),
        h(
          "tbody",
          {},
          rows.map((row) =>
            h("tr", {}, h("td", {}, h("a", { href: `./?shard=${row.shard}` }, row.shard)), [row.images, row.regions, row.filtered, row.dead].map((value) => h("td", {}, number(value))), h("td", {}, bytes(row.tar_bytes)), h("td", {}, bytes(row.parquet_bytes)), h("td", {}, row.balanced ? "✓" : "does not balance")),
          ),
        ),
      ),
    ),
    rows.length < count && h("p", { class: "quiet" }, `The first ${number(rows.length)} of ${number(count)}.`),
  );
}

/** Show the data set page in `root`. */
export async function show(root, { signal, about }) {
  const side = url.read().get("side") === "b" && about.titles.length > 1 ? "b" : "a";
  const content = h("main", { id: "content", class: "overview items", tabindex: -1, "aria-busy": "true" }, h("p", { class: "empty" }, "Counting…"));
  root.replaceChildren(content);
  const data = await get(`api/overview/${side}`, signal);
  const switcher = about.titles.length > 1 && h("div", { class: "segments" }, about.titles.map((title, index) => h("button", { type: "button", "aria-pressed": String((index === 1) === (side === "b")), click: () => url.go(index ? "dataset?side=b" : "dataset") }, title)));
  const labels = data.labels.filter(([label]) => label !== null);
  content.removeAttribute("aria-busy");
  content.replaceChildren(
    h("div", { class: "headline" }, h("h2", {}, data.title), h("code", {}, data.url), switcher),
    totals(data),
    plots(data),
    h(
      "div",
      { class: "pairwise" },
      labels.length > 0 && section("Labels", bars(labels.map(([label, count]) => ({ text: label, count, href: `./?label=${encodeURIComponent(label)}` })))),
      repeated(data),
      h("div", { class: "stack" }, licenses(data), section("Marks", h("p", {}, about.marks ? [plural(about.num_marks, "mark"), " in ", h("code", {}, about.marks)] : "Marks are not saved beside remote data; start with --marks FILE.jsonl."), about.marks && h("p", { class: "quiet" }, sentence("A filter list: give it to --filter.")))),
    ),
    section("Provenance", data.provenance.map((one) => h("details", { open: data.provenance.length === 1 }, h("summary", {}, `${plural(one.num_shards, "shard")}, configuration ${one.fingerprint.slice(0, 12)}`), tree(one.provenance)))),
    shards(data),
  );
  return { images: [], more: false, counting: Promise.resolve() };
}
