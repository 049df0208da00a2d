// A grid of any length: only the cells in sight, and a row on either side, are in the page.
//
// createGrid(box, { label, width, extra, cell, onChoose, onClick }) fills `box`.
//   width   least width of a cell in pixels    extra   height below the picture, whose sides are 4 to 3
//   cell(place)  the node of a place           onChoose(place)  it is the one now, by a click or a key
//   onClick(place)  it was clicked
export function createGrid(box, { label, width, extra, cell, onChoose, onClick = () => {} }) {
  const inner = document.createElement("div"), rows = document.createElement("div");
  inner.className = "grid-inner"; rows.className = "grid-rows";
  box.classList.add("grid"); box.tabIndex = 0;
  box.setAttribute("role", "listbox"); box.setAttribute("aria-label", label);
  inner.append(rows); box.replaceChildren(inner);
  let total = 0, columns = 1, height = 100, chosen = -1, shown = "";
  const GAP = 8;
  function measure() {
    const room = box.clientWidth - 2 * GAP;
    columns = Math.max(1, Math.floor((room + GAP) / (width + GAP)));
    height = Math.round(((room - GAP * (columns - 1)) / columns) * 0.75) + extra + GAP;
    inner.style.height = `${Math.ceil(total / columns) * height}px`;
    rows.style.gridTemplateColumns = `repeat(${columns}, minmax(0, 1fr))`;
    rows.style.gridAutoRows = `${height - GAP}px`;
    shown = "";
    draw();
  }
  function draw() {
    const first = Math.max(0, Math.floor(box.scrollTop / height) - 1), lines = Math.ceil(box.clientHeight / height) + 2;
    const from = first * columns, to = Math.min(total, from + lines * columns), key = `${from} ${to} ${columns} ${total}`;
    if (key === shown) return;
    shown = key;
    rows.style.transform = `translateY(${first * height}px)`;
    const nodes = [];
    for (let place = from; place < to; place++) {
      const node = cell(place);
      node.dataset.place = place; node.id = `cell-${place}`;
      node.setAttribute("role", "option"); node.setAttribute("aria-selected", place === chosen);
      nodes.push(node);
    }
    rows.replaceChildren(...nodes);
    if (chosen >= from && chosen < to) box.setAttribute("aria-activedescendant", `cell-${chosen}`);
    else box.removeAttribute("aria-activedescendant");
  }
  function choose(place, { quiet = false } = {}) {
    if (!total) return;
    chosen = Math.max(0, Math.min(total - 1, place));
    const top = Math.floor(chosen / columns) * height;
    if (top < box.scrollTop) box.scrollTop = top;
    if (top + height > box.scrollTop + box.clientHeight) box.scrollTop = top + height - box.clientHeight + GAP;
    shown = "";
    draw();
    if (!quiet) onChoose(chosen);
  }
  const steps = () => ({ ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns, PageUp: -4 * columns, PageDown: 4 * columns, Home: -Infinity, End: Infinity });
  box.addEventListener("scroll", draw);
  box.addEventListener("click", (event) => { const node = event.target.closest("[data-place]"); if (node) { const place = Number(node.dataset.place); choose(place); onClick(place); } });
  new ResizeObserver(measure).observe(box);
  return {
    setTotal(value) { total = value; if (chosen >= total) chosen = total - 1; measure(); },
    redraw() { shown = ""; draw(); },
    choose, get chosen() { return chosen; }, get total() { return total; },
    // Whether the key moved the choice.
    onKey(event) {
      const step = steps()[event.key];
      if (step === undefined || event.shiftKey) return false;
      choose(step === -Infinity ? 0 : step === Infinity ? total - 1 : chosen + step);
      return true;
    },
  };
}
