// The room Map: the report's map over the live workspace, a slider, a filter that the server answers, and a lasso.
import { ask, asked, counted, empty, facts, make, picture, say, shortName, strip, whole } from "./kit.js";
import { decide, onDecisions, undo } from "./decide.js";
import { WORDS } from "./picks.js";
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
    let states = new Uint8Array(await (await ask("/api/states")).arrayBuffer()), mask = null, inside = null, kept_ = -1, cut = context.memory.cut || context.state.picks || 1;
    const ranked = context.state.ranked, least = 1, STEPS = 1000;
    const fromSlider = (value) => Math.round(least * (Math.max(ranked, 2) / least) ** (value / STEPS)), toSlider = (value) => (STEPS * Math.log(value)) / Math.log(Math.max(ranked, 2));

    const slider = make("input", { type: "range", min: 0, max: STEPS, step: 1, id: "cut" }), number = make("input", { type: "number", min: 1, max: ranked, id: "cut-number" });
    slider.setAttribute("aria-label", "How many ranks are lit");
    const marks = make("select", { id: "marks" }), where = make("input", { type: "text", id: "where", placeholder: "sharpness < 20 and format = 'jpeg'", spellcheck: false }), result = make("span", { className: "small soft", role: "status" }), skip = make("button", { type: "button", hidden: true });
    const reached = make("p", { className: "small soft", id: "reached" });
    const lasso = make("button", { type: "button" }, "Lasso"), all = make("button", { type: "button" }, "All"), viewed = make("button", { type: "button" }, "What is in view");
    lasso.setAttribute("aria-pressed", "false");
    const mapBox = make("div", { id: "map" }), panel = make("div", { id: "panel", tabIndex: 0, role: "region" });
    panel.setAttribute("aria-label", "About the image or the part of the map that was chosen");
    const form = make("form", { className: "bar-of-controls" }, make("label", { htmlFor: "marks" }, "Highlight"), marks, make("label", { htmlFor: "where" }, "where"), where, make("button", {}, "Show"), result, skip);
    box.replaceChildren(
      make("h2", { className: "unseen" }, "Map"), make("div", { className: "bar-of-controls slide-bar" }, make("label", { htmlFor: "cut-number" }, "First ranks"), number, slider, lasso, viewed, all), reached, form,
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
      onHover(i, how) { if (i >= 0) tellOne(i); else tellKept(); if (i >= 0 && how === "key") say(`${data.rank[i] === NONE ? "not ranked" : `rank ${data.rank[i] + 1}`}, ${WORDS[STATES[states[i]]]}`); },
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
      ["near-duplicates", (i) => data.near[i] > 0], ["least sharp tenth", (i) => data.sharpness[i] < 26], ["darkest tenth", (i) => data.brightness[i] < 26],
      ...told.groupings.flatMap((grouping, g) => grouping.values.map((value, v) => [`${grouping.name}: ${value}`, (i) => data[`group${g}`][i] === v])), ["the condition", (i) => mask && mask[i >> 3] & (1 << (i & 7))]];
    marks.append(...choices.map(([name], at) => make("option", { value: at }, name)));
    let marked = null;
    function mark() {
      const test = choices[marks.value][1], out = new Uint8Array(count);
      let sum = 0;
      if (test) for (let i = 0; i < count; i++) if (test(i)) { out[i] = 1; sum++; }
      view.setMarks(out);
      marked = test ? { out, sum } : null;
      tellMarked();
    }
    // What is highlighted, and the picks among it, which the slider changes too.
    function tellMarked() {
      offer(skip, marked ? Uint32Array.from({ length: count }, (_, i) => i).filter((i) => marked.out[i]) : []);
      result.textContent = marked ? `${counted(marked.sum, "image")}, ${whole(picksOf(marked.out))} of them up to the slider` : "";
    }
    // A button that skips the open ones up to the slider among some rows, as unusable; Z among the picks undoes it.
    function offer(button, rows) {
      const found = [...rows].filter((i) => data.rank[i] < cut && (states[i] < 2 || states[i] === 5)).slice(0, 1000);
      button.hidden = !found.length;
      button.textContent = `Skip the ${counted(found.length, "pick")} among them as unusable`;
      button.onclick = () => {
        if (!decide(found.map((i) => ({ ...itemOf(i), state: STATES[states[i]] })), "unusable")) return;
        for (const i of found) states[i] = 2;
        say(`${counted(found.length, "image")} skipped as unusable`);
        button.hidden = true;
        const back = make("button", { type: "button" }, "Undo");
        back.onclick = () => { undo(); for (const i of found) states[i] = 0; back.remove(); button.hidden = false; };
        button.after(back);
      };
    }
    const picksOf = (out) => { let sum = 0; for (let i = 0; i < count; i++) if (out[i] && data.rank[i] < cut) sum++; return sum; };
    marks.onchange = mark;
    form.onsubmit = async (event) => {
      event.preventDefault();
      if (!where.value.trim()) { marks.value = 0; mark(); return; }
      try {
        mask = new Uint8Array(await (await ask(`/api/mask?where=${encodeURIComponent(where.value)}`)).arrayBuffer());
        marks.value = choices.length - 1;
        context.fail({ message: "" });
        mark();
      } catch (error) {
        marks.value = 0; // what an earlier condition highlighted is not what this one asks for
        mark();
        context.fail(error);
      }
    };
    function moveTo(value, from) {
      cut = Math.max(1, Math.min(ranked, Math.round(value) || 1));
      context.memory.cut = cut;
      if (from !== "slider") slider.value = toSlider(cut);
      if (from !== "number") number.value = cut;
      slider.setAttribute("aria-valuetext", `${whole(cut)} ranks`);
      view.setCut(cut);
      reached.textContent = figures(context.state.rungs, cut);
      if (marked) tellMarked();
      if (inside) tellKept();
    }
    slider.oninput = () => moveTo(fromSlider(Number(slider.value)), "slider");
    number.onchange = () => moveTo(Number(number.value), "number");

    let asking = null, timer = 0;
    function tellOne(i, isKept) {
      const item = itemOf(i);
      const parts = [data.rank[i] === NONE ? "not ranked" : `rank ${whole(data.rank[i] + 1)}`, ...(data.stands[i] ? [`stands for ${whole(data.stands[i])}`] : []), WORDS[STATES[states[i]]]];
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
      const sums = { picks: 0, labelled: 0, out: 0, kept: 0, skipped: 0, arrived: 0, near: 0 }, values = { sharpness: [], brightness: [] };
      for (const i of inside) {
        if (data.rank[i] < cut) sums.picks++;
        if (states[i] === 4) sums.labelled++;
        if (states[i] === 5) sums.out++;
        if (states[i] === 1) sums.kept++;
        if (states[i] === 2 || states[i] === 3) sums.skipped++;
        if (data.arrived[i]) sums.arrived++;
        if (data.near[i]) sums.near++;
        values.sharpness.push(data.sharpness[i]); values.brightness.push(data.brightness[i]);
      }
      const part = (value) => `${whole(value)} (${inside.length ? ((100 * value) / inside.length).toFixed(1) : 0} %)`;
      const middle = (name) => { const sorted = values[name].sort((a, b) => a - b), text = (v) => told.levels[name][v].toLocaleString("en-US", { maximumSignificantDigits: 3 }); return sorted.length ? `${text(sorted[sorted.length >> 1])} (pool ${text(128)})` : ""; };
      const order = [...inside].sort((a, b) => data.rank[a] - data.rank[b]).slice(0, 30);
      const clear = make("button", { type: "button" }, "Clear"), skipInside = make("button", { type: "button" });
      offer(skipInside, inside);
      clear.onclick = () => view.clear();
      panel.replaceChildren(make("h3", {}, "Inside"), facts([["images", whole(inside.length)], ["up to the slider", part(sums.picks)], ["labelled", part(sums.labelled)], ["handed out", part(sums.out)], ["kept", part(sums.kept)], ["skipped", part(sums.skipped)],
        ["new", part(sums.arrived)], ["near-duplicates", part(sums.near)], ["median sharpness", middle("sharpness")], ["median brightness", middle("brightness")]]),
      strip(order.map(itemOf), (item) => context.go("picks", { ...item, state: "open" })), skipInside, clear);
    }
    moveTo(cut);
    tellKept();
    if (context.target) { const at = find(data.id, context.target.id); if (at >= 0) { kept_ = at; view.show(at); tellOne(at, true); } }
    stop = onDecisions(() => {});
    room.reload = async () => { states = new Uint8Array(await (await ask("/api/states")).arrayBuffer()); if (choices[marks.value][1]) mark(); };
    room.view = view;
  }
  return {
    refreshed(isNew) { if (isNew) begin().catch((error) => context.fail(error)); else room.reload?.(); },
    leave() { isLeft = true; stop(); room.reload = null; },
  };
}
// What labelling the first ranks gives, by the ladder; between two rungs figures lie on a straight line.
function figures(rungs, cut) {
  if (!rungs.length || cut < rungs[0].count) return "";
  const high = Math.max(1, rungs.findIndex((rung) => rung.count >= cut)), b = rungs[high], a = rungs[high - 1];
  const at = (name) => a[name] + ((b[name] - a[name]) * Math.min(1, Math.max(0, cut - a.count) / Math.max(1, b.count - a.count)));
  const share = (value) => `${Math.round((100 * value) / (rungs[rungs.length - 1].coverage || 1))} %`;
  return `Labelling these gives ${share(at("coverage"))} of what labelling everything would; as many at random give ${share(at("random_coverage_mean"))}, and ${whole(at("equivalent_random_count"))} random ones as much.`;
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
