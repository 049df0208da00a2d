// The report's page: the slider over the operating points, and all that it moves. The map itself is map.js.
import {
  at,
  drawChart,
  fromSlider,
  least,
  most,
  moveChart,
  percentOf,
  rungs,
  sentence,
  share,
  toSlider,
} from "./ladder.js";
import { createMap } from "./map.js";
import {
  $,
  ARRIVED,
  FILTERED,
  LABELLED,
  NONE,
  REPEAT,
  SKIPPED,
  childrenOf,
  columns,
  count,
  flags,
  make,
  nameOf,
  names,
  picture,
  pictureOf,
  rank,
  rowOf,
  told,
  weightOf,
  whenDecoded,
  whole,
} from "./page_data.js";

const isStill = matchMedia("(prefers-reduced-motion: reduce)").matches;

let cut = Math.max(0, Math.min(told.ranked, told.picks)),
  isRandom = false;

function moveTo(value, from) {
  cut = Math.max(1, Math.min(most, Math.round(value)));
  if (from !== "slider") $("slider").value = toSlider(Math.max(cut, least));
  if (from !== "number") $("number").value = cut;
  $("slider").setAttribute("aria-valuetext", `${whole(cut)} images, ${percentOf(cut)} per cent of the pool`);
  const everything = rungs[rungs.length - 1].coverage || 1,
    random = at(cut, "equivalent_random_count");
  $("sentence").textContent =
    (cut < least ? `Measured from ${whole(least)} on: ` : "") + sentence(Math.max(cut, least));
  $("f-count").textContent = whole(cut);
  $("f-percent").textContent = `${percentOf(cut)} % of ${whole(most)}`;
  $("f-random").textContent = whole(random);
  $("f-times").textContent = `${(random / Math.max(cut, least)).toFixed(1)} times as many`;
  $("f-reached").textContent = share(at(cut, "coverage") / everything);
  $("f-coverage").textContent = `coverage ${at(cut, "coverage").toFixed(3)}`;
  $("f-baseline").textContent = share(at(cut, "random_coverage_mean") / everything);
  $("f-interval").textContent =
    `${at(cut, "random_coverage_low").toFixed(3)} to ${at(cut, "random_coverage_high").toFixed(3)}`;
  $("short").textContent =
    `${share(at(cut, "coverage") / everything)} of what all labels would give, at random ${share(at(cut, "random_coverage_mean") / everything)}`;
  $("f-repeats").textContent = `${(100 * repeatsAt(cut)).toFixed(1)} %`;
  for (const node of document.querySelectorAll("[data-command]"))
    node.textContent = node.dataset.command.replace("{cut}", cut);
  moveChart(cut);
  map.setCut(cut);
  wall.resize();
  later();
}
let soon = 0;
function later() {
  // what counts all images waits for the next frame, so that dragging stays smooth
  if (!soon)
    soon = requestAnimationFrame(() => {
      soon = 0;
      drawShares();
      if (inside) tellInside();
    });
}
const repeatCounts = new Uint32Array(told.ranked + 1);
for (let r = 0; r < told.ranked; r++)
  repeatCounts[r + 1] = repeatCounts[r] + (rowOf[r] >= 0 && flags[rowOf[r]] & REPEAT ? 1 : 0);
const repeatsAt = (value) => (value <= told.complete ? repeatCounts[value] / value : at(value, "near_duplicate_rate"));

// ---- the map and what is beside it ---------------------------------------------------------------------------------
// Images at random, for comparison: an order that is the same on every page of this ranking.
let randomRank = null,
  randomRows = null;
function randomOrder() {
  if (randomRank) return;
  let state = 12345;
  const next = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
  randomRows = rowOf.slice(0, told.ranked).filter((row) => row >= 0);
  for (let k = randomRows.length - 1; k > 0; k--) {
    const other = Math.floor(next() * (k + 1));
    [randomRows[k], randomRows[other]] = [randomRows[other], randomRows[k]];
  }
  randomRank = new Uint32Array(count).fill(NONE);
  randomRows.forEach((row, place) => {
    randomRank[row] = place;
  });
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
  if (flags[i] & REPEAT) parts.push("near-duplicate of an earlier one");
  if (flags[i] & ARRIVED && told.number > 1) parts.push("new with this refresh");
  return parts.join(", ");
}
function level(name, i) {
  return told.levels[name][columns[name][i]];
}
function tellOne(i) {
  const facts = told.groupings.map((grouping, g) => [grouping.name, grouping.values[columns[`group${g}`][i]]]);
  for (const name of ["sharpness", "brightness", "contrast"])
    facts.push([name, level(name, i).toLocaleString("en-US", { maximumSignificantDigits: 3 })]);
  const list = make(
    "dl",
    { className: "facts" },
    ...facts.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]),
  );
  const nodes = [
    make("div", { className: "large" }, picture(i, "")),
    make("p", { className: "name" }, nameOf(i)),
    make("p", {}, describe(i)),
    list,
  ];
  const parent = columns.parent[i] === NONE ? -1 : rowOf[columns.parent[i]],
    others = childrenOf(rank[i] === NONE ? told.ranked : rank[i]);
  if (parent >= 0) nodes.push(make("h3", { className: "minor" }, "Nearest earlier pick"), strip([parent]));
  if (others.length)
    nodes.push(
      make(
        "h3",
        { className: "minor" },
        `It is the nearest earlier pick of ${whole(others.length)} image${others.length === 1 ? "" : "s"}`,
      ),
      strip([...others.subarray(0, 12)]),
    );
  if (columns.near[i]) {
    const group = [];
    for (let k = 0; k < count && group.length < 12; k++)
      if (columns.near[k] === columns.near[i] && k !== i) group.push(k);
    if (group.length) nodes.push(make("h3", { className: "minor" }, "Near-duplicates of it"), strip(group));
  }
  return nodes;
}
function strip(rows) {
  return make(
    "div",
    { className: "strip" },
    ...rows.map((row) => {
      const button = make("button", { type: "button", className: "tile", title: nameOf(row) }, picture(row, ""));
      button.setAttribute("aria-label", `${nameOf(row)}: ${describe(row)}`);
      button.onclick = () => open(row);
      return button;
    }),
  );
}
const HINT =
  "Point at a dot to see its image, click it to keep it here. Drag to move, pinch or click and scroll to zoom. With the lasso, or with Shift, draw around dots to count them.";
let kept = -1,
  inside = null;
function tell(i) {
  const panel = $("panel");
  if (i >= 0) panel.replaceChildren(...tellOne(i));
  else if (inside) tellInside();
  else if (kept >= 0) panel.replaceChildren(...tellOne(kept));
  else
    panel.replaceChildren(
      make("p", { className: "soft" }, HINT),
      make(
        "p",
        { className: "soft" },
        "Keys on the map: arrows go from image to image, + and - zoom, 0 shows all, L is the lasso, A counts what is in view, Esc clears.",
      ),
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
  const sums = { all: 0, picks: 0, labelled: 0, arrived: 0, repeats: 0, sharpness: [], brightness: [] };
  for (const i of inside) {
    const weight = weightOf(i);
    sums.all += weight;
    if (shownRank()[i] < cut) sums.picks += weight;
    if (flags[i] & LABELLED) sums.labelled += weight;
    if (flags[i] & ARRIVED) sums.arrived += weight;
    if (columns.near[i]) sums.repeats += weight;
  }
  const middle = (name) => {
    const values = [...inside].map((i) => columns[name][i]).sort((a, b) => a - b);
    return values.length ? values[values.length >> 1] : 0;
  };
  const against = (name) =>
    `${told.levels[name][middle(name)].toLocaleString("en-US", { maximumSignificantDigits: 3 })} (pool ${told.levels[name][128].toLocaleString("en-US", { maximumSignificantDigits: 3 })})`;
  const part = (value) => `${whole(value)} (${sums.all ? ((100 * value) / sums.all).toFixed(1) : "0"} %)`;
  const facts = [
    ["images", whole(sums.all)],
    [isRandom ? "at random" : "picks", part(sums.picks)],
    ["labelled", part(sums.labelled)],
  ];
  if (told.number > 1) facts.push(["new with this refresh", part(sums.arrived)]);
  facts.push(
    ["in groups of near-duplicates", part(sums.repeats)],
    ["median sharpness", against("sharpness")],
    ["median brightness", against("brightness")],
  );
  for (const [g, grouping] of told.groupings.entries()) {
    if (g > 2) break;
    const counts = new Float64Array(grouping.values.length);
    for (const i of inside) counts[columns[`group${g}`][i]] += weightOf(i);
    const first = [...counts.keys()]
      .filter((v) => counts[v])
      .sort((a, b) => counts[b] - counts[a])
      .slice(0, 3);
    facts.push([
      grouping.name,
      first.map((v) => `${grouping.values[v]} ${((100 * counts[v]) / sums.all).toFixed(0)}\u00a0%`).join(", "),
    ]);
  }
  const order = [...inside].sort((a, b) => shownRank()[a] - shownRank()[b]);
  const clear = make("button", { type: "button" }, "Clear");
  clear.onclick = () => map.clear();
  $("panel").replaceChildren(
    make("h3", {}, "Inside"),
    make(
      "dl",
      { className: "facts", id: "inside" },
      ...facts.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]),
    ),
    strip(order.slice(0, 24)),
    clear,
  );
}
const map = createMap(
  $("map"),
  { x: columns.x, y: columns.y, rank, mark: new Uint8Array(count) },
  {
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
    onMode(is) {
      $("lasso").setAttribute("aria-pressed", is);
    },
  },
);
$("map").handle = map; // for the tests, and for a person at the console
whenDecoded(() => map.redraw());
const marks = [
  ["nothing", null],
  ...(told.number > 1 ? [["new with this refresh", (i) => flags[i] & ARRIVED]] : []),
  ...(told.labelledInPool ? [["labelled", (i) => flags[i] & LABELLED]] : []),
  ["groups of near-duplicates", (i) => columns.near[i] > 0],
  ["least sharp tenth", (i) => columns.sharpness[i] < 26],
  ["darkest tenth", (i) => columns.brightness[i] < 26],
  ...told.groupings.flatMap((grouping, g) =>
    grouping.values.map((value, v) => [`${grouping.name}: ${value}`, (i) => columns[`group${g}`][i] === v]),
  ),
];
$("marks").append(...marks.map(([name], at) => make("option", { value: at }, name)));
function setMarks() {
  const test = marks[$("marks").value][1],
    out = new Uint8Array(count);
  if (test) for (let i = 0; i < count; i++) out[i] = test(i) ? 1 : 0;
  map.setMarks(out);
}
$("marks").onchange = setMarks;
if (told.number > 1 || told.labelledInPool) {
  $("marks").value = 1;
  setMarks();
}
$("find").onchange = () => {
  const wanted = $("find").value.toLowerCase(),
    found = wanted ? names.findIndex((name) => name.toLowerCase().includes(wanted)) : -1;
  if (found >= 0) open(found);
  else if (wanted) $("panel").replaceChildren(make("p", {}, `No image has ${$("find").value} in its name.`));
};
$("lasso").onclick = () => map.setLasso($("lasso").getAttribute("aria-pressed") !== "true");
$("zoom-in").onclick = () => map.zoomBy(1.6);
$("zoom-out").onclick = () => map.zoomBy(1 / 1.6);
$("zoom-all").onclick = () => map.reset();
$("in-view").onclick = () => map.selectView();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => map.recolour());

// ---- the wall of picks: only the rows in sight are in the page -------------------------------------------------------
const wall = {
  box: $("wall"),
  inner: $("wall-inner"),
  first: -1,
  shown: "",
  columns: 1,
  height: 1,
  chosen: 0,
  resize() {
    const width = this.box.clientWidth - 16;
    this.columns = Math.max(2, Math.floor((width + 12) / 165));
    this.height = Math.round(((width - 12 * (this.columns - 1)) / this.columns) * 0.75) + 86;
    this.inner.style.height = `${Math.ceil(this.total() / this.columns) * this.height}px`;
    this.draw();
  },
  total() {
    return Math.min(cut, isRandom ? randomRows.length : told.complete);
  },
  draw() {
    const rows = this.isPrinting ? 3 : Math.ceil(this.box.clientHeight / this.height) + 2,
      total = this.total();
    const top = this.isPrinting ? 0 : Math.max(0, Math.floor(this.box.scrollTop / this.height) - 1);
    const from = top * this.columns,
      to = Math.min(total, from + rows * this.columns),
      key = `${from} ${to} ${this.columns} ${this.height} ${isRandom}`;
    if (key === this.shown) return;
    this.shown = key;
    const cards = [];
    for (let place = from; place < to; place++) if (rowAt(place) >= 0) cards.push(this.card(place, rowAt(place)));
    this.inner.style.setProperty("--columns", this.columns);
    $("wall-rows").style.transform = `translateY(${top * this.height}px)`;
    $("wall-rows").style.gridAutoRows = `${this.height - 12}px`;
    $("wall-rows").replaceChildren(...cards);
  },
  card(place, row) {
    const others = isRandom ? [] : [...childrenOf(place).subarray(0, 3)],
      caption = [make("b", {}, `${whole(place + 1)}`)];
    if (!isRandom && columns.stands[row]) caption.push(` stands for ${whole(columns.stands[row])}`);
    if (flags[row] & REPEAT) caption.push(make("span", { className: "tag" }, "repeat"));
    const button = make(
      "button",
      { type: "button", className: "pick", tabIndex: place === this.chosen ? 0 : -1, title: nameOf(row) },
      picture(row),
      make("span", { className: "caption" }, ...caption),
      make("span", { className: "others" }, ...others.map((other) => picture(other, ""))),
    );
    button.dataset.place = place;
    button.onclick = () => {
      this.chosen = place;
      open(row);
    };
    return button;
  },
  go(place) {
    this.chosen = Math.max(0, Math.min(this.total() - 1, place));
    const line = Math.floor(this.chosen / this.columns) * this.height;
    if (line < this.box.scrollTop) this.box.scrollTop = line;
    if (line + this.height > this.box.scrollTop + this.box.clientHeight)
      this.box.scrollTop = line + this.height - this.box.clientHeight;
    this.shown = "";
    this.draw();
    const found = this.inner.querySelector(`[data-place="${this.chosen}"]`);
    if (found) found.focus({ preventScroll: true });
  },
};
wall.box.addEventListener("scroll", () => wall.draw());
wall.box.addEventListener("keydown", (event) => {
  const step = {
    ArrowLeft: -1,
    ArrowRight: 1,
    ArrowUp: -wall.columns,
    ArrowDown: wall.columns,
    PageDown: wall.columns * 4,
    PageUp: -wall.columns * 4,
    Home: -1e9,
    End: 1e9,
  }[event.key];
  if (step === undefined) return;
  event.preventDefault();
  wall.go(wall.chosen + step);
});
function setRandom(is) {
  if (is) randomOrder();
  isRandom = is;
  $("as-picks").setAttribute("aria-pressed", !is);
  $("as-random").setAttribute("aria-pressed", is);
  map.setRanks(shownRank());
  wall.box.scrollTop = 0;
  wall.resize();
  later();
}
$("as-picks").onclick = () => setRandom(false);
$("as-random").onclick = () => setRandom(true);

// ---- shares of groups: pool, picks, labelled -------------------------------------------------------------------------
function drawShares() {
  const g = Number($("grouping").value || 0),
    grouping = told.groupings[g];
  if (!grouping) return;
  const size = grouping.values.length,
    pool = new Float64Array(size),
    picks = new Float64Array(size),
    labelled = new Float64Array(size);
  const codes = columns[`group${g}`],
    order = shownRank();
  for (let i = 0; i < count; i++) {
    const weight = weightOf(i),
      code = codes[i];
    pool[code] += weight;
    if (order[i] < cut) picks[code] += weight;
    if (flags[i] & LABELLED) labelled[code] += weight;
  }
  const sum = (values) => values.reduce((a, b) => a + b, 0),
    parts = [pool, picks, labelled].map((values) => [values, sum(values) || 1]);
  const largest = Math.max(...parts.map(([values, all]) => Math.max(...values) / all));
  const cell = ([values, all], v, kind) => {
    const bar = make("span", { className: `bar ${kind}` });
    bar.style.width = `${((100 * values[v]) / all / largest).toFixed(2)}%`;
    return make(
      "td",
      {},
      make("span", { className: "track" }, bar),
      make("span", { className: "value" }, all === 1 && !values[v] ? "" : `${((100 * values[v]) / all).toFixed(1)} %`),
      make("span", { className: "soft value" }, whole(values[v])),
    );
  };
  $("shares").replaceChildren(
    ...grouping.values.map((value, v) =>
      make(
        "tr",
        {},
        make("th", { scope: "row", title: value }, value),
        cell(parts[0], v, "of-pool"),
        cell(parts[1], v, "of-picks"),
        ...(told.labelledInPool ? [cell(parts[2], v, "of-labels")] : []),
      ),
    ),
  );
}
if (told.groupings.length) {
  $("grouping").append(...told.groupings.map((grouping, g) => make("option", { value: g }, grouping.name)));
  $("grouping").onchange = drawShares;
}

// ---- begin -----------------------------------------------------------------------------------------------------------
$("slider").oninput = () => moveTo(fromSlider(Number($("slider").value)), "slider");
$("number").onchange = () => moveTo(Number($("number").value) || least, "number");
$("to-budget").onclick = () => moveTo(told.picks || least);
for (const button of document.querySelectorAll("button[data-copies]")) {
  button.onclick = async () => {
    const text = $(button.dataset.copies).textContent;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // pages from the disk may not use the clipboard
      getSelection().selectAllChildren($(button.dataset.copies));
      document.execCommand("copy");
    }
    $("live").textContent = `copied: ${text}`;
    button.textContent = "Copied";
    setTimeout(() => {
      button.textContent = "Copy";
    }, 1500);
  };
}
for (const node of document.querySelectorAll("button[data-open]")) node.onclick = () => open(Number(node.dataset.open));
addEventListener("beforeprint", () => {
  document.querySelectorAll("details[data-print]").forEach((node) => {
    node.open = true;
  });
  wall.isPrinting = true;
  wall.resize();
  drawChart(cut);
});
addEventListener("afterprint", () => {
  wall.isPrinting = false;
  wall.resize();
  drawChart(cut);
});
if (told.ranked) {
  tell(-1);
  new ResizeObserver(() => {
    drawChart(cut);
    wall.resize();
  }).observe($("decide"));
  moveTo(cut || least);
}
performance.mark("ready");
document.documentElement.dataset.ready = "yes";
