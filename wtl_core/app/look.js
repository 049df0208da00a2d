// Many images at once, in a window over the room: to look at them, to leave some out, and then to decide on the others.
//
// look({ title, about, items, isChosen, actions, keeper, open })
//   items        { id, rank, state, name, note? } each; all are here, in a grid that draws those in sight; names that are
//                empty are asked for
//   isChosen     which are chosen at first, where `actions` do something with the chosen ones
//   actions      [name of the button for the chosen ones, what it does with them and with the one that stays, if any]
//   picks        the first so many ranks can be chosen alone
//   keeper       one image may be kept of all, by K: what becomes of it when the others are skipped
//   open         shows one among the picks
import { asked, cell, counted, facts, make, nameAll, picture, isSkipped, rankNote, say, shortName, tally, whole, WORDS } from "./kit.js";
import { createGrid } from "/grid.js";

export function look({ title, about = "", items, isChosen = () => false, actions = [], keeper = null, picks = 0, open }) {
  const chosen = new Set(actions.length ? items.filter(isChosen) : []);
  const dialog = make("dialog", { className: "look" }), head = make("h2", { id: "look-title" }, title), told = make("p", { className: "small", id: "look-told", role: "status" });
  dialog.setAttribute("aria-labelledby", "look-title");
  const close = make("button", { type: "button" }, "Close"), list = make("div", { className: "look-list" }), one = make("div", { className: "look-one" });
  close.onclick = () => dialog.close();
  const buttons = actions.map(([, act]) => {
    const button = make("button", { type: "button", className: "act is-main" });
    button.onclick = () => { const wanted = items.filter((item) => chosen.has(item)), stay = stays(); dialog.close(); act(wanted, stay); };
    return button;
  });
  const set = (name, change) => { const button = make("button", { type: "button" }, name); button.onclick = () => { change(); draw(); }; return button; };
  const choices = actions.length ? [set("Choose all", () => items.forEach((item) => chosen.add(item))), set("Choose none", () => chosen.clear()), ...(picks ? [set("Choose the open picks", () => { chosen.clear(); items.forEach((item) => { if (item.state === "open" && item.rank !== null && item.rank < picks) chosen.add(item); }); })] : [])] : [];
  // The image that K kept, or the only one that would be left of all, where nobody has decided on it.
  let only = null;
  function stays() {
    if (only && only.state === "open" && !chosen.has(only)) return only;
    const left = items.filter((item) => !isSkipped(item) && !chosen.has(item));
    return keeper && chosen.size && left.length === 1 && left[0].state === "open" ? left[0] : null;
  }
  const keep = keeper ? [set("Keep only this one", keepOnly)] : [];
  dialog.append(make("div", { className: "bar-of-controls" }, head, make("span", { className: "space" }), close), make("p", { className: "small soft read" }, about,
    actions.length ? ` A click or Space chooses an image or leaves it out${keeper ? "; K keeps the one in view and chooses all others" : ""}; arrows go through them.` : ""), told,
  make("div", { className: "bar-of-controls" }, ...buttons, ...choices, ...keep), make("div", { className: "look-both" }, list, one));
  document.body.append(dialog);
  dialog.onclose = () => { asking?.abort(); dialog.remove(); };
  dialog.showModal();
  const grid = createGrid(list, { label: title, width: 108, extra: 24, onChoose: (place) => show(items[place]), onClick: (place) => toggle(items[place]),
    cell: (place) => {
      const item = items[place], node = cell(item, chosen.has(item) ? "is-chosen" : "", make("b", {}, item.rank === null ? "–" : whole(item.rank + 1)), item.note ? make("span", { className: "soft mark-right" }, item.note) : null);
      if (actions.length) node.setAttribute("aria-checked", chosen.has(item));
      return node;
    } });
  let shown = null, asking = null;
  async function show(item) {
    shown = item;
    asking?.abort();
    asking = new AbortController();
    const { signal } = asking, image = picture(item, { large: true }), name = make("p", { className: "name" }, shortName(item.name)), more = make("div");
    image.loading = "eager";
    const go = make("button", { type: "button" }, "Open among the picks");
    go.onclick = () => { dialog.close(); open(item); };
    one.replaceChildren(make("div", { className: "large" }, image), name, make("p", { className: "small" }, `${rankNote(item)} · ${WORDS[item.state]}`), go, more);
    try {
      const found = await asked(`/api/images/${item.id}`, { signal });
      if (shown !== item) return;
      name.textContent = shortName(found.name);
      image.alt = shortName(found.name);
      more.replaceChildren(...(found.batch ? [make("p", { className: "small" }, `In ${found.batch}.`)] : []), make("p", { className: "path small soft" }, found.name), facts(found.facts));
    } catch (error) { if (error.name !== "AbortError") more.replaceChildren(make("p", { className: "small" }, error.message)); }
  }
  function toggle(item) {
    if (!actions.length || !item) return;
    if (!chosen.delete(item)) chosen.add(item);
    draw();
    say(chosen.has(item) ? "Chosen" : "Left out");
  }
  function keepOnly() {
    if (!shown) return;
    items.forEach((item) => (["open", "kept"].includes(item.state) ? chosen.add(item) : null));
    chosen.delete(shown);
    only = shown;
    draw();
    say("This one stays; all others are chosen");
  }
  function draw() {
    const counts = {};
    for (const item of items) counts[item.state] = (counts[item.state] || 0) + 1;
    const others = tally(counts);
    told.textContent = `${counted(items.length, "image")}${others ? `: ${others}` : ""}.${actions.length ? ` ${whole(chosen.size)} chosen.` : ""}${stays() ? ` ${keeper(stays(), [...chosen])}` : ""}`;
    buttons.forEach((button, at) => { button.textContent = actions[at][0](chosen.size); button.disabled = !chosen.size; });
    grid.redraw();
  }
  dialog.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const isButton = event.target.closest("button");
    if (grid.onKey(event)) event.preventDefault();
    else if (event.key === " " && !isButton) { toggle(items[grid.chosen]); event.preventDefault(); }
    else if (event.key.toLowerCase() === "k" && keeper) { keepOnly(); event.preventDefault(); }
    else if (event.key === "Enter" && !isButton && shown) { dialog.close(); open(shown); event.preventDefault(); }
    event.stopPropagation();
  });
  nameAll(items).then(() => grid.redraw(), () => {}); // without names everything else works
  grid.setTotal(items.length);
  draw();
  if (items.length) grid.choose(0);
  list.focus();
}
// What can be done with many at once: both kinds of skip.
export const skipping = (run) => ["unusable", "redundant"].map((decision) => [(count) => `Skip ${counted(count, "image")} as ${decision}`, (items, stay) => run(items, decision, stay)]);
