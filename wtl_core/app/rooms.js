// The rooms that are lists: near-duplicates, arrivals, quarantine, batches and labels.
import { asked, cell as cellOf, counted, empty, isSkipped, legend, make, rankNote, say, shortName, table, tally, tile, whole, WORDS } from "./kit.js";
import { createGrid } from "/grid.js";
import { decideAll, onDecisions, undo } from "./decide.js";
import { look, skipping } from "./look.js";

function withMore(box, load) { // shows what `load(start)` gives, a page at a time, until it says that there is no more
  const button = make("button", { type: "button" }, "Show more");
  let start = 0;
  const next = async () => { const read = await load(start); start += read.read; button.hidden = start >= read.total; };
  button.onclick = next;
  box.append(button);
  return next;
}

export function near(box, context) {
  const list = make("div", { className: "groups" }), head = make("p", { className: "read" }, "Loading …");
  box.replaceChildren(make("h2", { className: "first" }, "Near-duplicates"), head, legend(), list);
  const open = (item) => context.go("picks", item);
  let groups = [], chosen = 0;
  const next = withMore(box, async (start) => {
    const found = await asked(`/api/near?start=${start}&count=20`);
    if (!found.total) { box.replaceChildren(empty("No two images look almost the same", "Bursts and copies would stand here, group by group.")); return { read: 0, total: 0 }; }
    head.textContent = `${counted(found.total, "group")} of ${whole(found.images)} images that look almost the same by their perceptual hashes, the largest first; the best ranked image comes first in each. Dark frames and still scenes can look the same to a hash: look before you skip. R looks through a group and skips all but the one you keep, Z undoes that, arrows go from group to group.`;
    for (const group of found.groups) add(group);
    if (start === 0) choose(0, true);
    return { read: found.groups.length, total: found.total };
  });
  function add(group) {
    const at = groups.length, through = make("button", { type: "button" }, group.count > 2 ? `Look through all ${whole(group.count)}` : "Look at both");
    const node = make("section", { className: "group", tabIndex: -1 }, make("div", { className: "bar-of-controls" }, make("h3", {}, `${counted(group.count, "image")}, ${whole(group.picks)} of them picked`), make("span", { className: "small soft" }, group.span), make("span", { className: "small soft state" }), make("span", { className: "space" }), through), make("div", { className: "strip" }));
    const entry = { group, node, draw() {
      const left = group.count - group.items.length;
      node.querySelector(".strip").replaceChildren(...group.items.map((item) => tile(item, open, item.state === "open" ? rankNote(item) : WORDS[item.state])), ...(left ? [make("button", { type: "button", className: "rest", onclick: () => lookThrough(at) }, `and ${whole(left)} more`)] : []));
      node.querySelector(".state").textContent = tally(group.states);
    } };
    through.onclick = () => lookThrough(at);
    groups.push(entry);
    list.append(node);
    entry.draw();
  }
  function choose(at, quiet) {
    if (!groups.length) return;
    chosen = Math.max(0, Math.min(groups.length - 1, at));
    groups.forEach((entry, place) => entry.node.classList.toggle("is-chosen", place === chosen));
    if (!quiet) { groups[chosen].node.focus({ preventScroll: true }); groups[chosen].node.scrollIntoView({ block: "nearest" }); say(`Group ${chosen + 1}: ${counted(groups[chosen].group.count, "image")}`); }
  }
  const isPick = (item) => item.rank !== null && item.rank < context.state.picks;
  function stayNote(item, others) {
    const kept = `The one that stays, ${rankNote(item)}, is entered among the decisions as kept.`;
    if (isPick(item) || !others.some(isPick)) return kept;
    return `${kept} It is no pick, and keeping makes it none: the next run ranks it anew. If the others are skipped as redundant they count as covered, so that it may come late; skipped as unusable they do not.`;
  }
  // All but the best ranked one that is not skipped are chosen at first; what is labelled or handed out is left alone.
  async function lookThrough(at) {
    choose(at, true);
    const { group } = groups[at];
    try {
      const { items } = await asked(`/api/near/${group.items[0].id}`), stays = items.find((item) => ["kept", "out", "labelled"].includes(item.state)) || items.find((item) => !isSkipped(item));
      look({ title: `${counted(group.count, "image")} that look almost the same`, about: group.count > items.length ? `The first ${whole(items.length)} by rank are here.` : "The best ranked one stays at first.", items, keeper: stayNote, open,
        isChosen: (item) => item !== stays && item.state === "open", actions: skipping((wanted, decision, stay) => decideAll(wanted, decision, `Near-duplicates, a group of ${whole(group.count)}`, context.state.picks, stay ? [stay] : [])).reverse() });
    } catch (error) { context.fail(error); }
  }
  const stop = onDecisions(({ now, error }) => {
    for (const entry of groups) {
      const met = entry.group.items.filter((item) => now[item.id] && now[item.id] !== item.state);
      for (const item of met) item.state = now[item.id];
      if (met.length) entry.draw();
    }
    context.tellTrouble(error);
  });
  next().catch((error) => context.fail(error));
  async function again() {
    const found = [];
    while (found.length < groups.length) { const read = await asked(`/api/near?start=${found.length}&count=${Math.min(500, groups.length - found.length)}`); if (!read.groups.length) break; found.push(...read.groups); }
    found.forEach((group, at) => { Object.assign(groups[at].group, group); groups[at].draw(); });
  }
  const actions = { r: () => groups.length && lookThrough(chosen), z: () => { if (!undo()) say("Nothing of yours to undo"); }, ArrowDown: () => choose(chosen + 1), ArrowUp: () => choose(chosen - 1) };
  return { leave: stop, refreshed() { again().catch((error) => context.fail(error)); }, onKey(event) { const action = actions[event.key]; if (!action) return false; action(); return true; } };
}

export function arrivals(box, context) {
  const head = make("div", { className: "read" }), listBox = make("div", { className: "tall" }), pages = new Map();
  let grid = null;
  asked("/api/arrivals?count=100").then((found) => {
    if (!found.total) {
      box.replaceChildren(found.is_first ? empty("Everything is new", "This is the first refresh of the workspace. After the next one that brings images, this room shows what came, and how unlike the rest it is.") : empty("The last refresh brought no image", found.changed || "", "New images in the sources come in with the next `wtl run`."));
      return;
    }
    head.replaceChildren(make("h2", { className: "first" }, `${counted(found.total, "image")} came with refresh ${context.state.refresh}`),
      make("p", {}, `${found.changed} ${found.picks === 1 ? "1 of them is a pick" : `${whole(found.picks)} of them are picks`}.`),
      make("p", { className: "small soft" }, `Those first that the ranking wants most. Under each its rank and how far it is from the nearest image picked or labelled before it, from 0 to 2${found.median_distance === null ? "" : `; the median of the whole pool is ${found.median_distance.toFixed(2)}`}: far ones are unlike what is there.`));
    box.replaceChildren(head, legend(), listBox);
    pages.set(0, found.items);
    grid = createGrid(listBox, { label: "Arrivals", width: 128, extra: 24, cell, onChoose: (place) => { const item = itemAt(place); if (item && context.memory.isKey !== true) context.go("picks", item); } });
    grid.setTotal(found.total);
  }).catch((error) => context.fail(error));
  function itemAt(place) {
    const page = Math.floor(place / 100);
    if (!pages.has(page)) { pages.set(page, null); asked(`/api/arrivals?start=${page * 100}&count=100`).then((found) => { pages.set(page, found.items); grid.redraw(); }, (error) => context.fail(error)); }
    return pages.get(page)?.[place - page * 100];
  }
  function cell(place) {
    const item = itemAt(place);
    if (!item) return make("div", { className: "cell is-loading" });
    return cellOf(item, "", make("b", {}, item.rank === null ? "–" : whole(item.rank + 1)), make("span", { className: "soft mark-right" }, item.distance === null ? "" : item.distance.toFixed(2)));
  }
  return {
    refreshed() { pages.clear(); grid?.redraw(); },
    onKey(event) {
      if (!grid) return false;
      if (event.key === "Enter" && grid.chosen >= 0) { const item = itemAt(grid.chosen); if (item) context.go("picks", item); return true; }
      context.memory.isKey = true;
      const moved = grid.onKey(event);
      context.memory.isKey = false;
      return moved;
    },
  };
}

export function quarantine(box, context) {
  let reason = "";
  const body = make("div", {}, make("p", { className: "soft" }, "Loading …"));
  box.replaceChildren(make("h2", { className: "first" }, "Quarantine"), body);
  async function draw() {
    const first = await asked(`/api/quarantine?count=100&reason=${encodeURIComponent(reason)}`);
    if (!first.all) { box.replaceChildren(empty("Nothing was refused", "Every file that should be an image is one.")); return; }
    const rows = make("tbody"), says = (item) => make("tr", {}, make("td", {}, item.reason.replaceAll("_", " ")), make("td", { className: "text name" }, item.uri), make("td", { className: "text" }, item.message));
    const reasons = first.reasons.map((row) => {
      const button = make("button", { type: "button" }, row.reason.replaceAll("_", " "));
      button.setAttribute("aria-pressed", row.reason === reason);
      button.onclick = () => { reason = reason === row.reason ? "" : row.reason; draw().catch((error) => context.fail(error)); };
      return [button, whole(row.count), row.meaning];
    });
    body.replaceChildren(make("p", { className: "read" }, `${counted(first.all, "file")} that should be images ${first.all === 1 ? "was" : "were"} refused. They are read again when they change.`), table(["reason", "files", "what would help"], reasons, [2]),
      make("h3", {}, reason ? `Refused: ${reason.replaceAll("_", " ")}` : "Refused files"), make("div", { className: "scrolls", tabIndex: 0 }, make("table", {}, make("thead", {}, make("tr", {}, make("th", {}, "reason"), make("th", { className: "text" }, "where"), make("th", { className: "text" }, "message"))), rows)));
    rows.append(...first.items.map(says));
    if (first.total > first.items.length) {
      let start = first.items.length;
      const more = make("button", { type: "button" }, "Show more");
      more.onclick = async () => { const found = await asked(`/api/quarantine?start=${start}&count=100&reason=${encodeURIComponent(reason)}`); start += found.items.length; rows.append(...found.items.map(says)); more.hidden = start >= found.total; };
      body.append(more);
    }
  }
  draw().catch((error) => context.fail(error));
  return { refreshed(isNew) { if (isNew) draw().catch((error) => context.fail(error)); } };
}

export function labels(box, context) {
  async function draw() {
    const found = await asked("/api/labels");
    const nodes = [make("h2", { className: "first" }, "Batches")];
    const share = (value) => (value === null || value === undefined ? "" : `${(100 * value).toFixed(1)} %`);
    const today = new Date().toISOString();
    if (found.batches.length) {
      const isLate = (row) => row.due && row.out > 0 && row.due < today;
      nodes.push(table(["batch", "handed out", "due", "images", "at random", "back", "skipped", "out"], found.batches.map((row) => [row.batch, row.created.slice(0, 10), isLate(row) ? make("b", { className: "late" }, `${row.due.slice(0, 10)} overdue`) : row.due ? row.due.slice(0, 10) : "", whole(row.images), whole(row.controls), whole(row.back), whole(row.skipped), whole(row.out)])));
    } else nodes.push(make("p", { className: "read" }, "Nothing is handed out. `wtl export --new 50 --control 10% -o batch.csv` hands out the next 50 images; every image is handed out once."));
    nodes.push(make("h2", {}, "Labels"));
    if (!found.labelled) nodes.push(make("p", { className: "read" }, "No image is labelled yet. `wtl labels add FILE` reads what labelling tools write; the next run then picks where labels are missing."));
    else {
      nodes.push(make("p", { className: "read" }, `${counted(found.labelled, "image is", "images are")} labelled. ${found.accuracy ? `A simple classifier that they teach is right on ${share(found.accuracy.value)} of images drawn at random (${share(found.accuracy.low)} to ${share(found.accuracy.high)}).` : `It is not known yet how accurate a model trained on them is: ${found.lacking}.`}`));
      if (found.short.length) nodes.push(make("p", { className: "read" }, make("b", {}, "Short classes"), `, with fewer than ${whole(found.short_below)} labels: ${found.short.slice(0, 12).join(", ")}${found.short.length > 12 ? ` and ${found.short.length - 12} more` : ""}.`));
      if (found.classes.length) nodes.push(table(["class", "labels", "share", "of the pool", "among the picks"], found.classes.slice(0, 40).map((row) => [row.class, whole(row.labels), share(row.share), share(row.pool_share), row.next === null ? "" : whole(row.next)])));
      const again = make("div"), button = make("button", { type: "button" }, "Look for label errors");
      button.onclick = async () => {
        again.replaceChildren(make("p", { className: "soft" }, "Comparing labels with their neighbours …"));
        try {
          const doubts = await asked("/api/doubtful");
          if (doubts.why_not) again.replaceChildren(make("p", { className: "read" }, doubts.why_not));
          else if (!doubts.items.length) again.replaceChildren(make("p", { className: "read" }, `${counted(doubts.checked, "label")} checked: neighbours and classifier disagree with none.`));
          else again.replaceChildren(make("p", { className: "read" }, `${counted(doubts.total, "label")} of ${whole(doubts.checked)} to look at again, the most doubtful first. Correct them in your tool and add the file again.`),
            make("div", { className: "gallery" }, ...doubts.items.map((item) => make("figure", { className: "tile-figure" }, tile({ ...item, rank: null, state: "labelled" }, (one) => context.go("picks", one), shortName(item.name)), make("figcaption", {}, make("b", {}, item.label), ` or ${item.suggestion}? `, make("span", { className: "soft" }, item.reason))))));
        } catch (error) { context.fail(error); }
      };
      nodes.push(make("h2", {}, "Labels to look at again"), button, again);
    }
    box.replaceChildren(...nodes);
  }
  draw().catch((error) => context.fail(error));
  return { refreshed() { draw().catch((error) => context.fail(error)); } };
}
