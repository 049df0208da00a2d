// The rooms that are lists: near-duplicates, arrivals, quarantine, batches and labels.
import { asked, counted, empty, make, picture, say, shortName, unseen, whole } from "./kit.js";
import { createGrid } from "./grid.js";
import { decide, onDecisions, undo } from "./decide.js";
import { WORDS } from "./picks.js";

function tile(item, open, note) {
  const button = make("button", { type: "button", className: `tile is-${item.state || "open"}`, title: item.name }, picture(item, { alt: "" }), make("span", { className: "note" }, note));
  button.append(unseen(`${shortName(item.name)}${item.state ? `, ${WORDS[item.state]}` : ""}`));
  button.onclick = () => open(item);
  return button;
}
const rankNote = (item) => (item.rank === null ? "not ranked" : `rank ${whole(item.rank + 1)}`);
function table(heads, rows, text = []) {
  const cells = (tag, row) => row.map((value, at) => make(tag, { className: text.includes(at) ? "text" : "" }, value === null || value === undefined ? "" : value));
  return make("div", { className: "scrolls", tabIndex: 0 }, make("table", {}, make("thead", {}, make("tr", {}, ...cells("th", heads))), make("tbody", {}, ...rows.map((row) => make("tr", {}, ...cells("td", row))))));
}
function withMore(box, load) { // shows what `load(start)` gives, a page at a time, until it says that there is no more
  const button = make("button", { type: "button" }, "Show more");
  let start = 0;
  const next = async () => { const read = await load(start); start += read.read; button.hidden = start >= read.total; };
  button.onclick = next;
  box.append(button);
  return next;
}

export function near(box, context) {
  const list = make("div", { className: "groups" }), head = make("p", { className: "read" });
  box.replaceChildren(make("h2", { className: "first" }, "Near-duplicates"), head, list);
  const open = (item) => context.go("picks", item);
  let groups = [], chosen = 0;
  const SHOWN = 12;
  const next = withMore(box, async (start) => {
    const found = await asked(`/api/near?start=${start}&count=20`);
    if (!found.total) { box.replaceChildren(empty("No two images look almost the same", "Bursts and copies would stand here, group by group.")); return { read: 0, total: 0 }; }
    head.textContent = `${counted(found.total, "group")} of ${whole(found.images)} images that look almost the same by their perceptual hashes, the largest first; the best ranked image comes first in each. R skips the rest of a group as redundant, Z undoes that, arrows go from group to group.`;
    for (const group of found.groups) add(group);
    if (start === 0) choose(0, true);
    return { read: found.groups.length, total: found.total };
  });
  function add(group) {
    const at = groups.length, rest = group.items.slice(1);
    const skip = make("button", { type: "button" }, rest.length > 1 ? `Skip the other ${whole(rest.length)} as redundant` : "Skip the other one as redundant");
    const node = make("section", { className: "group", tabIndex: -1 }, make("div", { className: "bar-of-controls" }, make("h3", {}, `${counted(group.count, "image")}, ${whole(group.picks)} of them picked`), make("span", { className: "small soft" }, group.span), make("span", { className: "space" }), skip), make("div", { className: "strip" }));
    const entry = { group, node, rest, draw() {
      node.querySelector(".strip").replaceChildren(...group.items.slice(0, SHOWN).map((item) => tile(item, open, rankNote(item))), ...(group.count > SHOWN ? [make("span", { className: "small soft" }, `and ${whole(group.count - SHOWN)} more`)] : []));
      skip.disabled = rest.every((item) => item.state === "redundant");
    } };
    skip.onclick = () => { choose(at, true); skipRest(); };
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
  function skipRest() {
    const { rest } = groups[chosen], wanted = rest.filter((item) => ["open", "kept", "unusable"].includes(item.state));
    if (decide(wanted, "redundant")) say(`${counted(wanted.length, "image")} skipped as redundant`);
  }
  const stop = onDecisions(({ now, error }) => {
    for (const entry of groups) if (entry.group.items.some((item) => now[item.id])) { for (const item of entry.group.items) if (now[item.id]) item.state = now[item.id]; entry.draw(); }
    context.tellTrouble(error);
  });
  next().catch((error) => context.fail(error));
  const actions = { r: skipRest, z: () => undo() || say("Nothing of yours to undo"), ArrowDown: () => choose(chosen + 1), ArrowUp: () => choose(chosen - 1) };
  return { leave: stop, onKey(event) { const action = actions[event.key]; if (!action) return false; action(); return true; } };
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
    box.replaceChildren(head, listBox);
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
    const node = make("div", { className: `cell is-${item.state}` }, picture(item, { alt: "" }), make("span", { className: "caption" }, make("b", {}, item.rank === null ? "–" : whole(item.rank + 1)), make("span", { className: "soft mark-right" }, item.distance === null ? "" : item.distance.toFixed(2))));
    node.append(unseen(`${shortName(item.name)}, ${WORDS[item.state]}`));
    return node;
  }
  return {
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
  const body = make("div");
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
      nodes.push(make("p", { className: "read" }, `${counted(found.labelled, "image is", "images are")} labelled. ${found.accuracy ? `A simple classifier that they teach is right on ${share(found.accuracy.value)} of images drawn at random (${share(found.accuracy.low)} to ${share(found.accuracy.high)}).` : `How accurate a model they teach cannot be told yet: ${found.lacking}.`}`));
      if (found.short.length) nodes.push(make("p", { className: "read" }, make("b", {}, "Short classes"), `: ${found.short.slice(0, 12).join(", ")}${found.short.length > 12 ? ` and ${found.short.length - 12} more` : ""}.`));
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
