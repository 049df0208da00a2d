// What all rooms share beside `shared.js`: questions to the server, pictures, and what is said to a person.
import { $, make, shortName, unseen } from "/shared.js";
export * from "/shared.js";

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

// What became of an image, as words and as a mark in a grid.
export const WORDS = { open: "open", kept: "kept", unusable: "skipped as unusable", redundant: "skipped as redundant", labelled: "labelled", out: "handed out" };
export const MARKS = { kept: "✓", unusable: "✕", redundant: "≈", labelled: "●", out: "↗" };
export const isSkipped = (item) => item.state === "unusable" || item.state === "redundant";
export const legend = () => make("p", { className: "small soft legend-of-marks" }, Object.entries(MARKS).map(([state, mark]) => `${mark} ${WORDS[state]}`).join(" · "));
// Counts of states as a person reads them: "3 kept, 2 handed out".
export const tally = (counts) => Object.keys(MARKS).filter((state) => counts[state]).map((state) => `${counts[state].toLocaleString("en-US")} ${WORDS[state]}`).join(", ");
export const rankNote = (item) => (item.rank === null || item.rank === undefined ? "not ranked" : `rank ${(item.rank + 1).toLocaleString("en-US")}`);

// Gives images of which only the id is known their names.
export async function nameAll(items) {
  const without = items.filter((item) => !item.name);
  if (!without.length) return;
  const { names } = await asked("/api/names", { body: { ids: without.map((item) => item.id) } });
  for (const item of without) item.name = names[item.id] || "";
}

export function picture(item, { large = false, alt = shortName(item.name) } = {}) {
  const image = make("img", { alt, title: item.name, loading: "lazy", decoding: "async", draggable: false });
  image.onerror = () => { image.classList.add("is-missing"); image.alt = `${alt} (cannot be shown)`; };
  image.src = `/${large ? "images" : "thumbs"}/${item.id}`;
  return image;
}
// One small picture with a note; a click or Enter opens it.
export function tile(item, open, note = "") {
  const button = make("button", { type: "button", className: `tile is-${item.state || "open"}`, title: item.name }, picture(item, { alt: "" }), note ? make("span", { className: "note" }, note) : null);
  button.append(unseen([shortName(item.name), rankNote(item), ...(item.state ? [WORDS[item.state]] : [])].join(", ")));
  button.onclick = () => open(item);
  return button;
}
export const strip = (items, open, note = () => "") => make("div", { className: "strip" }, ...items.map((item) => tile(item, open, note(item))));
export function cell(item, className, ...caption) {
  const node = make("div", { className: `cell is-${item.state || "open"} ${className}` }, picture(item, { alt: "" }),
    make("span", { className: "caption" }, ...caption, MARKS[item.state] ? make("span", { className: "mark", ariaHidden: "true" }, MARKS[item.state]) : null));
  node.append(unseen([shortName(item.name), rankNote(item), WORDS[item.state || "open"]].join(", ")));
  return node;
}
export function say(text) { $("live").textContent = text; }
export function trouble(text) { $("trouble").hidden = !text; $("trouble").textContent = text || ""; }
// What was just done, until something else is; `undo` takes it back.
export function done(text, undo) {
  const box = $("done");
  box.hidden = !text;
  if (!text) return;
  const close = make("button", { type: "button", ariaLabel: "Close this message" }, "✕"), back = undo ? make("button", { type: "button", id: "done-undo" }, "Undo") : null;
  close.setAttribute("aria-label", "Close this message");
  close.onclick = () => { box.hidden = true; };
  if (back) back.onclick = () => { box.hidden = true; undo(); };
  box.replaceChildren(make("span", {}, text), ...(back ? [back] : []), close);
}
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
