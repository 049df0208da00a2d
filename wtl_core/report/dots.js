// Points that are lit up to a rank: one WebGL draw call, the rank an attribute and the cut a uniform, so that moving the
// cut sends nothing to the card. Without a card a 2-D canvas draws the same, pixel by pixel.
//
// createDots(data, webgl, onReplaced) returns { canvas, isCard, draw(place, cut, size, colours), changed(name) }.
//   data        columns x, y, rank and mark, as map.js has them; `changed` says that rank or mark is another one now
//   webgl       as in map.js    onReplaced  the card was lost, and another canvas stands in its place
//   place       what is shown: the data's middle x and y, pixels of one side of the data (unit), width, height, ratio
const IMITATED = /swiftshader|llvmpipe|softpipe|software|basic render/i;
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

export function createDots(data, webgl, onReplaced) {
  const count = data.x.length;
  let canvas = document.createElement("canvas"), flat = null, layers = null, drawn = "";
  let card = webgl === false ? null : openCard(canvas, data, webgl === "always");
  function goWithoutCard() { // a canvas that had a card's context has no other
    const former = canvas;
    card = null;
    former.replaceWith((canvas = document.createElement("canvas")));
    flat = canvas.getContext("2d");
  }
  if (card) canvas.addEventListener("webglcontextlost", () => { goWithoutCard(); onReplaced(); });
  else goWithoutCard();

  // What does not depend on the cut is drawn once for each view: all dots as plain or marked ones (`still`), and for
  // each pixel the least rank whose lit dot covers it. A frame is then one pass over the pixels, whatever the number of
  // points: a hundred thousand rectangles of a canvas would take a hundred times as long.
  function drawLayers({ x, y, unit, width, height, ratio }, size, { plain, lit, marked }) {
    const across = canvas.width, down = canvas.height, { rank, mark } = data;
    const still = new Uint32Array(across * down), leastRank = new Uint32Array(across * down).fill(0xffffffff);
    const scale = (unit * ratio) / 65535, left = (width / 2 - x * unit) * ratio, top = (height / 2 + y * unit) * ratio;
    function paintDots(side, isWanted, paint) {
      const half = side >> 1, isRound = side > 3;
      for (let i = 0; i < count; i++) {
        const px = Math.round(left + data.x[i] * scale) - half, py = Math.round(top - data.y[i] * scale) - half;
        if (px < 0 || py < 0 || px + side > across || py + side > down || !isWanted(i)) continue;
        for (let dy = 0; dy < side; dy++) {
          const trim = isRound && (dy === 0 || dy === side - 1) ? 1 : 0, row = (py + dy) * across + px;
          for (let at = row + trim; at < row + side - trim; at++) paint(at, i);
        }
      }
    }
    const side = Math.max(1, Math.round(size)), large = Math.max(1, Math.round(size * 1.8));
    const alpha = Math.round(plain[3] * 255), rgb = packed(plain) & 0xffffff, full = packed(marked);
    const addUp = (at) => { still[at] = ((Math.min(255, (still[at] >>> 24) + alpha) << 24) | rgb) >>> 0; };
    paintDots(side, (i) => !mark[i], addUp);
    paintDots(large, (i) => !mark[i], (at, i) => { if (rank[i] < leastRank[at]) leastRank[at] = rank[i]; });
    paintDots(large, (i) => mark[i], (at) => { still[at] = full; leastRank[at] = 0xffffffff; });
    return { still, leastRank, lit: packed(lit), sheet: flat.createImageData(across, down) };
  }
  function drawFlat(cut) {
    const { still, leastRank, lit, sheet } = layers, pixels = new Uint32Array(sheet.data.buffer);
    for (let at = 0; at < pixels.length; at++) pixels[at] = leastRank[at] < cut ? lit : still[at];
    flat.putImageData(sheet, 0, 0);
  }
  return {
    get canvas() { return canvas; },
    get isCard() { return Boolean(card); },
    draw(place, cut, size, colours) {
      if (card) return drawByCard(card, place, cut, size, colours, count);
      const key = JSON.stringify([place, size, colours, canvas.width, canvas.height]);
      if (key !== drawn || !layers) layers = drawLayers(place, size, colours);
      drawn = key;
      drawFlat(cut);
    },
    changed(name) {
      layers = null;
      if (card) card.upload(name, name === "rank" ? Float32Array.from(data.rank) : data[name]);
    },
  };
}

const packed = (colour) => {
  const [red, green, blue, alpha] = colour.map((value) => Math.round(value * 255));
  return ((alpha << 24) | (blue << 16) | (green << 8) | red) >>> 0;
};
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

function drawByCard({ gl, uniform }, { x, y, unit, width, height }, cut, size, colours, count) {
  gl.viewport(0, 0, gl.drawingBufferWidth, gl.drawingBufferHeight);
  gl.clearColor(0, 0, 0, 0);
  gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
  gl.uniform2f(uniform.middle, x, y);
  gl.uniform2f(uniform.scale, (2 * unit) / width, (2 * unit) / height);
  gl.uniform1f(uniform.cut, cut);
  gl.uniform1f(uniform.size, size);
  for (const name of ["plain", "lit", "marked"]) gl.uniform4fv(uniform[name], colours[name]);
  gl.drawArrays(gl.POINTS, 0, count);
}
