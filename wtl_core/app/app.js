// The app's page: which room is shown, what the keys do, and what is new in the workspace.
import { $, asked, make, trouble, whole, counted, done, facts, empty } from "./kit.js";
import * as queue from "./decide.js";
import * as picks from "./picks.js";
import * as map from "./map_room.js";
import * as lists from "./rooms.js";
import * as recipe from "./recipe.js";
import * as decided from "./decided.js";
import { look } from "./look.js";

history.replaceState(null, "", location.pathname + location.hash); // the token is in a cookie now
const ROOMS = [["picks", "Picks", picks.room], ["map", "Map", map.room], ["near", "Near-duplicates", lists.near], ["arrivals", "Arrivals", lists.arrivals],
  ["quarantine", "Quarantine", lists.quarantine], ["labels", "Labels", lists.labels], ["recipe", "Recipe", recipe.room], ["decisions", "Decisions", decided.room]];
const LOOK = 4000;
let state = null, shown = null, current = null, note = "";
const memories = {};

const nav = $("rooms");
for (const [name, title] of ROOMS) nav.append(make("a", { href: `#${name}`, id: `to-${name}` }, title));

function fail(error) { trouble(error.message); }
function tellTrouble(text) { note = text || ""; trouble(note); tellStatus(); }
function tellStatus() {
  if (!state) return;
  const parts = [`${state.workspace} · refresh ${state.refresh}, ${state.created.slice(0, 16).replace("T", " ")} UTC`];
  if (queue.pending()) parts.push(`${counted(queue.pending(), "decision")} on the way`);
  if (state.work && state.work.is_alive) parts.push(`a run is at work: ${state.work.stage}${state.work.total ? `, ${whole(state.work.done)} of ${whole(state.work.total)} parts` : ""}`);
  if (state.is_loading) parts.push("a new refresh is being loaded");
  $("status").textContent = parts.join(" · ");
}

function go(name, target) {
  if (location.hash === `#${name}`) open(name, target); else { pendingTarget = target; location.hash = name; }
}
let pendingTarget = null;
function open(name, target) {
  const room = ROOMS.find(([one]) => one === name) || ROOMS[0];
  current?.leave?.();
  for (const [one] of ROOMS) { if (one === room[0]) $(`to-${one}`).setAttribute("aria-current", "page"); else $(`to-${one}`).removeAttribute("aria-current"); }
  document.title = `${room[1]} · What to label`;
  shown = room[0];
  trouble("");
  done("");
  memories[shown] = memories[shown] || {};
  // A box of its own for each room: what a room that was left draws late is seen by nobody.
  const box = make("div", {}, make("p", { className: "soft" }, "Loading …"));
  $("room").className = `room-${shown}`;
  $("room").replaceChildren(box);
  current = room[2](box, { get state() { return state; }, memory: memories[shown], target, go, fail, tellTrouble });
}
addEventListener("hashchange", () => { const target = pendingTarget; pendingTarget = null; open(location.hash.slice(1), target); });

async function poll() {
  try {
    const found = await asked("/api/state"), before = state;
    state = found;
    current?.recount?.();
    if (before && (before.refresh !== found.refresh || before.entries !== found.entries)) {
      // A new ranking changes all that the queue says, its first sentence too.
      if (before.refresh !== found.refresh && shown === "picks") open("picks"); else current?.refreshed?.(before.refresh !== found.refresh);
    }
    if ($("trouble").textContent && !note) trouble("");
  } catch (error) { fail(error); if (!state) $("room").replaceChildren(empty("There is nothing to show yet", error.message)); }
  tellStatus();
}

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || document.querySelector("dialog[open]")) return;
  if (event.target.closest("input, select, textarea")) return;
  if (event.key === "?") { $("keys").showModal(); event.preventDefault(); return; }
  if (event.key === "/") { $("find").focus(); event.preventDefault(); return; }
  if (/^[1-9]$/.test(event.key) && ROOMS[event.key - 1]) { location.hash = ROOMS[event.key - 1][0]; event.preventDefault(); return; }
  if (event.target.closest("a, summary") && event.key === "Enter") return;
  if (current?.onKey?.(event)) event.preventDefault();
});
$("show-keys").onclick = () => $("keys").showModal();
$("find-form").onsubmit = async (event) => {
  event.preventDefault();
  const name = $("find").value.trim();
  if (!name) return;
  $("find").blur();
  try {
    const { total, items } = await asked(`/api/find?name=${encodeURIComponent(name)}`), open = (item) => go("picks", item);
    if (!total) done(`No image has “${name}” in its name.`);
    else if (total === 1) open(items[0]);
    else look({ title: `${counted(total, "image has", "images have")} “${name}” in the name`, about: total > items.length ? `The first ${whole(items.length)} by rank are shown: give more of the name.` : "The first ranks come first; Enter opens one among the picks.", items, open });
  } catch (error) { fail(error); }
};
addEventListener("beforeunload", (event) => { if (queue.pending()) event.preventDefault(); });
// Rooms other than the queue, which shows its decisions itself, are drawn anew when these are in the ledger.
let soon = 0;
queue.onDecisions(() => { tellStatus(); clearTimeout(soon); if (shown !== "picks") soon = setTimeout(() => { if (!queue.pending()) poll(); }, 300); });

$("keys-list").replaceWith(facts([...picks.KEYS, [`1 to ${ROOMS.length}`, "the rooms"], ["/", "find by name"]]));
await poll();
if (state) {
  queue.begin(state.workspace);
  open(location.hash.slice(1) || "picks");
  setInterval(poll, LOOK);
} else { const timer = setInterval(async () => { await poll(); if (state) { clearInterval(timer); location.reload(); } }, LOOK); }
document.documentElement.dataset.ready = "yes";
