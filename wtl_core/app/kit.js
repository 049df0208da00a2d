// What all rooms share: elements, numbers, questions to the server. Text always goes in as text, never as HTML.
export const $ = (id) => document.getElementById(id);
export const whole = (value) => Math.round(value).toLocaleString("en-US");
export const counted = (value, one, more = `${one}s`) => `${whole(value)} ${value === 1 ? one : more}`;

export function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined) continue;
    if (name in node && name !== "list" && name !== "style") node[name] = value; else node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

export class Refused extends Error {
  constructor(status, message) { super(message); this.status = status; }
}

// An answer of the server, as JSON unless `kind` says bytes; what it refuses is thrown with its own words.
export async function ask(path, { body, signal } = {}) {
  const how = body === undefined ? { signal } : { method: "POST", body: JSON.stringify(body), headers: { "content-type": "application/json" } };
  let answer;
  try { answer = await fetch(path, { ...how, credentials: "same-origin" }); } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "The app's server does not answer: start `wtl ui` again.");
  }
  if (answer.ok) return answer;
  let told = await answer.text();
  try { const found = JSON.parse(told); told = found.error || (typeof found.detail === "string" ? found.detail : told); } catch { /* plain text */ }
  throw new Refused(answer.status, told.trim());
}
export const asked = async (path, how) => (await ask(path, how)).json();

export const shortName = (name) => name.split(/[/#]/).pop() || name;
export function picture(item, { large = false, alt = shortName(item.name) } = {}) {
  const image = make("img", { alt, title: item.name, loading: "lazy", decoding: "async", draggable: false });
  image.onerror = () => { image.classList.add("is-missing"); image.alt = `${alt} (cannot be shown)`; };
  image.src = `/${large ? "images" : "thumbs"}/${item.id}`;
  return image;
}
// A row of small pictures; a click or Enter opens one.
export function strip(items, open, note = () => "") {
  return make("div", { className: "strip" }, ...items.map((item) => {
    const told = note(item);
    const button = make("button", { type: "button", className: "tile", title: item.name }, picture(item, { alt: "" }), told ? make("span", { className: "note" }, told) : null);
    button.append(unseen(`${shortName(item.name)}${item.rank === null || item.rank === undefined ? "" : `, rank ${item.rank + 1}`}`));
    button.onclick = () => open(item);
    return button;
  }));
}
// Said and not shown: what a picture is.
export const unseen = (text) => make("span", { className: "unseen" }, text);
export function facts(pairs) {
  return make("dl", { className: "facts" }, ...pairs.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
}
export function say(text) { $("live").textContent = text; }
export function trouble(text) { $("trouble").hidden = !text; $("trouble").textContent = text || ""; }
export function empty(title, ...what) { return make("div", { className: "empty" }, make("h2", {}, title), ...what.map((text) => (typeof text === "string" ? make("p", {}, text) : text))); }
export function segments(label, options, chosen, change) {
  const box = make("div", { className: "segments", role: "group" });
  box.setAttribute("aria-label", label);
  for (const [value, name] of options) {
    const button = make("button", { type: "button" }, name);
    button.setAttribute("aria-pressed", value === chosen);
    button.onclick = () => { for (const other of box.children) other.setAttribute("aria-pressed", other === button); change(value); };
    box.append(button);
  }
  return box;
}
