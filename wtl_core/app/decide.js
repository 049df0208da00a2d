// Decisions on their way to the ledger. They are shown at once and sent in order; keys that follow while one is under
// way go together, so that they are never waited for, and a bulk is an entry of its own. What cannot be sent yet is kept
// in this browser.
import { asked, counted, done, say, whole, WORDS } from "./kit.js";

const RETRY = 3000;
export const MOST = 10000; // of one bulk, as the server has it
let place = "wtl", waiting = [], isSending = false, history = [], timer = 0, bulk = 0;
const listeners = new Set();
export const onDecisions = (listener) => { listeners.add(listener); return () => listeners.delete(listener); };
// An image that nobody has decided on any more is labelled or handed out, where it was so before.
const base = new Map();
function tell(what) {
  for (const [id, state] of Object.entries(what.now)) if (state === "open" && base.has(id)) what.now[id] = base.get(id);
  listeners.forEach((listener) => listener(what));
}
const decisionOf = (state) => (["kept", "unusable", "redundant"].includes(state) ? state : "open");

export function begin(workspace) {
  place = `wtl ${workspace}`;
  try { waiting = JSON.parse(localStorage.getItem(place) || "[]"); } catch { waiting = []; }
  send();
}
function keep() { try { localStorage.setItem(place, JSON.stringify(waiting)); } catch { /* a private window */ } }

// One decision on one item or several; they are undone together, and those that are `kept` of the same images with them.
// `by` says what it was made on. How many it changes.
export function decide(items, decision, by = "", kept = []) {
  const asked_ = [...[items].flat().map((item) => [item, decision]), ...kept.map((item) => [item, "kept"])];
  const entry = asked_.map(([item, after]) => ({ id: item.id, name: item.name, before: decisionOf(item.state), after }))
    .filter((one) => one.before !== one.after);
  if (!entry.length) return 0;
  for (const item of [items].flat()) if (item.state === "labelled" || item.state === "out") base.set(item.id, item.state);
  history.push(entry);
  const group = Array.isArray(items) ? ++bulk : 0;
  for (const one of entry) waiting.push({ id: one.id, decision: one.after, by, group });
  keep();
  tell({ now: Object.fromEntries(entry.map((one) => [one.id, one.after])) });
  send();
  return entry.length;
}
// The same on many at once, which is told with counts and can be undone from there.
export function decideAll(items, decision, by, picks, kept = []) {
  const already = items.filter((item) => item.state === decision).length;
  const among = items.filter((item) => item.state !== decision && item.rank !== null && item.rank < picks).length;
  const all = decide(items, decision, by, kept), changed = all - kept.length;
  const told = [changed ? `${counted(changed, "image")} ${WORDS[decision]}${among ? `, ${whole(among)} of them ${among === 1 ? "a pick" : "picks"}` : ""}` : "Nothing changed"];
  if (kept.length) told.push(`${whole(kept.length)} kept`);
  if (already) told.push(`${whole(already)} ${already === 1 ? "was" : "were"} so already`);
  const text = `${told.join("; ")}.`;
  say(text);
  done(text, changed ? () => { undo(); say("Taken back"); done(`Taken back: ${counted(all, "image is", "images are")} as before.`); } : null);
}
// Takes this page's last decision back, unless somebody has decided otherwise meanwhile; what it was about, or null.
export function undo() {
  const entry = history.pop();
  if (!entry) return null;
  const group = ++bulk;
  for (const one of entry) waiting.push({ id: one.id, decision: one.before, expected: one.after, by: "undo", group });
  keep();
  tell({ now: Object.fromEntries(entry.map((one) => [one.id, one.before])) });
  send();
  return entry;
}
// Takes an entry of the ledger back, for some of its samples or all: also after a reload, and of others.
export async function takeBack(entry, ids) {
  const found = await asked("/api/undo", { body: ids ? { entry, ids } : { entry } });
  tell({ now: found.now, error: found.left.length ? `${counted(found.left.length, "image was", "images were")} decided on anew meanwhile; that stays.` : "" });
  return found;
}
export const pending = () => waiting.length;

async function send() {
  clearTimeout(timer);
  if (isSending || !waiting.length) return;
  isSending = true;
  const first = waiting[0], isAlike = (one) => one.decision === first.decision && !one.expected === !first.expected && one.by === first.by && (one.group || 0) === (first.group || 0);
  let count = 1;
  while (count < Math.min(waiting.length, MOST) && isAlike(waiting[count])) count++;
  const sent = waiting.slice(0, count), ids = [...new Set(sent.map((one) => one.id))];
  const expected = first.expected ? Object.fromEntries(sent.map((one) => [one.id, one.expected])) : {};
  try {
    const answer = await asked("/api/decisions", { body: { ids, decision: first.decision, expected, by: first.by || "" } });
    waiting.splice(0, count);
    const later = new Set(waiting.map((one) => one.id)), now = {};
    for (const [id, state] of Object.entries(answer.now)) if (!later.has(id)) now[id] = state;
    tell({ now, error: answer.left.length ? "Somebody else has decided on this image meanwhile; that stays." : "" });
  } catch (error) {
    if ([0, 409, 503].includes(error.status)) {
      tell({ now: {}, error: `${error.message} What you decide is kept in this browser and sent when that is over.` });
      timer = setTimeout(send, RETRY);
    } else {
      waiting.splice(0, count);
      tell({ now: Object.fromEntries(ids.map((id) => [id, "open"])), error: error.message });
    }
    isSending = false;
    keep();
    return;
  }
  isSending = false;
  keep();
  send();
}
