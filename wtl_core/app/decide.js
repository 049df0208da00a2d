// Decisions on their way to the ledger. They are shown at once and sent in order; what follows while one is under way
// goes together, so that keys are never waited for. What cannot be sent yet is kept in this browser.
import { asked } from "./kit.js";

const RETRY = 3000;
let place = "wtl", waiting = [], isSending = false, history = [], timer = 0;
const listeners = new Set();
export const onDecisions = (listener) => { listeners.add(listener); return () => listeners.delete(listener); };
const tell = (what) => listeners.forEach((listener) => listener(what));

export function begin(workspace) {
  place = `wtl ${workspace}`;
  try { waiting = JSON.parse(localStorage.getItem(place) || "[]"); } catch { waiting = []; }
  send();
}
function keep() { try { localStorage.setItem(place, JSON.stringify(waiting)); } catch { /* a private window */ } }

// One decision on one item or several; they are undone together. Whether anything was to decide.
export function decide(items, decision) {
  const entry = [items].flat().map((item) => ({ id: item.id, name: item.name, before: ["kept", "unusable", "redundant"].includes(item.state) ? item.state : "open", after: decision }))
    .filter((one) => one.before !== decision);
  if (!entry.length) return false;
  history.push(entry);
  for (const one of entry) waiting.push({ id: one.id, decision });
  keep();
  tell({ now: Object.fromEntries(entry.map((one) => [one.id, decision])) });
  send();
  return true;
}
// Takes this page's last decision back, unless somebody has decided otherwise meanwhile; what it was about, or null.
export function undo() {
  const entry = history.pop();
  if (!entry) return null;
  for (const one of entry) waiting.push({ id: one.id, decision: one.before, expected: one.after });
  keep();
  tell({ now: Object.fromEntries(entry.map((one) => [one.id, one.before])) });
  send();
  return entry;
}
export const pending = () => waiting.length;

async function send() {
  clearTimeout(timer);
  if (isSending || !waiting.length) return;
  isSending = true;
  const first = waiting[0];
  let count = 1;
  while (count < Math.min(waiting.length, 500) && waiting[count].decision === first.decision && !waiting[count].expected === !first.expected) count++;
  const sent = waiting.slice(0, count), ids = [...new Set(sent.map((one) => one.id))];
  const expected = first.expected ? Object.fromEntries(sent.map((one) => [one.id, one.expected])) : {};
  try {
    const done = await asked("/api/decisions", { body: { ids, decision: first.decision, expected } });
    waiting.splice(0, count);
    const later = new Set(waiting.map((one) => one.id)), now = {};
    for (const [id, state] of Object.entries(done.now)) if (!later.has(id)) now[id] = state;
    tell({ now, error: done.left.length ? "Somebody else has decided on this image meanwhile; that stays." : "" });
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
