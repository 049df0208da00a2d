// A map of points that are lit up to a rank, with zoom, pan, pictures, a lasso and keys. dots.js draws the points; this
// module knows no page.
//
// createMap(box, {x, y, rank, mark}, options) fills `box` and returns its handle.
//   x, y   Uint16Array, 0 to 65535; y grows upwards      rank  Uint32Array; points with rank < cut are lit
//   mark   Uint8Array, 1 for points in the second colour
//   options.picture(i)         what to draw for point i: an image or canvas, or null while there is none
//   options.webgl              false never takes WebGL, "always" in any case; by default where a card does the work
//   options.onHover(i, how)    the point under the pointer or the keyboard (`how`), -1 for none
//   options.onSelect(points)   Uint32Array of the points inside a lasso or a view, null when it is cleared
//   options.onOpen(i)          a point was clicked, or Enter was pressed on it
// Keys: arrows go from point to point, with Shift they move the map; + - 0 zoom; l lasso; a all in view; Escape clears.
import { createDots } from "./dots.js";

const CELLS = 256, MOST_ZOOM = 400, TILE = 40, NEAR = 12;

export function createMap(box, data, options) {
  const count = data.x.length;
  const over = document.createElement("canvas"), dots = createDots(data, options.webgl, () => resize());
  over.tabIndex = 0;
  over.setAttribute("role", "application");
  over.setAttribute("aria-label", options.label || "Map of images");
  box.replaceChildren(dots.canvas, over);
  const pen = over.getContext("2d");
  const grid = buildGrid(data.x, data.y);
  const whole = { x: 0.5, y: 0.5, zoom: 1 }, view = { ...whole }; // `whole` shows all points
  const tiles = new Map(); // the point whose image is drawn in each field of the grid
  let width = 1, height = 1, ratio = 1, cut = 0, hovered = -1, lasso = null, isLasso = false, waiting = 0;
  let selected = null, colours = readColours(box);

  const unit = () => Math.min(width, height) * view.zoom; // pixels of one side of the data
  const X = (i) => data.x[i] / 65535, Y = (i) => data.y[i] / 65535;
  const onScreen = (x, y) => [width / 2 + (x - view.x) * unit(), height / 2 - (y - view.y) * unit()];
  const toPixel = (i) => onScreen(X(i), Y(i));
  const toData = (px, py) => [view.x + (px - width / 2) / unit(), view.y - (py - height / 2) / unit()];

  function draw() {
    waiting = 0;
    const least = count > 20000 ? 1.6 : count > 3000 ? 2.6 : count > 600 ? 4 : 6; // pixels across a dot
    const size = Math.max(1.5, Math.min(9, least * Math.sqrt(view.zoom / whole.zoom))) * ratio;
    dots.draw({ ...view, unit: unit(), width, height, ratio }, cut, size, colours);
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    drawPictures();
    if (lasso && lasso.length > 1) outline(lasso);
    if (hovered >= 0) ring(hovered);
  }
  function redraw() { if (!waiting) waiting = requestAnimationFrame(draw); }

  // Images take the place of dots where there is room for them, the first ranks first: one for each field of a grid
  // that moves with the map.
  function drawPictures() {
    tiles.clear();
    if (view.zoom < 3 * whole.zoom || !options.picture) return;
    const inside = inView();
    if (inside.length > 8000) return;
    for (const i of [...inside].sort((a, b) => data.rank[a] - data.rank[b])) {
      const key = tileOf(X(i), Y(i));
      if (tiles.has(key)) continue;
      const picture = options.picture(i);
      if (!picture) continue;
      tiles.set(key, i);
      const [px, py] = middleOf(key), [w, h] = fitted(picture, TILE - 6);
      pen.drawImage(picture, px - w / 2, py - h / 2, w, h);
      if (data.rank[i] < cut || data.mark[i]) {
        pen.lineWidth = 2;
        pen.strokeStyle = css(data.mark[i] ? colours.marked : colours.lit);
        pen.strokeRect(px - w / 2, py - h / 2, w, h);
      }
    }
  }
  const tileOf = (x, y) => Math.floor((x * unit()) / TILE) * 65536 + Math.floor((y * unit()) / TILE);
  const middleOf = (key) => {
    return onScreen(((Math.floor(key / 65536) + 0.5) * TILE) / unit(), (((key % 65536) + 0.5) * TILE) / unit());
  };
  function ring(i) {
    const [px, py] = toPixel(i), tile = tileOf(X(i), Y(i));
    if (tiles.get(tile) === i) {
      const [x, y] = middleOf(tile);
      pen.lineWidth = 3;
      pen.strokeStyle = css(colours.ink);
      pen.strokeRect(x - TILE / 2 + 1, y - TILE / 2 + 1, TILE - 2, TILE - 2);
      return;
    }
    for (const [line, style] of [[5, css(colours.paper)], [2.5, css(colours.ink)]]) {
      pen.lineWidth = line;
      pen.strokeStyle = style;
      pen.beginPath();
      pen.arc(px, py, 9, 0, 2 * Math.PI);
      pen.stroke();
    }
  }
  function outline(points) {
    pen.beginPath();
    for (const [x, y] of points) pen.lineTo(...onScreen(x, y));
    pen.closePath();
    pen.fillStyle = css([...colours.marked.slice(0, 3), 0.12]);
    pen.fill();
    pen.lineWidth = 2;
    pen.strokeStyle = css(colours.marked);
    pen.stroke();
  }

  function inView() {
    const [left, top] = toData(0, 0), [right, bottom] = toData(width, height);
    return within(grid, data, left, bottom, right, top);
  }
  function nearest(px, py) {
    const reach = NEAR / unit(), [x, y] = toData(px, py), tile = tiles.get(tileOf(x, y));
    if (tile !== undefined) return tile;
    let best = -1, least = reach * reach;
    for (const i of within(grid, data, x - reach, y - reach, x + reach, y + reach)) {
      const far = (X(i) - x) ** 2 + (Y(i) - y) ** 2;
      if (far < least || (far === least && data.rank[i] < data.rank[best])) { best = i; least = far; }
    }
    return best;
  }
  function towards(from, dx, dy) {
    const reach = 400 / unit(), x = X(from), y = Y(from);
    let best = -1, least = Infinity;
    for (const i of within(grid, data, x - reach, y - reach, x + reach, y + reach)) {
      const ax = X(i) - x, ay = Y(i) - y, along = ax * dx + ay * dy;
      const cost = ax * ax + ay * ay + 3 * (ax * dy - ay * dx) ** 2;
      if (along > 4 / unit() && cost < least) { best = i; least = cost; }
    }
    return best;
  }
  function hover(i, how) {
    if (i === hovered) return;
    hovered = i;
    options.onHover && options.onHover(i, how);
    redraw();
  }
  function select(points) {
    selected = points;
    options.onSelect && options.onSelect(points);
    redraw();
  }
  function zoomBy(factor, px = width / 2, py = height / 2) {
    const [x, y] = toData(px, py);
    view.zoom = Math.max(whole.zoom / 1.5, Math.min(MOST_ZOOM, view.zoom * factor));
    const [nx, ny] = toData(px, py);
    view.x += x - nx; view.y += y - ny;
    redraw();
  }
  function centre(i) { view.x = X(i); view.y = Y(i); redraw(); }
  function reset() { Object.assign(view, whole); redraw(); }
  function finishLasso() {
    const shape = lasso;
    if (!shape || shape.length < 3) { lasso = null; return; }
    const xs = shape.map((p) => p[0]), ys = shape.map((p) => p[1]);
    const box = [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)];
    select(within(grid, data, ...box).filter((i) => isInside(shape, X(i), Y(i))));
  }
  function clear() { lasso = null; select(null); }

  const held = new Map();
  let moved = 0, pinch = 0;
  const at = (event) => {
    const { left, top } = over.getBoundingClientRect();
    return [event.clientX - left, event.clientY - top];
  };
  over.addEventListener("pointerdown", (event) => {
    over.focus({ preventScroll: true });
    held.set(event.pointerId, at(event));
    over.setPointerCapture(event.pointerId);
    moved = 0;
    if (held.size === 1 && (isLasso || event.shiftKey)) lasso = [toData(...at(event))];
  });
  over.addEventListener("pointermove", (event) => {
    const now = at(event), before = held.get(event.pointerId);
    if (!before) return hover(nearest(...now), "pointer");
    held.set(event.pointerId, now);
    moved += Math.hypot(now[0] - before[0], now[1] - before[1]);
    if (held.size === 2) {
      const [a, b] = [...held.values()], apart = Math.hypot(a[0] - b[0], a[1] - b[1]);
      if (pinch) zoomBy(apart / pinch, (a[0] + b[0]) / 2, (a[1] + b[1]) / 2);
      pinch = apart;
    } else if (lasso && (isLasso || event.shiftKey)) {
      lasso.push(toData(...now));
    } else {
      view.x -= (now[0] - before[0]) / unit(); view.y += (now[1] - before[1]) / unit();
    }
    redraw();
  });
  const release = (event) => {
    if (!held.delete(event.pointerId)) return;
    pinch = 0;
    if (event.type === "pointercancel") return;
    if (moved > 4 && lasso && (isLasso || event.shiftKey)) finishLasso();
    else if (moved <= 4) {
      if (!selected) lasso = null;
      const i = nearest(...at(event));
      hover(i, "pointer");
      if (i >= 0 && options.onOpen) options.onOpen(i);
    }
    redraw();
  };
  over.addEventListener("pointerup", release);
  over.addEventListener("pointercancel", release);
  over.addEventListener("pointerleave", () => held.size || hover(-1, "pointer"));
  over.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && document.activeElement !== over) return; // the page scrolls on until the map is clicked
    event.preventDefault();
    zoomBy(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.002)), ...at(event));
  }, { passive: false });
  const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
  over.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const way = ARROWS[event.key];
    if (way && event.shiftKey) { view.x += (way[0] * 60) / unit(); view.y += (way[1] * 60) / unit(); redraw(); }
    else if (way) {
      const next = hovered < 0 ? nearestToMiddle() : towards(hovered, ...way);
      if (next >= 0) { hover(next, "key"); keepInView(next); }
    } else if (event.key === "+" || event.key === "=") zoomBy(1.5, ...(hovered >= 0 ? toPixel(hovered) : []));
    else if (event.key === "-") zoomBy(1 / 1.5);
    else if (event.key === "0") reset();
    else if (event.key === "l") setLasso(!isLasso);
    else if (event.key === "a") { lasso = null; select(inView()); }
    else if (event.key === "Enter" && hovered >= 0) options.onOpen && options.onOpen(hovered);
    else if (event.key === "Escape") { clear(); hover(-1, "key"); setLasso(false); }
    else return;
    event.preventDefault();
  });
  function nearestToMiddle() {
    const points = inView();
    let best = -1, least = Infinity;
    for (const i of points) if (data.rank[i] < least) { best = i; least = data.rank[i]; }
    return best >= 0 ? best : points.length ? points[0] : -1;
  }
  function keepInView(i) {
    const [px, py] = toPixel(i);
    if (px < 20 || py < 20 || px > width - 20 || py > height - 20) centre(i);
  }
  function setLasso(is) {
    isLasso = is;
    over.style.cursor = is ? "crosshair" : "default";
    options.onMode && options.onMode(is);
  }
  function resize() {
    const r = box.getBoundingClientRect();
    width = Math.max(1, r.width); height = Math.max(1, r.height); ratio = Math.min(2, devicePixelRatio || 1);
    for (const canvas of [dots.canvas, over]) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    const isWhole = view.zoom === whole.zoom && view.x === whole.x && view.y === whole.y;
    whole.zoom = Math.min(width / extent.width, height / extent.height) / Math.min(width, height) * 0.94;
    if (isWhole) view.zoom = whole.zoom;
    draw();
  }
  const extent = extentOf(data);
  Object.assign(whole, { x: extent.x, y: extent.y });
  Object.assign(view, whole);
  new ResizeObserver(resize).observe(box);
  resize();
  return {
    get isCard() { return dots.isCard; },
    setCut(value) { cut = value; redraw(); },
    setRanks(ranks) { data.rank = ranks; dots.changed("rank"); redraw(); },
    setMarks(marks) { data.mark = marks; dots.changed("mark"); redraw(); },
    setLasso, zoomBy, reset, clear, redraw,
    selectView() { lasso = null; select(inView()); },
    show(i) { view.zoom = Math.max(view.zoom, 12); centre(i); hover(i, "show"); },
    pixelOf: toPixel,
    recolour() { colours = readColours(box); redraw(); },
  };
}

function css(colour) { return `rgba(${colour.map((v, at) => (at < 3 ? Math.round(v * 255) : v)).join()})`; }

// Colours come from the page's style: --map-plain, --map-lit, --map-marked, --map-ink, --map-paper.
function readColours(box) {
  const style = getComputedStyle(box), out = {};
  for (const name of ["plain", "lit", "marked", "ink", "paper"]) {
    const found = /^#(..)(..)(..)(..)?$/.exec(style.getPropertyValue(`--map-${name}`).trim()) || [0, "88", "88", "88"];
    out[name] = [1, 2, 3, 4].map((at) => (found[at] === undefined ? 1 : parseInt(found[at], 16) / 255));
  }
  return out;
}

function fitted(picture, side) {
  const w = picture.naturalWidth || picture.width, h = picture.naturalHeight || picture.height;
  const scale = side / Math.max(w, h);
  return [w * scale, h * scale];
}

// The middle and the size of what holds all points, in data units.
function extentOf({ x, y }) {
  let [left, bottom, right, top] = [65535, 65535, 0, 0];
  for (let i = 0; i < x.length; i++) {
    left = Math.min(left, x[i]); right = Math.max(right, x[i]);
    bottom = Math.min(bottom, y[i]); top = Math.max(top, y[i]);
  }
  const size = (low, high) => Math.max(0.02, (high - low) / 65535);
  const [x0, y0] = [(left + right) / 131070, (bottom + top) / 131070];
  return { x: x0, y: y0, width: size(left, right), height: size(bottom, top) };
}

// Points by cell of a square grid: `starts` (cells + 1) into `points`.
function buildGrid(x, y) {
  const starts = new Uint32Array(CELLS * CELLS + 1), cell = (i) => (y[i] >> 8) * CELLS + (x[i] >> 8);
  for (let i = 0; i < x.length; i++) starts[cell(i) + 1]++;
  for (let c = 0; c < CELLS * CELLS; c++) starts[c + 1] += starts[c];
  const fill = starts.slice(), points = new Uint32Array(x.length);
  for (let i = 0; i < x.length; i++) points[fill[cell(i)]++] = i;
  return { starts, points };
}

// Points in a rectangle of data units, 0 to 1.
function within(grid, data, left, bottom, right, top) {
  const clamp = (v) => Math.max(0, Math.min(CELLS - 1, Math.floor(v * CELLS))), found = [];
  const bounds = [left, bottom, right, top].map((v) => v * 65535);
  for (let row = clamp(bottom); row <= clamp(top); row++) {
    const end = grid.starts[row * CELLS + clamp(right) + 1];
    for (let place = grid.starts[row * CELLS + clamp(left)]; place < end; place++) {
      const i = grid.points[place], px = data.x[i], py = data.y[i];
      if (px >= bounds[0] && px <= bounds[2] && py >= bounds[1] && py <= bounds[3]) found.push(i);
    }
  }
  return Uint32Array.from(found);
}

function isInside(shape, x, y) {
  let inside = false;
  for (let a = 0, b = shape.length - 1; a < shape.length; b = a++) {
    const [ax, ay] = shape[a], [bx, by] = shape[b];
    if (ay > y !== by > y && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) inside = !inside;
  }
  return inside;
}
