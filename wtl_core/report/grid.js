// A grid of any length: only the cells in sight, and a row on either side, are in the page.
//
// createGrid(box, { label, width, extra, cell, onChoose, onClick }) fills `box`.
//   width   least width of a cell in pixels    extra   height below the picture, whose sides are 4 to 3
//   cell(place)  the node of a place           onChoose(place)  it is the one now, by a click or a key
//   onClick(place)  it was clicked
export function createGrid(box, { label, width, extra, cell, onChoose, onClick = () => {} }) {
  const inner = document.createElement("div"), rows = document.createElement("div"), GAP = 8;
  inner.className = "grid-inner";
  rows.className = "grid-rows";
  box.classList.add("grid");
  box.tabIndex = 0;
  box.setAttribute("role", "listbox");
  box.setAttribute("aria-label", label);
  inner.append(rows);
  box.replaceChildren(inner);
  // Sizes are read when they change alone: to read them at each frame would lay the page out twice.
  let total = 0, columns = 1, height = 100, inSight = 0, top = 0, printed = 0, chosen = -1, shown = "";
  function measure() {
    const room = box.clientWidth - 2 * GAP;
    inSight = box.clientHeight;
    columns = Math.max(1, Math.floor((room + GAP) / (width + GAP)));
    height = Math.round(((room - GAP * (columns - 1)) / columns) * 0.75) + extra + GAP;
    rows.style.gridTemplateColumns = `repeat(${columns}, minmax(0, 1fr))`;
    rows.style.gridAutoRows = `${height - GAP}px`;
    shown = "";
    resize();
  }
  function resize() {
    inner.style.height = `${Math.ceil(total / columns) * height}px`;
    draw();
  }
  function draw() {
    const first = printed ? 0 : Math.max(0, Math.floor(top / height) - 1);
    const lines = printed || Math.ceil(inSight / height) + 2, from = first * columns;
    const to = Math.min(total, from + lines * columns), key = `${from} ${to}`;
    if (key === shown) return;
    shown = key;
    rows.style.transform = `translateY(${first * height}px)`;
    const nodes = [];
    for (let place = from; place < to; place++) {
      const node = cell(place);
      node.dataset.place = place;
      node.id = `cell-${place}`;
      node.setAttribute("role", "option");
      node.setAttribute("aria-selected", place === chosen);
      nodes.push(node);
    }
    rows.replaceChildren(...nodes);
    if (chosen >= from && chosen < to) box.setAttribute("aria-activedescendant", `cell-${chosen}`);
    else box.removeAttribute("aria-activedescendant");
  }
  function scrollTo(value) { box.scrollTop = value; top = box.scrollTop; }
  function choose(place, { quiet = false } = {}) {
    if (!total) return;
    chosen = Math.max(0, Math.min(total - 1, place));
    const line = Math.floor(chosen / columns) * height;
    if (line < top) scrollTo(line);
    if (line + height > top + inSight) scrollTo(line + height - inSight + GAP);
    shown = "";
    draw();
    if (!quiet) onChoose(chosen);
  }
  const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1], PageUp: [0, -4],
    PageDown: [0, 4], Home: [-Infinity, 0], End: [Infinity, 0] };
  box.addEventListener("scroll", () => { top = box.scrollTop; draw(); });
  box.addEventListener("click", (event) => {
    const node = event.target.closest("[data-place]");
    if (!node) return;
    const place = Number(node.dataset.place);
    choose(place);
    onClick(place);
  });
  new ResizeObserver(measure).observe(box);
  return {
    setTotal(value) {
      total = value;
      chosen = Math.min(chosen, total - 1);
      if (inSight) resize(); else measure();
    },
    redraw() { shown = ""; draw(); },
    print(lines) { printed = lines; measure(); }, // so many rows and no more; 0 ends it
    choose,
    get chosen() { return chosen; },
    // Whether the key moved the choice.
    onKey(event) {
      const step = STEPS[event.key];
      if (!step || event.shiftKey) return false;
      choose(chosen + step[0] + step[1] * columns);
      return true;
    },
  };
}
