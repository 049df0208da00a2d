// The curve of what the first images of the ranking give, above the slider, and where a number is on both.
import { told } from "./page_data.js";
import { $, ladderOf } from "./shared.js";

export const ladder = ladderOf(told.rungs, told.ranked), least = ladder.least, most = told.ranked;
const { rungs, at } = ladder;
const STEPS = 1000;
export const toSlider = (value) => (most <= least ? STEPS : (STEPS * Math.log(value / least)) / Math.log(most / least));
export const fromSlider = (value) => Math.round(least * (most / least) ** (value / STEPS));

// ---- the curve -----------------------------------------------------------------------------------------------------
const SVG = "http://www.w3.org/2000/svg";
function svg(tag, attributes, text) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text) node.textContent = text;
  return node;
}
let chartX = () => 0,
  chartY = () => 0;
export function drawChart(cut) {
  const box = $("curve"),
    width = box.clientWidth,
    height = 150,
    left = 44,
    right = 12,
    top = 12,
    bottom = 26;
  const everything = rungs[rungs.length - 1].coverage || 1,
    floor = Math.max(0, Math.floor((10 * rungs[0].random_coverage_low) / everything) / 10);
  chartX = (value) => left + ((width - left - right) * toSlider(Math.max(value, least))) / STEPS;
  chartY = (value) =>
    top + (height - top - bottom) * (1 - (Math.min(1, value / everything) - floor) / Math.max(0.05, 1 - floor));
  const line = (name) =>
    rungs
      .map((rung, k) => `${k ? "L" : "M"}${chartX(rung.count).toFixed(1)},${chartY(rung[name]).toFixed(1)}`)
      .join("");
  const back = [...rungs]
    .reverse()
    .map((rung) => `L${chartX(rung.count).toFixed(1)},${chartY(rung.random_coverage_low).toFixed(1)}`)
    .join("");
  const picture = svg("svg", { width, height, role: "img", "aria-label": told.chart });
  for (let tenth = 10; tenth >= Math.round(floor * 10); tenth -= floor < 0.45 ? 2 : 1) {
    const y = chartY((tenth / 10) * everything);
    picture.append(svg("line", { x1: left, x2: width - right, y1: y, y2: y, class: "rule" }));
    picture.append(svg("text", { x: left - 6, y: y + 4, "text-anchor": "end" }, `${tenth * 10} %`));
  }
  for (const percent of [1, 2, 5, 10, 20, 50, 100]) {
    const value = Math.ceil((most * percent) / 100);
    if (value < least || (width < 500 && [2, 5, 50].includes(percent))) continue;
    picture.append(
      svg(
        "text",
        {
          x: chartX(value),
          y: height - 8,
          "text-anchor": percent === 100 ? "end" : percent === 1 ? "start" : "middle",
        },
        `${percent} %`,
      ),
    );
  }
  picture.append(svg("path", { d: line("random_coverage_high") + back + "Z", class: "band" }));
  picture.append(svg("path", { d: line("random_coverage_mean"), class: "random" }));
  picture.append(svg("path", { d: line("coverage"), class: "ours" }));
  if (told.picks)
    picture.append(
      svg("line", { x1: chartX(told.picks), x2: chartX(told.picks), y1: top, y2: height - bottom, class: "budget" }),
    );
  picture.append(
    svg("line", { id: "at", y1: top, y2: height - bottom, class: "at" }),
    svg("circle", { id: "at-ours", r: 5, class: "dot-ours" }),
    svg("circle", { id: "at-random", r: 4, class: "dot-random" }),
  );
  box.replaceChildren(picture);
  moveChart(cut);
}
export function moveChart(cut) {
  const x = chartX(cut),
    line = document.getElementById("at");
  if (!line) return;
  line.setAttribute("x1", x);
  line.setAttribute("x2", x);
  for (const [id, name] of [
    ["at-ours", "coverage"],
    ["at-random", "random_coverage_mean"],
  ]) {
    $(id).setAttribute("cx", x);
    $(id).setAttribute("cy", chartY(at(Math.max(cut, least), name)));
  }
}
