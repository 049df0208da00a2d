// The room Decisions: everything that is kept or skipped and still so, with when, why and on what; each can be taken back.
import { asked, counted, done, empty, isSkipped, make, say, segments, strip, trouble, whole, WORDS } from "./kit.js";
import { onDecisions, takeBack } from "./decide.js";
import { look } from "./look.js";

const PAGE = 20;
export function room(box, context) {
  let show = context.memory.show || "all", version = 0;
  const head = make("p", { className: "read" }, "Loading …"), list = make("div", { className: "groups" }), more = make("button", { type: "button", hidden: true }, "Show more");
  const choice = segments("Which decisions", [["all", "All"], ["kept", "Kept"], ["unusable", "Unusable"], ["redundant", "Redundant"]], show, (value) => { show = context.memory.show = value; load(0); });
  box.replaceChildren(make("h2", { className: "first" }, "Decisions"), head, make("div", { className: "bar-of-controls" }, choice), list, more);
  more.onclick = () => load(list.children.length);

  async function load(start, count = PAGE) {
    const mine = start ? version : ++version, found = await asked(`/api/decisions?start=${start}&count=${count}&show=${show}`);
    if (mine !== version) return;
    head.textContent = found.images ? `${Object.entries(found.counts).map(([name, value]) => `${whole(value)} ${WORDS[name]}`).join(", ")}. The last decision comes first; taking one back makes things as they were before it.` : "";
    const nodes = found.entries.map(entryNode);
    if (start) list.append(...nodes); else list.replaceChildren(...nodes);
    if (!found.total) list.replaceChildren(empty("Nothing is decided", "Picks that are kept or skipped stand here, by whom or what they were skipped together, until they are taken back. Press K, U or R on a pick, or skip many at once on the map."));
    more.hidden = start + found.entries.length >= found.total;
  }
  function entryNode(entry) {
    const back = make("button", { type: "button" }, entry.count > 1 ? `Take all ${whole(entry.count)} back` : "Take it back"), all = make("button", { type: "button" }, "Choose which");
    const run = async (ids) => {
      try {
        const found = await takeBack(entry.entry, ids), text = `Taken back: ${counted(ids ? ids.length - found.left.length : entry.count, "image")}.`;
        say(text);
        done(text);
        await load(0, Math.min(500, Math.max(PAGE, list.children.length)));
      } catch (error) { trouble(error.message); }
    };
    back.onclick = () => run();
    all.onclick = async () => {
      const { items } = await asked(`/api/decisions/${entry.entry}`);
      look({ title: `${counted(entry.count, "image")} ${WORDS[entry.decision]}`, about: told(entry), items, open: (item) => context.go("picks", item), actions: [[(count) => `Take ${counted(count, "image")} back`, (chosen) => run(chosen.map((item) => item.id))]] });
    };
    const node = make("section", { className: "group" }, make("div", { className: "bar-of-controls" }, make("h3", {}, `${counted(entry.count, "image")} ${WORDS[entry.decision]}`), make("span", { className: "small soft" }, told(entry)), make("span", { className: "space" }), ...(entry.count > 1 ? [all] : []), back),
      strip(entry.items, (item) => context.go("picks", item), (item) => (item.rank === null ? (isSkipped(item) ? "left the ranking" : "not ranked") : `rank ${whole(item.rank + 1)}`)));
    if (entry.count > entry.items.length) node.lastChild.append(make("span", { className: "small soft" }, `and ${whole(entry.count - entry.items.length)} more`));
    return node;
  }
  const told = (entry) => [`${entry.created.slice(0, 16).replace("T", " ")} UTC`, entry.by || "by a command", ...(entry.picks ? [counted(entry.picks, "pick")] : [])].join(" · ");
  const stop = onDecisions(({ error }) => context.tellTrouble(error));
  load(0).catch((error) => context.fail(error));
  return { leave: stop, refreshed() { load(0, Math.min(500, Math.max(PAGE, list.children.length))).catch((error) => context.fail(error)); } };
}
