// What the report knows of every image: columns that the page brings with it, deflated, and small pictures.
import { $, make } from "./shared.js";

export const told = JSON.parse($("told").textContent);
export const NONE = 0xffffffff, LABELLED = 1, ARRIVED = 2, FILTERED = 4, REPEAT = 8, SKIPPED = 16, OUT = 32;

// Columns are little-endian, as every browser's machine is; deflated, in base64.
async function bytesOf(id) {
  const binary = atob($(id).textContent),
    raw = new Uint8Array(binary.length);
  for (let at = 0; at < raw.length; at++) raw[at] = binary.charCodeAt(at);
  const stream = new Blob([raw]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer();
}
// ---- what is known of each image -----------------------------------------------------------------------------------
export const columns = {};
const kinds = { // bytes where nothing is said
  x: Uint16Array, y: Uint16Array, rank: Uint32Array, parent: Uint32Array, stands: Uint32Array, near: Uint32Array,
  thumbRow: Uint32Array, thumbSize: Uint16Array,
};
await Promise.all(
  [...document.querySelectorAll("script[data-column]")].map(async (node) => {
    const name = node.dataset.column,
      buffer = await bytesOf(node.id);
    columns[name] =
      name === "names" ? new TextDecoder().decode(buffer).split("\n") : new (kinds[name] || Uint8Array)(buffer);
  }),
);
export const count = columns.rank.length,
  names = columns.names,
  rank = columns.rank,
  flags = columns.flags;
export const rowOf = new Int32Array(told.ranked + 1).fill(-1);
for (let i = 0; i < count; i++) if (rank[i] !== NONE) rowOf[rank[i]] = i;
export const nameOf = (i) => told.prefix + names[i];
// Of pools of more images than the page holds, ranks from `complete` on are a part of all, and each counts for several.
export const weightOf = (i) => (rank[i] !== NONE && rank[i] < told.complete ? 1 : told.weight);

// Those whose nearest earlier pick is a given one, the last of the ranking first.
const childStart = new Uint32Array(told.ranked + 2),
  childRows = new Uint32Array(count);
for (let i = 0; i < count; i++) if (columns.parent[i] !== NONE) childStart[columns.parent[i] + 1]++;
for (let r = 0; r <= told.ranked; r++) childStart[r + 1] += childStart[r];
{
  const fill = childStart.slice();
  for (let r = told.ranked - 1; r >= 0; r--) {
    const i = rowOf[r];
    if (i >= 0 && columns.parent[i] !== NONE) childRows[fill[columns.parent[i]]++] = i;
  }
}
export const childrenOf = (r) => childRows.subarray(childStart[r], childStart[r + 1]);

// ---- pictures ------------------------------------------------------------------------------------------------------
const thumbs = new Map();
{
  let start = 0;
  columns.thumbRow.forEach((row, at) => {
    thumbs.set(row, [start, columns.thumbSize[at]]);
    start += columns.thumbSize[at];
  });
}
let thumbBytes = null;
const addresses = new Map(),
  images = new Map(),
  previews = new Map();
function addressOf(i) {
  if (!addresses.has(i)) {
    const place = thumbs.get(i);
    if (place) {
      thumbBytes = thumbBytes || Uint8Array.from(atob($("thumbs").textContent), (letter) => letter.charCodeAt(0));
      addresses.set(
        i,
        URL.createObjectURL(new Blob([thumbBytes.subarray(place[0], place[0] + place[1])], { type: "image/jpeg" })),
      );
    } else addresses.set(i, previewOf(i).toDataURL());
  }
  return addresses.get(i);
}
function previewOf(i) {
  if (previews.has(i)) return previews.get(i);
  const canvas = make("canvas", { width: 4, height: 4 }),
    pen = canvas.getContext("2d"),
    pixels = pen.createImageData(4, 4);
  for (let field = 0; field < 16; field++) {
    for (let channel = 0; channel < 3; channel++) {
      const nibble = field * 3 + channel,
        byte = columns.preview[i * 24 + (nibble >> 1)];
      pixels.data[field * 4 + channel] = (nibble & 1 ? byte & 15 : byte >> 4) * 17;
    }
    pixels.data[field * 4 + 3] = 255;
  }
  pen.putImageData(pixels, 0, 0);
  if (previews.size > 4000) previews.clear();
  previews.set(i, canvas);
  return canvas;
}
// What the map draws: an image once it is decoded, its preview until then; `whenDecoded` is told of the change.
let decoded = () => {};
export function whenDecoded(tell) {
  decoded = tell;
}
export function pictureOf(i) {
  if (!thumbs.has(i)) return previewOf(i);
  let image = images.get(i);
  if (!image) {
    image = new Image();
    image.onload = () => decoded();
    image.src = addressOf(i);
    images.set(i, image);
  }
  return image.complete && image.naturalWidth ? image : previewOf(i);
}
export function picture(i, alt = nameOf(i)) {
  return make("img", {
    src: addressOf(i),
    alt,
    title: nameOf(i),
    className: thumbs.has(i) ? "" : "preview",
    draggable: false,
  });
}
for (const node of document.querySelectorAll("img[data-row]")) {
  const i = Number(node.dataset.row);
  node.src = addressOf(i);
  node.alt = node.title = nameOf(i);
  if (!thumbs.has(i)) node.className = "preview";
}
