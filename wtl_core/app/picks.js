// The room Picks: a queue that is gone through by keys, and all that helps to decide about one image.
import { asked, cell as cellOf, counted, done, empty, facts, legend, make, picture, say, segments, shortName, strip, tally, whole, WORDS } from "./kit.js";
import { createGrid } from "/grid.js";
import { decide, onDecisions, pending, undo } from "./decide.js";

const PAGE = 100;
export const KEYS = [["K", "keep"], ["U", "skip as unusable"], ["R", "skip as redundant"], ["Z", "undo your last decision"], ["N", "next open pick"],
  ["← → ↑ ↓", "go through the picks"], ["Home, End", "first, last"], ["M", "show it on the map"], ["G", "back from a neighbour to the queue"], ["?", "these keys"]];

export function room(box, context) {
  const { state } = context;
  if (!state.ranked) {
    box.replaceChildren(empty("Nothing is left to label", "Every image is labelled or skipped, or there is none yet. Add images to the sources and run `wtl run` again."));
    return {};
  }
  let show = context.memory.show || "all", pages = new Map(), total = 0, version = 0, current = null, isAside = false;
  const listBox = make("div", { className: "queue" }), about = make("section", { className: "about", ariaLabel: "The chosen image" });
  about.setAttribute("aria-label", "The chosen image");
  const progress = make("p", { className: "small soft", id: "progress" }), onward = make("button", { type: "button", className: "act onward" }, "Next");
  onward.onclick = () => next(1);
  const bar = make("div", { className: "bar-of-controls" },
    segments("Which picks", [["all", "All ranks"], ["open", "Open picks"], ["decided", "Decided"]], show, (value) => { show = context.memory.show = value; reload(0); }), progress);
  const large = make("div", { className: "large" }), title = make("h2", { className: "name", id: "pick-name" }), told = make("p", { className: "small" });
  const buttons = [["k", "kept", "Keep"], ["u", "unusable", "Unusable"], ["r", "redundant", "Redundant"]].map(([key, decision, name]) => {
    const button = make("button", { type: "button", className: `act is-${decision}` }, make("kbd", {}, key.toUpperCase()), name);
    button.onclick = () => act(decision);
    return button;
  });
  const back = make("button", { type: "button", className: "act" }, make("kbd", {}, "Z"), "Undo");
  back.onclick = () => takeBack();
  const more = make("div", { className: "more" });
  about.append(large, make("div", { className: "acts" }, ...buttons, back, onward), title, told, more);
  box.replaceChildren(make("p", { className: "decision" }, state.sentence), bar, make("div", { className: "picks" }, listBox, about), legend());
  box.lastChild.prepend("Under a picture: its rank, from 1 on, and how many images it stands for. ");

  const grid = createGrid(listBox, { label: "Picks in their order", width: 108, extra: 24, cell, onChoose: chooseAt });
  function cell(place) {
    const item = itemAt(place);
    if (!item) return make("div", { className: "cell is-loading" });
    return cellOf(item, item.rank >= state.picks ? "is-beyond" : "", make("b", {}, whole(item.rank + 1)), item.stands ? make("span", { className: "soft" }, ` ${whole(item.stands)}`) : null);
  }
  function itemAt(place) {
    const page = Math.floor(place / PAGE), found = pages.get(page);
    if (found === undefined) loadPage(page);
    return found && found[place - page * PAGE];
  }
  async function loadPage(page) {
    pages.set(page, pages.get(page) ?? null); // what was there stays until then
    const mine = version;
    try {
      const found = await asked(`/api/picks?start=${page * PAGE}&count=${PAGE}&show=${show}`);
      if (mine !== version) return null;
      pages.set(page, found.items);
      if (found.total !== total) { total = found.total; grid.setTotal(total); }
      grid.redraw();
      return found;
    } catch (error) { if (mine === version) { pages.delete(page); context.fail(error); } return null; }
  }
  async function reload(place, isQuiet = false) {
    version++;
    pages = new Map();
    const found = await loadPage(Math.floor(place / PAGE));
    if (!found) return;
    total = found.total;
    grid.setTotal(total);
    if (!total) {
      current = null;
      about.hidden = true;
      listBox.classList.add("is-empty");
      say(show === "open" ? "No pick is open" : "Nothing is decided yet");
      grid.redraw();
      progress.textContent = show === "open" ? "Every pick is decided: hand them out by wtl export." : "Nothing is decided yet: press K, U or R on a pick.";
      return;
    }
    about.hidden = false;
    listBox.classList.remove("is-empty");
    if (!isQuiet) grid.choose(Math.min(place, total - 1));
    tellProgress();
  }
  function chooseAt(place) {
    const item = itemAt(place);
    context.memory.place = place;
    if (item) showImage(item, false);
    else setTimeout(() => { if (grid.chosen === place) chooseAt(place); }, 60);
  }

  let asking = null;
  async function showImage(item, aside) {
    current = item;
    isAside = aside;
    context.memory.current = item;
    asking?.abort();
    asking = new AbortController();
    const { signal } = asking;
    const image = picture(item, { large: true });
    image.loading = "eager";
    image.style.backgroundImage = `url(/thumbs/${item.id})`;
    large.replaceChildren(image);
    title.textContent = shortName(item.name);
    title.title = item.name;
    tellState();
    say(`${aside ? "Neighbour" : `Rank ${item.rank + 1}`}: ${shortName(item.name)}, ${WORDS[item.state]}`);
    try {
      const found = await asked(`/api/images/${item.id}`, { signal });
      if (current !== item) return;
      item.state = pendingState.get(item.id) || found.state;
      item.batch = found.batch; item.classes = found.classes; item.rank = found.rank;
      tellState();
      const slots = { near: make("div"), labelled: make("div") };
      more.replaceChildren(...about_(found), slots.labelled, slots.near, make("h3", {}, "Facts"), make("p", { className: "path small soft" }, found.name), facts(found.facts));
      const like = await asked(`/api/images/${item.id}/neighbours`, { signal });
      if (current !== item) return;
      if (like.labelled) slots.labelled.append(make("h3", {}, "Most like it among the labelled"), strip([like.labelled], aside_, (one) => `${one.classes ? one.classes.join(", ") || "empty" : "class not known"} · ${one.similarity.toFixed(2)}`));
      else slots.labelled.append(make("h3", {}, "Most like it among the labelled"), make("p", { className: "small soft" }, "Nothing is labelled yet: `wtl labels add FILE` brings labels in."));
      if (like.neighbours.length) slots.near.append(make("h3", {}, "Most like it in the pool"), strip(like.neighbours, aside_, (one) => one.similarity.toFixed(2)));
    } catch (error) { if (error.name !== "AbortError") context.fail(error); }
  }
  const aside_ = (item) => showImage({ state: "open", ...item }, true);
  function about_(found) {
    const nodes = [make("h3", {}, "Why it is here"), ...found.why.map((text) => make("p", { className: "small" }, text))];
    const add = (name, items, count) => { if (items.length) nodes.push(make("h3", {}, count === undefined ? name : `${name}: ${whole(count)}`), strip(items, aside_)); };
    add("What it stands for, nearest to it of all picks before them", found.covers, found.covers_count);
    add("Near-duplicates that it replaces in the ranking", found.replaces, found.replaces_count);
    add("Looks almost the same, by its perceptual hash", found.near, found.near_count);
    if (found.earlier) add("The nearest pick before it", [found.earlier]);
    return nodes;
  }
  function tellState() {
    const parts = [];
    if (current.rank === null || current.rank === undefined) parts.push("not ranked"); else parts.push(`rank ${whole(current.rank + 1)} of ${whole(state.ranked)} (${current.rank} in tables, which count from 0)`, current.rank < state.picks ? "a pick" : "beyond the budget");
    if (current.stands) parts.push(`stands for ${whole(current.stands)}`);
    parts.push(WORDS[current.state]);
    if (current.batch) parts.push(`in ${current.batch}`);
    if (current.classes) parts.push(current.classes.join(", ") || "empty");
    told.textContent = parts.join(" · ");
    told.className = `small told is-${current.state}`;
    ["kept", "unusable", "redundant"].forEach((decision, at) => buttons[at].setAttribute("aria-pressed", current.state === decision));
  }
  function tellProgress() {
    const { decided } = context.state, others = tally(decided);
    progress.textContent = `${whole(decided.open || 0)} of ${counted(context.state.picks, "pick")} open${others ? ` · ${others}` : ""}`;
  }

  // ---- decisions ----
  const pendingState = new Map();
  const stop = onDecisions(({ now, error }) => {
    for (const [id, decision] of Object.entries(now)) {
      pendingState.set(id, decision);
      for (const page of pages.values()) for (const item of page || []) if (item.id === id) {
        if (item.rank < state.picks && item.state !== decision) { context.state.decided[item.state]--; context.state.decided[decision] = (context.state.decided[decision] || 0) + 1; }
        item.state = decision;
      }
      if (current && current.id === id) current.state = decision;
    }
    if (current) tellState();
    grid.redraw();
    tellProgress();
    context.tellTrouble(error);
  });
  // What is with labellers, or labelled, is skipped only when that is asked for twice.
  let confirmed = "";
  function act(decision) {
    if (!current) return;
    const item = current, key = `${item.id} ${decision}`, where = item.batch ? ` in ${item.batch}` : "";
    if (decision === "kept" && (item.state === "out" || item.state === "labelled")) { done(`It is ${WORDS[item.state]}${where}: there is nothing to keep.`); return; }
    if ((item.state === "out" || item.state === "labelled") && confirmed !== key) {
      confirmed = key;
      done(item.state === "out" ? `It is handed out${where}: labelling it can no longer be stopped from here. Again the same, and it is skipped all the same.` : "It is labelled: skipped, its label counts no more. Again the same, and it is skipped all the same.");
      return;
    }
    confirmed = "";
    done("");
    decide(item, decision, isAside ? "Picks, as a neighbour" : "Picks");
    say(`${shortName(item.name)}: ${WORDS[decision]}`);
    if (!isAside) next(1);
  }
  function next(step) { if (grid.chosen + step < total) grid.choose(grid.chosen + step); }
  function takeBack() {
    const last = undo()?.[0];
    if (!last) { say("Nothing of yours to undo"); done("Nothing of yours to undo since this page was opened; the room Decisions lists what was decided before, to be taken back there."); return; }
    say(`${shortName(last.name)}: ${WORDS[last.before]} again`);
    for (const [page, items] of pages) { const at = (items || []).findIndex((item) => item.id === last.id); if (at >= 0) { grid.choose(page * PAGE + at); return; } }
  }
  function nextOpen() {
    for (let place = grid.chosen + 1; place < Math.min(total, grid.chosen + 5000); place++) {
      const item = itemAt(place);
      if (item && item.state === "open") { grid.choose(place); return; }
      if (item === undefined || item === null) { grid.choose(place); return; }
    }
    say("No open pick behind this one");
  }
  const actions = { k: () => act("kept"), u: () => act("unusable"), r: () => act("redundant"), z: takeBack, n: nextOpen, g: () => chooseAt(grid.chosen), m: () => current && context.go("map", current) };
  // An image from another room is shown in the queue where that has it, and beside it where not.
  const { target } = context, place = target && show === "all" && target.rank !== null && target.rank !== undefined ? target.rank : null;
  reload(place ?? context.memory.place ?? 0, Boolean(target) && place === null).then(() => { if (target && place === null) aside_(target); });
  return {
    onKey(event) {
      if (grid.onKey(event)) return true;
      const action = actions[event.key.toLowerCase()];
      if (!action) return false;
      action();
      return true;
    },
    recount() { if (!pending()) tellProgress(); }, // a count from before a decision corrects itself
    refreshed(isNew) { tellProgress(); if (show !== "all" && !isNew) return; version++; const page = Math.floor(Math.max(0, grid.chosen) / PAGE); pages = new Map([[page, pages.get(page)]]); loadPage(page); },
    leave: stop,
  };
}
