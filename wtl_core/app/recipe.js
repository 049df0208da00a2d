// The room Recipe: other parameters of the selection, and what they would pick, before anything is written.
import { asked, counted, facts, make, picture, say, share as shareOf, shortName, table, unseen, whole } from "./kit.js";

export function room(box, context) {
  let timer = 0, isLeft = false, edits = () => null;
  begin().catch((error) => context.fail(error));
  async function begin(isReset) { draw(await asked("/api/recipe"), await asked("/api/preview"), isReset); }

  // The form shows what the preview beside it was made of, also after a reload and when another window asked for it.
  // Edits of which no preview was made yet are kept while another room is shown.
  function draw(told, before, isReset = false) {
    if (isLeft) return;
    const draft = isReset ? null : context.memory.edits;
    context.memory.edits = null;
    let shown = isReset ? null : before.number, isChanged = Boolean(draft);
    const now = draft || (!isReset && before.selection) || told.selection;
    const field = (id, name, input, help) => make("p", { className: "field" }, make("label", { htmlFor: id }, name), input, help ? make("span", { className: "small soft" }, help) : null);
    const budget = make("input", { type: "text", id: "budget", value: now.budget ?? "" });
    const groupBy = make("select", { id: "group-by" }, ...["", ...new Set([...told.groupings.map((group) => group.name), ...(now.group_by ? [now.group_by] : [])])].map((name) => make("option", { value: name }, name || "nothing")));
    groupBy.value = now.group_by || "";
    const labels = make("select", { id: "labels" }, ...[["auto", "where they help"], ["use", "always"], ["ignore", "never"]].map(([value, name]) => make("option", { value }, name)));
    labels.value = now.labels;
    const balance = make("select", { id: "balance" }, ...[["", "no balance"], ["uniform", "all groups alike"], ["input", "as in the pool"]].map(([value, name]) => make("option", { value }, name)));
    balance.value = now.balance && typeof now.balance.target === "string" ? now.balance.target : "";
    const quotas = make("div", { className: "rows" }), weights = make("div", { className: "rows" });
    const remove = (row) => { const button = make("button", { type: "button" }, "Remove"); button.onclick = () => { row.remove(); changed(); }; return button; };
    const small = (name, value, more = {}) => { const input = make("input", { type: "number", step: "any", value: value ?? "", ...more }); input.setAttribute("aria-label", name); input.dataset.name = name; return make("label", {}, make("span", {}, name), input); };
    function addQuota(quota = {}) {
      const values = told.groupings.find((group) => group.name === groupBy.value)?.values || [];
      const list = make("datalist", { id: `values-${quotas.children.length}` }, ...values.map((value) => make("option", { value })));
      const group = make("input", { type: "text", value: quota.group ?? "", placeholder: "a group, as named above" });
      group.setAttribute("list", list.id); group.setAttribute("aria-label", "group"); group.dataset.name = "group";
      const row = make("div", { className: "quota" }, group, list, small("at least, % of the picks", quota.minimum_share ? 100 * quota.minimum_share : "", { min: 0, max: 100 }), small("at most, % of the picks", quota.maximum_share !== undefined && quota.maximum_share < 1 ? 100 * quota.maximum_share : "", { min: 0, max: 100 }), small("at least, images", quota.minimum || "", { min: 0 }), small("at most, images", quota.maximum ?? "", { min: 0 }));
      row.append(remove(row));
      quotas.append(row);
    }
    function addWeight(weight = {}) {
      const column = make("select", {}, ...[...told.numbers, ...told.keys].map((name) => make("option", { value: name }, name)));
      column.value = weight.column || told.numbers[0]; column.setAttribute("aria-label", "column"); column.dataset.name = "column";
      const row = make("div", { className: "bar-of-controls" }, column, small("strength", weight.strength ?? 1, { min: -4, max: 4 }));
      row.append(remove(row));
      weights.append(row);
    }
    (now.quotas || []).forEach(addQuota);
    (now.weights || []).forEach(addWeight);
    const more = (name, add) => { const button = make("button", { type: "button" }, name); button.onclick = () => { add(); changed(); }; return button; };
    const result = make("div", { className: "result", role: "region", tabIndex: -1 });
    result.setAttribute("aria-label", "The preview");
    let drawn = null;
    const again = make("button", { type: "button", className: "act" }, "Back to the recipe of now"), stale = make("p", { className: "notice small", hidden: !isChanged || shown === null, role: "status" }, "The form has changed since this preview was made: press Preview."), problem = make("p", { className: "notice small", hidden: true, role: "alert" });
    const tellProblem = (text) => { problem.hidden = !text; problem.textContent = text; };
    const changed = () => { isChanged = true; stale.hidden = shown === null; tellProblem(""); };
    again.onclick = () => begin(true).catch((error) => context.fail(error));
    const form = make("form", { className: "recipe" },
      make("h2", { className: "first" }, "The recipe"), make("p", { className: "small soft read" }, "Change what steers the picks, and see what it would pick. Nothing is written: a run with the recipe below the preview makes it real."),
      field("budget", "Budget", budget, "a number of images, or a share as 10%"), field("labels", "Labels steer", labels),
      field("group-by", "Group by", groupBy), field("balance", "Balance", balance),
      make("h3", {}, "Quotas: how many picks each group gets"), make("p", { className: "small soft" }, "For groups of the column chosen above. Empty fields set no limit."), quotas, more("Add a quota", addQuota), make("h3", {}, "Weights by a column"), make("p", { className: "small soft" }, "Above 0, images with high values are picked sooner; below 0, those with low ones."), weights, more("Add a weight", addWeight),
      make("p", { className: "acts" }, make("button", { className: "act is-main" }, "Preview"), again), problem, stale);
    box.replaceChildren(make("div", { className: "two" }, form, result));

    function values() {
      const number = (row, name) => { const text = row.querySelector(`[data-name="${name}"]`).value; return text === "" ? null : Number(text); };
      const text = budget.value.trim();
      const out = { budget: text === "" ? null : /^\d+$/.test(text) ? Number(text) : text, group_by: groupBy.value || null, labels: labels.value,
        quotas: [...quotas.children].map((row) => ({ group: row.querySelector('[data-name="group"]').value, ...without({ minimum_share: share(number(row, "at least, % of the picks")), maximum_share: share(number(row, "at most, % of the picks")), minimum: number(row, "at least, images"), maximum: number(row, "at most, images") }) })),
        weights: [...weights.children].map((row) => ({ column: row.querySelector('[data-name="column"]').value, strength: number(row, "strength") ?? 1 })) };
      out.balance = balance.value ? { target: balance.value, strength: now.balance?.strength ?? 1 } : now.balance && typeof now.balance.target !== "string" ? now.balance : null;
      return out;
    }
    form.addEventListener("input", changed);
    edits = () => (isChanged ? values() : null);
    const share = (value) => (value === null ? null : value / 100);
    const without = (pairs) => Object.fromEntries(Object.entries(pairs).filter(([, value]) => value !== null));
    form.onsubmit = async (event) => {
      event.preventDefault();
      const asked_ = values();
      try {
        tellProblem("");
        const { number } = await asked("/api/preview", { body: { selection: asked_ } });
        shown = number;
        isChanged = false;
        stale.hidden = true;
        follow();
      } catch (error) { isChanged = true; tellProblem(error.message); }
    };
    async function follow() {
      clearTimeout(timer);
      timer = setTimeout(follow, 3000);
      let found;
      try { found = await asked("/api/preview"); } catch (error) { context.fail(error); return; }
      if (isLeft) return;
      if (found.number !== shown && !isChanged && !isReset) { clearTimeout(timer); draw(told, found); return; }
      if (shown === null) { result.replaceChildren(make("p", { className: "soft" }, `The recipe of now picks ${counted(told.picks, "image")} of ${whole(told.samples)}. Change something, then Preview.`)); return; }
      if (!found.is_done) { result.replaceChildren(make("p", { role: "status" }, found.total ? `Ranking: ${whole((100 * found.done) / found.total)} % of the comparisons are made.` : "Ranking …"), make("progress", found.total ? { value: found.done, max: found.total } : {})); clearTimeout(timer); timer = setTimeout(follow, 500); return; }
      if (found.number === drawn || found.number !== shown) return;
      drawn = found.number;
      if (found.error) {
        result.replaceChildren(make("p", { className: "soft" }, `There is no preview: ${isChanged ? "the last try failed" : "the form says why"}. The recipe of now picks ${counted(told.picks, "image")} of ${whole(told.samples)}.`));
        if (!isChanged) tellProblem(found.error);
        return;
      }
      const { items } = await asked("/api/preview/picks?count=300");
      show(found.result, items);
    }
    function show(made, items) {
      say(`Preview: ${counted(made.picks, "pick")}`);
      const reached = (value) => (value === null || !made.everything ? "" : shareOf(value / made.everything));
      const card = (item) => {
        const node = make("button", { type: "button", className: `cell${item.was === null || item.was >= made.before ? " is-new" : ""}`, title: item.name }, picture(item, { alt: "" }), make("span", { className: "caption" }, make("b", {}, whole(item.rank + 1)), make("span", { className: "soft mark-right" }, item.was === null ? "new" : `was ${whole(item.was + 1)}`)));
        node.append(unseen(shortName(item.name)));
        node.onclick = () => context.go("picks", { ...item, state: "open" });
        return node;
      };
      const copy = make("button", { type: "button" }, "Copy");
      copy.onclick = async () => { try { await navigator.clipboard.writeText(made.toml); copy.textContent = "Copied"; } catch { getSelection().selectAllChildren(text); copy.textContent = "Selected: press Ctrl+C"; } };
      const text = make("pre", { tabIndex: 0 }, made.toml);
      result.replaceChildren(make("h2", { className: "first" }, `${counted(made.picks, "pick")}; ${whole(made.stay)} of the ${whole(made.before)} of now stay`),
        facts([["these picks give, of what all labels would", reached(made.coverage)], ["the same number at random would give", reached(made.random)], ["ended by", (made.stop || "nothing").replaceAll("_", " ")]]),
        ...(made.advice ? [make("p", { className: made.is_short ? "notice" : "read" }, made.advice)] : []),
        ...(made.since ? [make("p", { className: "small soft read" }, made.since)] : []),
        ...(made.groups.length ? [table(["group", "pool", "picks now", "preview"], made.groups.map((row) => [row.group, ...[row.pool, row.now, row.then].map(whole)]))] : []),
        make("div", { className: "grid-rows still" }, ...items.map(card)), make("h3", {}, "To make it real"), make("p", { className: "small read" }, "Save this as recipe.toml, then run the command. The workspace keeps the recipe for later runs."), text, copy,
        make("pre", { tabIndex: 0 }, `wtl run -w ${told.workspace} --recipe recipe.toml`));
    }
    follow();
  }
  return { leave() { isLeft = true; clearTimeout(timer); context.memory.edits = edits(); } };
}
