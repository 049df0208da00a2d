// The report's page: the slider over the operating points, and all that it moves. The map itself is map.js.
import { createGrid } from "./grid.js";
import { drawChart, fromSlider, ladder, least, most, moveChart, toSlider } from "./ladder.js";
import { createMap } from "./map.js";
import {
  ARRIVED, FILTERED, LABELLED, NONE, OUT, REPEAT, SKIPPED, childrenOf, columns, count, flags, nameOf, names, picture,
  pictureOf, rank, rowOf, told, weightOf, whenDecoded,
} from "./page_data.js";
import { $, counted, facts, figure, make, middleOf, points, share, stepsTable, whole } from "./shared.js";

const isStill = matchMedia("(prefers-reduced-motion: reduce)").matches;
let cut = Math.max(0, Math.min(told.ranked, told.picks)), isRandom = false;

function moveTo(value, from) {
  cut = Math.max(1, Math.min(most, Math.round(value)));
  if (from !== "slider") $("slider").value = toSlider(Math.max(cut, least));
  if (from !== "number") $("number").value = cut;
  const percent = ladder.percentOf(cut), random = ladder.at(cut, "equivalent_random_count");
  const [reached, baseline, low, high] = ["", "random_coverage_mean", "random_coverage_low", "random_coverage_high"]
    .map((name) => ladder.reached(cut, name || "coverage"));
  $("slider").setAttribute("aria-valuetext", `${whole(cut)} images, ${percent} per cent of the pool`);
  const [next] = ladder.steps(cut, 1);
  for (const [name, text] of Object.entries({
    sentence: ladder.sentence(cut, told.labelled),
    next: ladder.next(cut),
    "f-count": whole(cut),
    "f-percent": `${percent} % of ${whole(most)} ranked`,
    "f-random": whole(random),
    "f-times": `${(random / Math.max(cut, least)).toFixed(1)} times as many`,
    "f-reached": share(reached),
    "f-next": next ? `${whole(next.more)} more: +${points(next.gain)}` : "everything is picked",
    "f-baseline": share(baseline),
    "f-interval": `${(100 * low).toFixed(1)} to ${(100 * high).toFixed(1)} %`,
    short: `${share(reached)} of what all labels would give, at random ${share(baseline)}`,
    "f-repeats": `${(100 * repeatsAt(cut)).toFixed(1)} %`,
  })) $(name).textContent = text;
  for (const node of document.querySelectorAll("[data-command]"))
    node.textContent = node.dataset.command.replace("{cut}", cut);
  moveChart(cut);
  map.setCut(cut);
  wall.setTotal(wallLength());
  later();
}
let soon = 0;
function later() { // what counts all images waits for the next frame, so that dragging stays smooth
  soon = soon || requestAnimationFrame(() => {
    soon = 0;
    drawShares();
    if ($("steps").open) tellSteps();
    if (inside) tellInside();
  });
}
const tellSteps = () => $("steps").replaceChildren($("steps").firstElementChild, stepsTable(ladder, cut));
$("steps").ontoggle = () => $("steps").open && tellSteps();
const repeatCounts = new Uint32Array(told.ranked + 1);
for (let r = 0; r < told.ranked; r++)
  repeatCounts[r + 1] = repeatCounts[r] + (rowOf[r] >= 0 && flags[rowOf[r]] & REPEAT ? 1 : 0);
const repeatsAt = (value) =>
  value <= told.complete ? repeatCounts[value] / value : ladder.at(value, "near_duplicate_rate");

// ---- the map and what is beside it ---------------------------------------------------------------------------------
// Images at random, for comparison: an order that is the same on every page of this ranking.
let randomRank = null, randomRows = null;
function randomOrder() {
  if (randomRank) return;
  let state = 12345;
  const next = () => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 32;
  randomRows = rowOf.slice(0, told.ranked).filter((row) => row >= 0);
  for (let k = randomRows.length - 1; k > 0; k--) {
    const other = Math.floor(next() * (k + 1));
    [randomRows[k], randomRows[other]] = [randomRows[other], randomRows[k]];
  }
  randomRank = new Uint32Array(count).fill(NONE);
  randomRows.forEach((row, place) => { randomRank[row] = place; });
}
const shownRank = () => (isRandom ? randomRank : rank);
const rowAt = (place) => (isRandom ? randomRows[place] : rowOf[place]);

function describe(i) {
  const parts = [];
  if (flags[i] & LABELLED) parts.push("labelled");
  else if (flags[i] & SKIPPED) parts.push("skipped");
  else if (flags[i] & FILTERED) parts.push("left out by the recipe's filters");
  else if (rank[i] === NONE) parts.push("not ranked");
  else parts.push(`rank ${whole(rank[i] + 1)}`, rank[i] < cut ? "picked at this cut" : "not picked at this cut");
  if (rank[i] !== NONE && columns.stands[i]) parts.push(`stands for ${whole(columns.stands[i])}`);
  if (flags[i] & OUT) parts.push("handed out, not back yet");
  if (flags[i] & REPEAT) parts.push("near-duplicate of an earlier one");
  if (flags[i] & ARRIVED && told.number > 1) parts.push("new with this refresh");
  return parts.join(", ");
}
function tellOne(i) {
  const pairs = told.groupings.map((grouping, g) => [grouping.name, grouping.values[columns[`group${g}`][i]]]);
  for (const name of ["sharpness", "brightness", "contrast"])
    pairs.push([name, figure(told.levels[name][columns[name][i]])]);
  const nodes = [
    make("div", { className: "large" }, picture(i, "")), make("p", { className: "name" }, nameOf(i)),
    make("p", {}, describe(i)), facts(pairs),
  ];
  const add = (title, rows) => rows.length && nodes.push(make("h3", { className: "minor" }, title), strip(rows));
  const parent = columns.parent[i] === NONE ? -1 : rowOf[columns.parent[i]];
  const others = childrenOf(rank[i] === NONE ? told.ranked : rank[i]), group = [];
  add("Nearest earlier pick", parent >= 0 ? [parent] : []);
  add(`It is the nearest earlier pick of ${counted(others.length, "image")}`, [...others.subarray(0, 12)]);
  for (let k = 0; columns.near[i] && k < count && group.length < 12; k++)
    if (columns.near[k] === columns.near[i] && k !== i) group.push(k);
  add("Near-duplicates of it", group);
  return nodes;
}
function strip(rows) {
  return make("div", { className: "strip" }, ...rows.map((row) => {
    const button = make("button", { type: "button", className: "tile", title: nameOf(row) }, picture(row, ""));
    button.setAttribute("aria-label", `${nameOf(row)}: ${describe(row)}`);
    button.onclick = () => open(row);
    return button;
  }));
}
const HINTS = [
  "Point at a dot to see its image, click it to keep it here. Drag to move, pinch or click and scroll to zoom. With the lasso, or with Shift, draw around dots to count them.",
  "Keys on the map: arrows go from image to image, + and - zoom, 0 shows all, L is the lasso, A counts what is in view, Esc clears.",
];
let kept = -1, inside = null;
function tell(i) {
  const panel = $("panel");
  if (i >= 0 && i !== kept) panel.replaceChildren(...tellOne(i));
  else if (inside) tellInside();
  else if (kept >= 0) panel.replaceChildren(...tellMatches(), ...tellOne(kept));
  else
    panel.replaceChildren(
      ...HINTS.map((text) => make("p", { className: "soft" }, text)),
      make("h3", { className: "minor" }, "The first picks"),
      strip([...rowOf.slice(0, Math.min(told.ranked, 20))].filter((row) => row >= 0)),
    );
}
function open(i) {
  kept = i;
  inside = null;
  tell(-1);
  map.show(i);
  $("map-box").scrollIntoView({ block: "nearest", behavior: isStill ? "auto" : "smooth" });
}
function tellInside() {
  const sums = { all: 0, picks: 0, labelled: 0, arrived: 0, repeats: 0 };
  for (const i of inside) {
    const weight = weightOf(i);
    sums.all += weight;
    if (shownRank()[i] < cut) sums.picks += weight;
    if (flags[i] & LABELLED) sums.labelled += weight;
    if (flags[i] & ARRIVED) sums.arrived += weight;
    if (columns.near[i]) sums.repeats += weight;
  }
  const part = (value) => `${whole(value)} (${sums.all ? ((100 * value) / sums.all).toFixed(1) : "0"} %)`;
  const median = (name) => [`median ${name}`, middleOf(told.levels[name], columns[name], inside)];
  const pairs = [
    ["images", whole(sums.all)],
    [isRandom ? "at random" : "picks", part(sums.picks)],
    ["labelled", part(sums.labelled)],
    ...(told.number > 1 ? [["new with this refresh", part(sums.arrived)]] : []),
    ["in groups of near-duplicates", part(sums.repeats)],
    median("sharpness"),
    median("brightness"),
  ];
  for (const [g, grouping] of told.groupings.slice(0, 3).entries()) {
    const counts = new Float64Array(grouping.values.length);
    for (const i of inside) counts[columns[`group${g}`][i]] += weightOf(i);
    const first = [...counts.keys()].filter((v) => counts[v]).sort((a, b) => counts[b] - counts[a]).slice(0, 3);
    const named = first.map((v) => `${grouping.values[v]} ${((100 * counts[v]) / sums.all).toFixed(0)}\u00a0%`);
    pairs.push([grouping.name, named.join(", ")]);
  }
  const order = [...inside].sort((a, b) => shownRank()[a] - shownRank()[b]);
  const clear = make("button", { type: "button", onclick: () => map.clear() }, "Clear");
  $("panel").replaceChildren(make("h3", {}, "Inside"), facts(pairs, { id: "inside" }), strip(order.slice(0, 24)), clear);
}
const map = createMap($("map"), { x: columns.x, y: columns.y, rank, mark: new Uint8Array(count) }, {
  label: "Map of the pool: images that look alike lie together, picks are lit",
  webgl: { "#canvas": false, "#webgl": "always" }[location.hash],
  picture: pictureOf,
  onHover(i, how) {
    tell(i);
    if (i >= 0 && how === "key") $("live").textContent = `${nameOf(i)}: ${describe(i)}`;
  },
  onOpen(i) {
    kept = i;
    inside = null;
    tell(i);
  },
  onSelect(rows) {
    inside = rows;
    if (rows) kept = -1;
    tell(-1);
    if (rows) $("live").textContent = `${whole(rows.length)} images inside`;
  },
  onMode(is) { $("lasso").setAttribute("aria-pressed", is); },
});
$("map").handle = map; // for the tests, and for a person at the console
whenDecoded(() => map.redraw());
const marks = [
  ["nothing", null],
  ...(told.number > 1 ? [["new with this refresh", (i) => flags[i] & ARRIVED]] : []),
  ...(told.labelledInPool ? [["labelled", (i) => flags[i] & LABELLED]] : []),
  ...(told.out ? [["handed out", (i) => flags[i] & OUT]] : []),
  ["groups of near-duplicates", (i) => columns.near[i] > 0],
  ["least sharp tenth", (i) => columns.sharpness[i] < 26],
  ["darkest tenth", (i) => columns.brightness[i] < 26],
  ...told.groupings.flatMap((grouping, g) =>
    grouping.values.map((value, v) => [`${grouping.name}: ${value}`, (i) => columns[`group${g}`][i] === v]),
  ),
];
$("marks").append(...marks.map(([name], place) => make("option", { value: place }, name)));
function setMarks() {
  const test = marks[$("marks").value][1], out = new Uint8Array(count);
  if (test) for (let i = 0; i < count; i++) out[i] = test(i) ? 1 : 0;
  map.setMarks(out);
}
$("marks").onchange = setMarks;
if (told.number > 1 || told.labelledInPool) {
  $("marks").value = 1;
  setMarks();
}

// Images by a part of their name: all that fit, one after the other by Enter.
let matches = [], wanted = "";
function find() {
  const text = $("find").value.trim().toLowerCase();
  if (text && text === wanted && matches.length) return goTo(matches.indexOf(kept) + 1);
  wanted = text;
  matches = [];
  for (let i = 0; text && i < count; i++) if (names[i].toLowerCase().includes(text)) matches.push(i);
  matches.sort((a, b) => rank[a] - rank[b]);
  if (matches.length) goTo(0);
  else if (text) $("panel").replaceChildren(make("p", {}, `No image has ${$("find").value} in its name.`));
}
function goTo(place) { open(matches[(place + matches.length) % matches.length]); }
function tellMatches() {
  const place = matches.indexOf(kept);
  if (place < 0 || matches.length < 2) return [];
  const step = (by, name) => make("button", { type: "button", onclick: () => goTo(place + by) }, name);
  const title = `${whole(place + 1)} of ${whole(matches.length)} with ${wanted} in the name`;
  const near = Math.max(0, Math.min(place - 6, matches.length - 18));
  const row = make("div", { className: "bar-of-controls" }, step(-1, "Previous"), step(1, "Next"));
  return [make("h3", {}, title), row, strip(matches.slice(near, near + 18))];
}
$("find").onchange = () => $("find").value.trim().toLowerCase() !== wanted && find();
$("find").onkeydown = (event) => {
  if (event.key !== "Enter") return;
  event.preventDefault(); // which would be a change too
  find();
};
$("lasso").onclick = () => map.setLasso($("lasso").getAttribute("aria-pressed") !== "true");
$("zoom-in").onclick = () => map.zoomBy(1.6);
$("zoom-out").onclick = () => map.zoomBy(1 / 1.6);
$("zoom-all").onclick = () => map.reset();
$("in-view").onclick = () => map.selectView();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => map.recolour());

// ---- the wall of picks -----------------------------------------------------------------------------------------------
function card(place) {
  const row = rowAt(place), others = isRandom ? [] : [...childrenOf(place).subarray(0, 3)];
  const caption = [make("b", {}, whole(place + 1))];
  if (!isRandom && columns.stands[row]) caption.push(` stands for ${whole(columns.stands[row])}`);
  if (flags[row] & OUT) caption.push(make("span", { className: "tag" }, "handed out"));
  if (flags[row] & REPEAT) caption.push(make("span", { className: "tag" }, "repeat"));
  return make("div", { className: "pick", title: nameOf(row) }, picture(row),
    make("span", { className: "caption" }, ...caption),
    make("span", { className: "others" }, ...others.map((other) => picture(other, ""))));
}
const wall = createGrid($("wall"), { label: "Picks up to the slider", width: 153, extra: 74, cell: card,
  onChoose: (place) => { $("live").textContent = `${nameOf(rowAt(place))}: ${describe(rowAt(place))}`; },
  onClick: (place) => open(rowAt(place)) });
const wallLength = () => Math.min(cut, isRandom ? randomRows.length : told.complete);
$("wall").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && wall.chosen >= 0) open(rowAt(wall.chosen));
  else if (!wall.onKey(event)) return;
  event.preventDefault();
});
function setRandom(is) {
  if (is) randomOrder();
  isRandom = is;
  $("as-picks").setAttribute("aria-pressed", !is);
  $("as-random").setAttribute("aria-pressed", is);
  map.setRanks(shownRank());
  $("wall").scrollTop = 0;
  wall.setTotal(wallLength());
  wall.redraw();
  later();
}
$("as-picks").onclick = () => setRandom(false);
$("as-random").onclick = () => setRandom(true);

// ---- shares of groups: pool, picks, labelled -------------------------------------------------------------------------
function drawShares() {
  const g = Number($("grouping").value || 0), grouping = told.groupings[g];
  if (!grouping) return;
  const [pool, picks, labelled] = [0, 1, 2].map(() => new Float64Array(grouping.values.length));
  const codes = columns[`group${g}`], order = shownRank();
  for (let i = 0; i < count; i++) {
    const weight = weightOf(i), code = codes[i];
    pool[code] += weight;
    if (order[i] < cut) picks[code] += weight;
    if (flags[i] & LABELLED) labelled[code] += weight;
  }
  const parts = [pool, picks, labelled].map((values) => [values, values.reduce((a, b) => a + b, 0) || 1]);
  const largest = Math.max(...parts.map(([values, all]) => Math.max(...values) / all));
  const cell = ([values, all], v, kind) => {
    const bar = make("span", { className: `bar ${kind}` }), part = values[v] / all;
    bar.style.width = `${((100 * part) / largest).toFixed(2)}%`;
    return make("td", {}, make("span", { className: "track" }, bar),
      make("span", { className: "value" }, all === 1 && !values[v] ? "" : `${(100 * part).toFixed(1)} %`),
      make("span", { className: "soft value" }, whole(values[v])));
  };
  $("shares").replaceChildren(...grouping.values.map((value, v) =>
    make("tr", {}, make("th", { scope: "row", title: value }, value), cell(parts[0], v, "of-pool"),
      cell(parts[1], v, "of-picks"), told.labelledInPool ? cell(parts[2], v, "of-labels") : null)));
}
$("grouping").append(...told.groupings.map((grouping, g) => make("option", { value: g }, grouping.name)));
$("grouping").onchange = drawShares;

// ---- begin -----------------------------------------------------------------------------------------------------------
$("slider").oninput = () => moveTo(fromSlider(Number($("slider").value)), "slider");
$("number").onchange = () => moveTo(Number($("number").value) || least, "number");
$("to-budget").onclick = () => moveTo(told.picks || least);
for (const button of document.querySelectorAll("button[data-copies]")) {
  button.onclick = async () => {
    const text = $(button.dataset.copies).textContent;
    try {
      await navigator.clipboard.writeText(text);
    } catch { // pages from the disk may not use the clipboard
      getSelection().selectAllChildren($(button.dataset.copies));
      document.execCommand("copy");
    }
    $("live").textContent = `copied: ${text}`;
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  };
}
for (const node of document.querySelectorAll("button[data-open]")) node.onclick = () => open(Number(node.dataset.open));
let printed = []; // what is open on paper alone
addEventListener("beforeprint", () => {
  printed = [...document.querySelectorAll("details[data-print]:not([open])")];
  for (const node of printed) node.open = true;
  if (told.ranked) { tellSteps(); wall.print(3); drawChart(cut); }
});
addEventListener("afterprint", () => { for (const node of printed) node.open = false; if (told.ranked) { wall.print(0); drawChart(cut); } });
if (told.ranked) {
  tell(-1);
  new ResizeObserver(() => drawChart(cut)).observe($("decide"));
  moveTo(cut || least);
}
performance.mark("ready");
document.documentElement.dataset.ready = "yes";
