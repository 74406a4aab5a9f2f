// The state of the page is its address: a view can be shared, reloaded and gone back to.

const listeners = [];

/** The last part of the path: which view it is. What is before it is a portal's and the token's. */
export const view = () => location.pathname.slice(location.pathname.lastIndexOf("/") + 1);

/** Parameters of the address. */
export const read = () => new URLSearchParams(location.search);

/** Call `listener` when the address changes. */
export const onChange = (listener) => listeners.push(listener);

const changed = () => listeners.forEach((listener) => listener());

/** The address with `changes`: a value, a list of values, or null to drop a parameter. Page 1, unless `page` is given. */
export function address(changes, path = view()) {
  const parameters = read();
  if (!("page" in changes) && !("open" in changes) && !("colour" in changes)) parameters.delete("page");
  for (const [name, value] of Object.entries(changes)) {
    parameters.delete(name);
    for (const one of Array.isArray(value) ? value : [value]) if (one !== null) parameters.append(name, one);
  }
  const query = parameters.toString();
  return (path || "./") + (query && `?${query}`);
}

/** Go to an address of this page; `quiet`: the view shows what has changed by itself. */
export function go(to, { replace = false, quiet = false } = {}) {
  history[replace ? "replaceState" : "pushState"](null, "", to);
  if (!quiet) changed();
}

/** Change parameters. */
export const update = (changes, options) => go(address(changes), options);

/** Query of what the server selects by. */
export function selection() {
  const parameters = read();
  ["open", "colour"].forEach((name) => parameters.delete(name));
  return parameters.toString();
}

addEventListener("popstate", changed);
document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a[href]");
  const plain = event.button === 0 && !event.ctrlKey && !event.metaKey && !event.shiftKey && !event.altKey;
  if (!link || !plain || link.getAttribute("href").startsWith("#") || link.origin !== location.origin || link.target || link.hasAttribute("download")) return;
  event.preventDefault();
  go(link.href);
});
