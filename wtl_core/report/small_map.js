// The page of the map alone: a slider that lights ranks, and what is under the pointer.
const told = JSON.parse(document.getElementById("told").textContent), box = document.getElementById("map");
const kinds = { x: Uint16Array, y: Uint16Array, rank: Uint32Array, mark: Uint8Array }, data = {};
for (const [name, text] of Object.entries(told.columns)) {
  const raw = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  data[name] = new kinds[name](await new Response(new Blob([raw]).stream().pipeThrough(new DecompressionStream("deflate"))).arrayBuffer());
}
const slider = document.getElementById("cut"), count = document.getElementById("count"), tip = document.getElementById("tip"), images = new Map();
function pictureOf(i) {
  const found = told.shown[i];
  if (!found || !found[1]) return null;
  if (!images.has(i)) {
    const image = new Image();
    image.onload = () => box.handle.redraw();
    image.src = `data:image/jpeg;base64,${found[1]}`;
    images.set(i, image);
  }
  const image = images.get(i);
  return image.complete && image.naturalWidth ? image : null;
}
box.handle = createMap(box, data, {
  label: "Map of the pool: images that look alike lie together, the first ranks are lit",
  picture: pictureOf,
  onHover(i) {
    tip.hidden = i < 0;
    if (i < 0) return;
    const picture = told.shown[i] && told.shown[i][1] ? Object.assign(new Image(), { src: `data:image/jpeg;base64,${told.shown[i][1]}`, alt: "" }) : null;
    const name = told.shown[i] ? told.shown[i][0].split(/[/#]/).pop() : "";
    const rank = data.rank[i] === 0xffffffff ? "not ranked" : `rank ${(data.rank[i] + 1).toLocaleString("en-US")}`;
    tip.replaceChildren(...(picture ? [picture] : []), [name, rank, data.mark[i] ? "labelled" : ""].filter(Boolean).join(", "));
    const [x, y] = box.handle.pixelOf(i), around = box.getBoundingClientRect();
    tip.style.left = `${Math.min(around.left + x + 12, innerWidth - 200)}px`;
    tip.style.top = `${Math.max(4, Math.min(around.top + y + 12, innerHeight - 110))}px`;
  },
});
const most = Math.max(2, told.ranked);
function moveTo(cut) {
  count.textContent = `${cut.toLocaleString("en-US")} of ${told.ranked.toLocaleString("en-US")}`;
  box.handle.setCut(cut);
}
slider.value = (1000 * Math.log(Math.max(1, told.picks))) / Math.log(most);
slider.oninput = () => moveTo(Math.round(most ** (slider.value / 1000)));
moveTo(told.picks);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => box.handle.recolour());
document.documentElement.dataset.ready = "yes";
