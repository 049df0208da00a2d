// What the report and the app share: elements of a page, numbers as text, and what a ladder says of a cut.
// Text always goes in as text, never as HTML.
export const $ = (id) => document.getElementById(id);
const NUMBERS = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
export const whole = (value) => NUMBERS.format(Math.round(value));
export const counted = (value, one, more = `${one}s`) => `${whole(value)} ${value === 1 ? one : more}`;
// A measure: three digits, and never as a power of ten.
export const figure = (value) => (Math.abs(value) >= 100 ? whole(value) : Number(value.toPrecision(3)).toString());
// A share in whole per cents; less than all is never shown as all.
export const share = (value) => `${Math.min(Math.round(100 * value), value >= 1 ? 100 : 99)} %`;
export const shortName = (name) => name.split(/[/#]/).pop() || name;

export function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined) continue;
    if (name in node && name !== "list" && name !== "style") node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}
// Said and not shown: what a picture is.
export const unseen = (text) => make("span", { className: "unseen" }, text);
export function facts(pairs, attributes = {}) {
  const nodes = pairs.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]);
  return make("dl", { className: "facts", ...attributes }, ...nodes);
}
export function table(heads, rows, text = []) {
  const cells = (tag, row) =>
    row.map((value, at) => make(tag, { className: text.includes(at) ? "text" : "" }, value ?? ""));
  const body = make("tbody", {}, ...rows.map((row) => make("tr", {}, ...cells("td", row))));
  return make(
    "div",
    { className: "scrolls", tabIndex: 0 },
    make("table", {}, make("thead", {}, make("tr", {}, ...cells("th", heads))), body),
  );
}

// The middle of a measure among some images, beside that of the pool; `codes` are places among its `levels`.
export function middleOf(levels, codes, rows) {
  if (!rows.length) return "";
  const counts = new Uint32Array(256);
  for (const i of rows) counts[codes[i]]++;
  let place = 0;
  for (let seen = counts[0]; seen * 2 < rows.length; seen += counts[place]) place++;
  return `${figure(levels[place])} (pool ${figure(levels[127])})`;
}

// The ladder of `ranked` images, one rung for each number of them; between two rungs figures lie on a straight line.
export function ladderOf(all, ranked) {
  const rungs = all.filter((rung, at) => at === all.length - 1 || rung.count !== all[at + 1].count);
  const everything = rungs.length ? rungs[rungs.length - 1].coverage : 0;
  function at(cut, name) {
    if (!rungs.length) return 0;
    const high = rungs.findIndex((rung) => rung.count >= cut);
    if (high <= 0) return rungs[high < 0 ? rungs.length - 1 : 0][name];
    const a = rungs[high - 1], b = rungs[high];
    return a[name] + ((b[name] - a[name]) * (cut - a.count)) / (b.count - a.count);
  }
  return {
    rungs,
    everything,
    at,
    least: rungs.length ? rungs[0].count : 1,
    // Coverage as a share of what labelling everything would give: the one scale of the pages.
    reached: (cut, name = "coverage") => at(cut, name) / (everything || 1),
    percentOf(cut) {
      const value = (100 * cut) / ranked;
      return value >= 9.95 ? value.toFixed(0) : Number(value.toPrecision(2)).toString();
    },
    // What each further 5 % of the pool adds to the first `cut` images.
    steps(cut, count = 4) {
      const found = [], step = Math.max(1, Math.round(ranked / 20));
      for (let from = Math.max(cut, this.least); found.length < count && from < ranked; ) {
        const to = Math.min(ranked, from + step);
        found.push({ more: to - from, to, reached: this.reached(to), gain: this.reached(to) - this.reached(from) });
        from = to;
      }
      return found;
    },
    sentence(cut, labelled) {
      const first = Math.max(cut, this.least), random = Math.round(at(first, "equivalent_random_count"));
      if (everything <= 0)
        return `${whole(cut)} are picked; the pool is too small or too much alike to say what they cover.`;
      const beside = labelled ? ` more, beside ${whole(labelled)} that ${labelled === 1 ? "is" : "are"} there,` : "";
      return (
        `${cut < first ? `Measured from ${whole(first)} on: ` : ""}${counted(first, "label")}${beside} ` +
        `cover${first === 1 ? "s" : ""} as much as ${counted(random, "random one")}: ${share(this.reached(first))} of ` +
        "what labelling everything would."
      );
    },
    // The same of the next 5 % of the pool.
    next(cut) {
      const [step] = this.steps(cut, 1);
      if (everything <= 0) return "";
      const said = step ? `${whole(step.more)} more: ${share(step.reached)}, which is ${points(step.gain)} more.` : "";
      const first = Math.max(cut, this.least), ours = at(first, "coverage");
      if (!step || ours > at(first, "random_coverage_high")) return said || "Everything is picked.";
      if (ours < at(first, "random_coverage_low"))
        return `${said} Here images at random cover more than these: take random ones.`;
      return `${said} Here choosing does not help: images at random cover as much.`;
    },
  };
}
export const points = (gain) => `${(100 * gain).toFixed(1)} points`;
export function stepsTable(ladder, cut) {
  const rows = ladder.steps(cut).map((step) => [
    whole(step.to), `${ladder.percentOf(step.to)} %`, share(step.reached), `+${(100 * step.gain).toFixed(1)}`,
  ]);
  return table(["images to label", "of the pool", "of what all labels would give", "points more"], rows);
}
