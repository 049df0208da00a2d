// The room Map: the report's map over the live workspace, a slider, a filter that the server answers, and a lasso.
import { ask, asked, counted, empty, facts, figure, ladderOf, make, middleOf, nameAll, picture, rankNote, say, share, shortName, stepsTable, strip, whole, WORDS } from "./kit.js";
import { decideAll, MOST, onDecisions } from "./decide.js";
import { look, skipping } from "./look.js";
import { createMap } from "/map.js";

const KINDS = { Uint8Array, Uint16Array, Uint32Array }, NONE = 0xffffffff, STATES = Object.keys(WORDS);
let kept = null; // the columns of the refresh shown last
async function load() {
  const told = await asked("/api/columns");
  if (kept && kept.told.refresh === told.refresh) return kept;
  const found = { told };
  await Promise.all(Object.entries(told.columns).map(async ([name, { kind, digest }]) => {
    found[name] = new KINDS[kind](await (await ask(`/columns/${name}/${digest}`)).arrayBuffer());
  }));
  kept = found;
  return found;
}
const hex = Array.from({ length: 256 }, (_, value) => value.toString(16).padStart(2, "0"));

export function room(box, context) {
  let isLeft = false, view = null, stop = () => {};
  box.replaceChildren(make("p", { className: "soft" }, "Loading the map …"));
  begin().catch((error) => context.fail(error));

  async function begin() {
    const data = await load();
    if (isLeft) return;
    const { told } = data, count = told.count;
    if (!told.has_places) {
      box.replaceChildren(empty("No image has a place on the map yet", "A refresh places them, and this workspace's last one was made before there was a map. The next `wtl run` that has something to do makes it."));
      return;
    }
    const idOf = (i) => { let text = ""; for (let at = 32 * i; at < 32 * i + 32; at++) text += hex[data.id[at]]; return text; };
    const itemOf = (i) => ({ id: idOf(i), name: idOf(i).slice(0, 12), rank: data.rank[i] === NONE ? null : data.rank[i] });
    let states = new Uint8Array(await (await ask("/api/states")).arrayBuffer()), mask = null, condition = "", inside = null, kept_ = -1, cut = context.memory.cut || context.state.picks || 1;
    const ranked = context.state.ranked, least = 1, STEPS = 1000;
    const fromSlider = (value) => Math.round(least * (Math.max(ranked, 2) / least) ** (value / STEPS)), toSlider = (value) => (STEPS * Math.log(value)) / Math.log(Math.max(ranked, 2));

    const slider = make("input", { type: "range", min: 0, max: STEPS, step: 1, id: "cut" }), number = make("input", { type: "number", min: 1, max: ranked, id: "cut-number" });
    slider.setAttribute("aria-label", "How many ranks are lit");
    const marks = make("select", { id: "marks" }), where = make("input", { type: "text", id: "where", placeholder: "sharpness < 20 and format = 'jpeg'", spellcheck: false }), result = make("span", { className: "small soft", role: "status" }), lookAtMarked = make("button", { type: "button", hidden: true }, "Look at them"), problem = make("p", { className: "notice small", id: "where-problem", role: "alert", hidden: true });
    const tellProblem = (text) => { problem.hidden = !text; problem.textContent = text; if (text) where.setAttribute("aria-invalid", "true"); else where.removeAttribute("aria-invalid"); };
    where.setAttribute("aria-describedby", "where-problem");
    where.oninput = () => tellProblem("");
    const reached = make("p", { className: "small soft", id: "reached" }), further = make("details", { className: "further" }, make("summary", {}, "What each further 5 % buys")), ladder = ladderOf(context.state.rungs, ranked);
    const lasso = make("button", { type: "button" }, "Lasso"), all = make("button", { type: "button" }, "All"), viewed = make("button", { type: "button" }, "What is in view");
    lasso.setAttribute("aria-pressed", "false");
    const mapBox = make("div", { id: "map" }), panel = make("div", { id: "panel", tabIndex: 0, role: "region" });
    panel.setAttribute("aria-label", "About the image or the part of the map that was chosen");
    const form = make("form", { className: "bar-of-controls" }, make("label", { htmlFor: "marks" }, "Highlight"), marks, make("label", { htmlFor: "where" }, "where"), where, make("button", {}, "Show"), result, lookAtMarked, problem);
    box.replaceChildren(
      make("h2", { className: "unseen" }, "Map"), make("div", { className: "bar-of-controls slide-bar" }, make("label", { htmlFor: "cut-number" }, "First ranks"), number, slider, lasso, viewed, all), make("div", { className: "bar-of-controls" }, reached, further), form,
      make("div", { className: "beside" }, mapBox, panel),
      make("p", { className: "small soft" }, "Images that look alike to the encoder lie together. Green: up to the slider. Orange: highlighted. On the map: arrows go from image to image, + and - zoom, 0 shows all, L is the lasso, A counts what is in view, Enter chooses, Esc clears."));

    const images = new Map();
    function pictureOf(i) {
      let image = images.get(i);
      if (!image) {
        if (images.size > 3000) images.clear();
        image = new Image();
        image.onload = () => view && view.redraw();
        image.src = `/thumbs/${idOf(i)}`;
        images.set(i, image);
      }
      return image.complete && image.naturalWidth ? image : null;
    }
    view = mapBox.handle = createMap(mapBox, { x: data.x, y: data.y, rank: data.rank, mark: new Uint8Array(count) }, {
      label: "Map of the pool: images that look alike lie together, the first ranks are lit",
      picture: pictureOf,
      onHover(i, how) { if (i >= 0) tellOne(i); else tellKept(); if (i >= 0 && how === "key") say(`${rankNote(itemOf(i))}, ${WORDS[STATES[states[i]]]}`); },
      onOpen(i) { kept_ = i; inside = null; tellOne(i, true); },
      onSelect(rows) { inside = rows; kept_ = -1; tellKept(); if (rows) say(`${whole(rows.length)} images inside`); },
      onMode(is) { lasso.setAttribute("aria-pressed", is); },
    });
    lasso.onclick = () => view.setLasso(lasso.getAttribute("aria-pressed") !== "true");
    all.onclick = () => view.reset();
    viewed.onclick = () => view.selectView();
    const dark = matchMedia("(prefers-color-scheme: dark)");
    dark.onchange = () => view.recolour();

    const choices = [["nothing", null], ["new with the last refresh", (i) => data.arrived[i]], ["labelled", (i) => states[i] === 4], ["handed out", (i) => states[i] === 5], ["kept", (i) => states[i] === 1], ["skipped", (i) => states[i] === 2 || states[i] === 3],
      ["near-duplicates", (i) => data.near[i] > 0], ["least sharp tenth", (i) => data.sharpness[i] < 26, "sharpness"], ["darkest tenth", (i) => data.brightness[i] < 26, "brightness"],
      ...told.groupings.flatMap((grouping, g) => grouping.values.map((value, v) => [`${grouping.name}: ${value}`, (i) => data[`group${g}`][i] === v])), ["the condition", (i) => mask && mask[i >> 3] & (1 << (i & 7))]];
    marks.append(...choices.map(([name], at) => make("option", { value: at }, name)));
    marks.value = context.memory.marks ?? (context.state.arrived ? 1 : context.state.labelled ? 2 : 0); // as in the report
    let marked = null; // the rows that are highlighted
    function mark() {
      const test = choices[marks.value][1], out = new Uint8Array(count);
      marked = null;
      if (test) {
        const found = [];
        for (let i = 0; i < count; i++) if (test(i)) { out[i] = 1; found.push(i); }
        marked = Uint32Array.from(found);
      }
      context.memory.marks = marks.value < choices.length - 1 ? marks.value : undefined;
      view.setMarks(out);
      tellMarked();
    }
    // What is highlighted, and the picks among it, which the slider changes too.
    function tellMarked() {
      lookAtMarked.hidden = !marked || !marked.length;
      result.textContent = marked ? `${counted(marked.length, "image")}, ${whole(picksOf(marked))} of them up to the slider` : "";
    }
    const picksOf = (rows) => { let sum = 0; for (let k = 0; k < rows.length; k++) if (data.rank[rows[k]] < cut) sum++; return sum; };
    // The images of some rows in a window, to be looked at and then skipped. Of what a person has drawn or asked for, the
    // open ones are chosen at first; of a ready-made choice none, and a measure orders it.
    function lookAt(rows, by, { measure, isOwn = true } = {}) {
      const order = [...rows].sort((a, b) => (measure && data[measure][a] - data[measure][b]) || data.rank[a] - data.rank[b]).slice(0, MOST);
      const items = order.map((i) => ({ ...itemOf(i), name: "", state: STATES[states[i]], note: measure ? figure(told.levels[measure][data[measure][i]]) : "" }));
      const about = [measure ? `The lowest ${measure} comes first; under each picture are its rank and its ${measure}.` : "The first ranks come first.", ...(rows.length > MOST ? [`The first ${whole(MOST)} of them are here. To leave out more, give the recipe a filter.`] : []), ...(isOwn ? [] : ["None is chosen yet."])];
      look({ title: `${counted(rows.length, "image")}: ${by}`, about: about.join(" "), items, picks: context.state.picks,
        open: (item) => context.go("picks", item), isChosen: (item) => isOwn && item.state === "open", actions: skipping((wanted, decision) => decideAll(wanted, decision, `Map, ${by}`, context.state.picks)) });
    }
    lookAtMarked.onclick = () => marked && (marks.value < choices.length - 1 ? lookAt(marked, choices[marks.value][0], { measure: choices[marks.value][2], isOwn: false }) : lookAt(marked, condition));
    marks.onchange = mark;
    form.onsubmit = async (event) => {
      event.preventDefault();
      tellProblem("");
      if (!where.value.trim()) { marks.value = 0; mark(); return; }
      try {
        mask = new Uint8Array(await (await ask(`/api/mask?where=${encodeURIComponent(where.value)}`)).arrayBuffer());
        condition = where.value.trim();
        marks.value = choices.length - 1;
        mark();
      } catch (error) {
        marks.value = 0; // what an earlier condition highlighted is not what this one asks for
        mark();
        tellProblem(error.message);
      }
    };
    function moveTo(value, from) {
      cut = Math.max(1, Math.min(ranked, Math.round(value) || 1));
      context.memory.cut = cut;
      if (from !== "slider") slider.value = toSlider(cut);
      if (from !== "number") number.value = cut;
      slider.setAttribute("aria-valuetext", `${whole(cut)} ranks`);
      view.setCut(cut);
      reached.textContent = cut < ladder.least || !ladder.rungs.length ? "" : `Labelling these gives ${share(ladder.reached(cut))} of what labelling everything would; as many at random give ${share(ladder.reached(cut, "random_coverage_mean"))}, and ${whole(ladder.at(cut, "equivalent_random_count"))} random ones as much. ${ladder.next(cut)}`;
      if (further.open) tellFurther();
      if (marked) tellMarked();
      if (inside) tellKept();
    }
    slider.oninput = () => moveTo(fromSlider(Number(slider.value)), "slider");
    number.onchange = () => moveTo(Number(number.value), "number");

    const tellFurther = () => further.replaceChildren(further.firstChild, stepsTable(ladder, cut));
    further.hidden = !ladder.rungs.length;
    further.ontoggle = () => further.open && tellFurther();
    let asking = null, timer = 0;
    function tellOne(i, isKept) {
      const item = itemOf(i);
      const parts = [rankNote(item), ...(data.stands[i] ? [`stands for ${whole(data.stands[i])}`] : []), WORDS[STATES[states[i]]]];
      const name = make("p", { className: "name" }), more = make("div");
      panel.replaceChildren(make("div", { className: "large" }, picture(item, { alt: "" })), name, make("p", {}, parts.join(" · ")), more);
      clearTimeout(timer);
      timer = setTimeout(async () => {
        asking?.abort();
        asking = new AbortController();
        try {
          const found = await asked(`/api/images/${item.id}`, { signal: asking.signal });
          name.textContent = shortName(found.name);
          name.title = found.name;
          const go = make("button", { type: "button" }, "Open among the picks");
          go.onclick = () => context.go("picks", { ...item, name: found.name, state: found.state });
          more.replaceChildren(isKept ? go : "", facts(found.facts));
        } catch (error) { if (error.name !== "AbortError") context.fail(error); }
      }, isKept ? 0 : 150);
    }
    function tellKept() {
      clearTimeout(timer);
      if (kept_ >= 0) tellOne(kept_, true);
      else if (inside) tellInside();
      else panel.replaceChildren(make("p", { className: "soft" }, "Point at a dot to see its image; click it to keep it here. Draw around dots with the lasso, or with Shift, to count them."));
    }
    function tellInside() {
      const sums = { picks: 0, labelled: 0, out: 0, kept: 0, skipped: 0, arrived: 0, near: 0 };
      for (const i of inside) {
        if (data.rank[i] < cut) sums.picks++;
        if (states[i] === 4) sums.labelled++;
        if (states[i] === 5) sums.out++;
        if (states[i] === 1) sums.kept++;
        if (states[i] === 2 || states[i] === 3) sums.skipped++;
        if (data.arrived[i]) sums.arrived++;
        if (data.near[i]) sums.near++;
      }
      const part = (value) => `${whole(value)} (${inside.length ? ((100 * value) / inside.length).toFixed(1) : 0} %)`;
      const middle = (name) => middleOf(told.levels[name], data[name], inside);
      const order = [...inside].sort((a, b) => data.rank[a] - data.rank[b]).slice(0, 30);
      const clear = make("button", { type: "button" }, "Clear"), through = make("button", { type: "button", hidden: !inside.length }, "Look at them");
      through.onclick = () => lookAt(inside, "inside a part of the map");
      clear.onclick = () => view.clear();
      panel.replaceChildren(make("h3", {}, "Inside"), facts([["images", whole(inside.length)], ["up to the slider", part(sums.picks)], ["labelled", part(sums.labelled)], ["handed out", part(sums.out)], ["kept", part(sums.kept)], ["skipped", part(sums.skipped)],
        ["new", part(sums.arrived)], ["near-duplicates", part(sums.near)], ["median sharpness", middle("sharpness")], ["median brightness", middle("brightness")]]),
      make("p", { className: "acts" }, through, clear));
      const items = order.map((i) => ({ ...itemOf(i), name: "", state: STATES[states[i]] })), shownFor = inside;
      nameAll(items).then(() => { if (inside === shownFor && panel.querySelector("h3")) { panel.querySelector(".strip")?.remove(); panel.append(strip(items, (item) => context.go("picks", item))); } }, (error) => context.fail(error));
    }
    moveTo(cut);
    mark();
    tellKept();
    if (context.target) { const at = find(data.id, context.target.id); if (at >= 0) { kept_ = at; view.show(at); tellOne(at, true); } }
    const redraw = () => { mark(); if (inside) tellInside(); };
    stop = onDecisions(({ now, error }) => {
      for (const [id, state] of Object.entries(now)) { const at = find(data.id, id); if (at >= 0) states[at] = STATES.indexOf(state); }
      redraw();
      context.tellTrouble(error);
    });
    room.reload = async () => { states = new Uint8Array(await (await ask("/api/states")).arrayBuffer()); redraw(); };
    room.view = view;
  }
  return {
    refreshed(isNew) { if (isNew) begin().catch((error) => context.fail(error)); else room.reload?.(); },
    leave() { isLeft = true; stop(); room.reload = null; },
  };
}
// The row of an id in the sorted column of ids.
function find(ids, id) {
  let low = 0, high = ids.length / 32 - 1;
  while (low <= high) {
    const middle = (low + high) >> 1;
    let order = 0;
    for (let at = 0; at < 32 && !order; at++) order = ids[32 * middle + at] - parseInt(id.slice(2 * at, 2 * at + 2), 16);
    if (!order) return middle;
    if (order < 0) low = middle + 1; else high = middle - 1;
  }
  return -1;
}
