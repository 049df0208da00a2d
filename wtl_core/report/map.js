// A map of points that are lit up to a rank: one WebGL draw call, the rank an attribute and the cut a uniform, so that
// moving the cut sends nothing to the card. Without a card a 2-D canvas draws the same. This module knows no page.
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
const IMITATED = /swiftshader|llvmpipe|softpipe|software|basic render/i;
const CELLS = 256, MOST_ZOOM = 400, TILE = 40, NEAR = 12;

const VERTEX = `
attribute vec2 place; attribute float rank; attribute float mark;
uniform vec2 middle, scale; uniform float cut, size; uniform vec4 plain, lit, marked;
varying vec4 colour;
void main() {
  bool isLit = rank < cut, isMarked = mark > 0.5;
  colour = isMarked ? marked : isLit ? lit : plain;
  gl_Position = vec4((place - middle) * scale, isMarked ? -0.5 : isLit ? 0.0 : 0.5, 1.0);
  gl_PointSize = isLit || isMarked ? size * 1.8 : size;
}`;
const FRAGMENT = `
precision mediump float; varying vec4 colour;
void main() {
  if (distance(gl_PointCoord, vec2(0.5)) > 0.5) discard;
  gl_FragColor = vec4(colour.rgb * colour.a, colour.a);
}`;

export function createMap(box, data, options) {
  const count = data.x.length;
  let base = document.createElement("canvas");
  const over = document.createElement("canvas");
  over.tabIndex = 0;
  over.setAttribute("role", "application");
  over.setAttribute("aria-label", options.label || "Map of images");
  box.replaceChildren(base, over);
  const pen = over.getContext("2d");
  let card = options.webgl === false ? null : openCard(base, data, options.webgl === "always");
  let flat = null, layers = null; // of the view as it is; null once that changes
  const drawWithoutCard = () => { // a canvas that had a card's context has no other
    card = null;
    base.replaceWith((base = document.createElement("canvas")));
    flat = base.getContext("2d");
  };
  if (!card) drawWithoutCard();
  base.addEventListener("webglcontextlost", () => { drawWithoutCard(); resize(); });
  const grid = buildGrid(data.x, data.y);
  const whole = { x: 0.5, y: 0.5, zoom: 1 }, view = { ...whole }; // `whole` shows all points
  const tiles = new Map(); // the point whose image is drawn in each field of the grid
  let width = 1, height = 1, ratio = 1, cut = 0, hovered = -1, lasso = null, isLasso = false, waiting = 0;
  let selected = null, colours = readColours(box);

  const unit = () => Math.min(width, height) * view.zoom; // pixels of one side of the data
  const toPixel = (i) => [
    width / 2 + (data.x[i] / 65535 - view.x) * unit(), height / 2 - (data.y[i] / 65535 - view.y) * unit()];
  const toData = (px, py) => [view.x + (px - width / 2) / unit(), view.y - (py - height / 2) / unit()];

  function draw() {
    waiting = 0;
    const least = count > 20000 ? 1.6 : count > 3000 ? 2.6 : count > 600 ? 4 : 6; // pixels across a dot
    const size = Math.max(1.5, Math.min(9, least * Math.sqrt(view.zoom / whole.zoom))) * ratio;
    if (card) drawByCard(card, view, unit(), width, height, cut, size, colours, count);
    else {
      layers = layers || drawStill(size);
      drawFlat();
    }
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    drawPictures();
    if (lasso && lasso.length > 1) outline(lasso);
    if (hovered >= 0) ring(hovered);
  }
  function redraw() { if (!waiting) waiting = requestAnimationFrame(draw); }
  function afresh() { layers = null; redraw(); }

  // Without a card, what does not depend on the cut is drawn once for each view, pixel by pixel: all dots as plain or
  // marked ones (`still`), and for each pixel the least rank whose lit dot covers it. A frame is then one pass over the
  // pixels, whatever the number of points.
  function drawStill(size) {
    const across = base.width, down = base.height, { plain, marked } = colours;
    const still = new Uint32Array(across * down), leastRank = new Uint32Array(across * down).fill(0xffffffff);
    const scale = (unit() * ratio) / 65535;
    const left = (width / 2 - view.x * unit()) * ratio, top = (height / 2 + view.y * unit()) * ratio;
    function dots(side, isWanted, paint) {
      const half = side >> 1, isRound = side > 3;
      for (let i = 0; i < count; i++) {
        const px = Math.round(left + data.x[i] * scale) - half, py = Math.round(top - data.y[i] * scale) - half;
        if (!isWanted(i) || px < 0 || py < 0 || px + side > across || py + side > down) continue;
        for (let dy = 0; dy < side; dy++) {
          const trim = isRound && (dy === 0 || dy === side - 1) ? 1 : 0, row = (py + dy) * across + px;
          for (let at = row + trim; at < row + side - trim; at++) paint(at, i);
        }
      }
    }
    const side = Math.max(1, Math.round(size)), large = Math.max(1, Math.round(size * 1.8));
    const alpha = Math.round(plain[3] * 255), rgb = packed(plain) & 0xffffff, full = packed(marked), { rank, mark } = data;
    dots(side, (i) => !mark[i], (at) => { still[at] = ((Math.min(255, (still[at] >>> 24) + alpha) << 24) | rgb) >>> 0; });
    dots(large, (i) => !mark[i] && rank[i] < 0xffffffff, (at, i) => { if (rank[i] < leastRank[at]) leastRank[at] = rank[i]; });
    dots(large, (i) => mark[i], (at) => { still[at] = full; leastRank[at] = 0xffffffff; });
    return { still, leastRank, lit: packed(colours.lit), sheet: flat.createImageData(across, down) };
  }
  function drawFlat() {
    const { still, leastRank, lit, sheet } = layers, pixels = new Uint32Array(sheet.data.buffer);
    for (let at = 0; at < pixels.length; at++) pixels[at] = leastRank[at] < cut ? lit : still[at];
    flat.putImageData(sheet, 0, 0);
  }

  // Images take the place of dots where there is room for them, the first ranks first: one for each field of a grid
  // that moves with the map.
  function drawPictures() {
    tiles.clear();
    if (view.zoom < 3 * whole.zoom || !options.picture) return;
    const inside = inView();
    if (inside.length > 8000) return;
    for (const i of [...inside].sort((a, b) => data.rank[a] - data.rank[b])) {
      const key = tileOf(data.x[i] / 65535, data.y[i] / 65535);
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
    const x = ((Math.floor(key / 65536) + 0.5) * TILE) / unit(), y = (((key % 65536) + 0.5) * TILE) / unit();
    return [width / 2 + (x - view.x) * unit(), height / 2 - (y - view.y) * unit()];
  };
  function ring(i) {
    const [px, py] = toPixel(i), tile = tileOf(data.x[i] / 65535, data.y[i] / 65535);
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
    points.forEach(([x, y], at) => {
      const px = width / 2 + (x - view.x) * unit(), py = height / 2 - (y - view.y) * unit();
      at ? pen.lineTo(px, py) : pen.moveTo(px, py);
    });
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
      const far = (data.x[i] / 65535 - x) ** 2 + (data.y[i] / 65535 - y) ** 2;
      if (far < least || (far === least && data.rank[i] < data.rank[best])) { best = i; least = far; }
    }
    return best;
  }
  function towards(from, dx, dy) {
    const reach = 400 / unit(), x = data.x[from] / 65535, y = data.y[from] / 65535;
    let best = -1, least = Infinity;
    for (const i of within(grid, data, x - reach, y - reach, x + reach, y + reach)) {
      const ax = data.x[i] / 65535 - x, ay = data.y[i] / 65535 - y, along = ax * dx + ay * dy;
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
    afresh();
  }
  function centre(i) { view.x = data.x[i] / 65535; view.y = data.y[i] / 65535; afresh(); }
  function reset() { Object.assign(view, whole); afresh(); }
  function finishLasso() {
    const shape = lasso;
    if (!shape || shape.length < 3) { lasso = null; return; }
    const xs = shape.map((p) => p[0]), ys = shape.map((p) => p[1]);
    const box = [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)];
    select(within(grid, data, ...box).filter((i) => isInside(shape, data.x[i] / 65535, data.y[i] / 65535)));
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
      afresh();
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
    if (way && event.shiftKey) { view.x += (way[0] * 60) / unit(); view.y += (way[1] * 60) / unit(); afresh(); }
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
    for (const canvas of [base, over]) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    const isWhole = view.zoom === whole.zoom && view.x === whole.x && view.y === whole.y;
    whole.zoom = Math.min(width / extent.width, height / extent.height) / Math.min(width, height) * 0.94;
    if (isWhole) view.zoom = whole.zoom;
    layers = null;
    draw();
  }
  const extent = extentOf(data);
  Object.assign(whole, { x: extent.x, y: extent.y });
  Object.assign(view, whole);
  new ResizeObserver(resize).observe(box);
  resize();
  return {
    get isCard() { return Boolean(card); },
    setCut(value) { cut = value; redraw(); },
    setRanks(ranks) { data.rank = ranks; card && card.upload("rank", Float32Array.from(ranks)); afresh(); },
    setMarks(marks) { data.mark = marks; card && card.upload("mark", marks); afresh(); },
    setLasso, zoomBy, reset, clear, redraw,
    selectView() { lasso = null; select(inView()); },
    show(i) { view.zoom = Math.max(view.zoom, 12); centre(i); hover(i, "show"); },
    pixelOf: toPixel,
    recolour() { colours = readColours(box); afresh(); },
  };
}

const packed = (colour) => {
  const [red, green, blue, alpha] = colour.map((value) => Math.round(value * 255));
  return ((alpha << 24) | (blue << 16) | (green << 8) | red) >>> 0;
};
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

function rendererOf(gl) {
  const info = gl.getExtension("WEBGL_debug_renderer_info");
  return info ? String(gl.getParameter(info.UNMASKED_RENDERER_WEBGL)) : "";
}

// A card that is only imitated by the processor is slower than the canvas, and taken only if `isForced`.
function openCard(canvas, data, isForced) {
  const gl = canvas.getContext("webgl", { antialias: false, preserveDrawingBuffer: true });
  if (!gl || (!isForced && IMITATED.test(rendererOf(gl)))) return null;
  const program = gl.createProgram();
  for (const [kind, text] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, text);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS)) return null;
  gl.useProgram(program);
  gl.enable(gl.BLEND);
  gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
  gl.enable(gl.DEPTH_TEST);
  gl.depthFunc(gl.LEQUAL);
  const buffers = {};
  function upload(name, values, size = 1) {
    const place = gl.getAttribLocation(program, name);
    buffers[name] = buffers[name] || gl.createBuffer();
    gl.bindBuffer(gl.ARRAY_BUFFER, buffers[name]);
    gl.bufferData(gl.ARRAY_BUFFER, values, gl.STATIC_DRAW);
    gl.enableVertexAttribArray(place);
    const whole = values instanceof Uint16Array ? gl.UNSIGNED_SHORT : gl.UNSIGNED_BYTE;
    const type = values instanceof Float32Array ? gl.FLOAT : whole;
    gl.vertexAttribPointer(place, size, type, type === gl.UNSIGNED_SHORT, 0, 0);
  }
  const both = new Uint16Array(2 * data.x.length);
  for (let i = 0; i < data.x.length; i++) { both[2 * i] = data.x[i]; both[2 * i + 1] = data.y[i]; }
  upload("place", both, 2);
  upload("rank", Float32Array.from(data.rank));
  upload("mark", data.mark);
  const uniform = {};
  for (const name of ["middle", "scale", "cut", "size", "plain", "lit", "marked"]) {
    uniform[name] = gl.getUniformLocation(program, name);
  }
  return { gl, uniform, upload };
}

function drawByCard({ gl, uniform }, view, side, width, height, cut, size, colours, count) {
  gl.viewport(0, 0, gl.drawingBufferWidth, gl.drawingBufferHeight);
  gl.clearColor(0, 0, 0, 0);
  gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
  gl.uniform2f(uniform.middle, view.x, view.y);
  gl.uniform2f(uniform.scale, (2 * side) / width, (2 * side) / height);
  gl.uniform1f(uniform.cut, cut);
  gl.uniform1f(uniform.size, size);
  for (const name of ["plain", "lit", "marked"]) gl.uniform4fv(uniform[name], colours[name]);
  gl.drawArrays(gl.POINTS, 0, count);
}
