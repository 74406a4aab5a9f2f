// Elements from data. Text only ever becomes a text node: captions are written by strangers and models.

const SVG = "http://www.w3.org/2000/svg";

function build(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name, value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat(2).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** An HTML element: functions are listeners, other properties attributes, strings among the children text. */
export const h = (tag, properties = {}, ...children) => build(document.createElement(tag), properties, children);

/** An SVG element. */
export const s = (tag, properties = {}, ...children) => build(document.createElementNS(SVG, tag), properties, children);

/** A number as people read it. */
export const number = (value) => Number(value).toLocaleString("en-US");

/** "1 image", "2 images". */
export const plural = (count, noun) => `${number(count)} ${noun}${count === 1 ? "" : "s"}`;

/** Bytes as people read them. */
export function bytes(count) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (count >= 1024 && unit < units.length - 1) (count /= 1024), unit++;
  return `${count.toFixed(unit && count < 10 ? 1 : 0)} ${units[unit]}`;
}

/** A score or share as people read it, or a dash. */
export const score = (value) => (value === null || value === undefined ? "–" : value.toFixed(2));

/** A length in pixels as people read it. */
export const pixels = (value) => String(Number(value.toFixed(1)));

/** A sentence whose options (`--name`) are not parted at the end of a line. */
export const sentence = (text) => text.split(/(--[\w.-]+)/).map((part) => (part.startsWith("--") ? h("span", { class: "option" }, part) : part));
