/** What is believed of the user: bars with intervals, and where they were before. */

import { byId, el, icon } from "./dom.js";
import { fixed, percent, plural, sharesInWords, signed } from "./format.js";
import { rounded } from "./simplex.js";
import { get, set, watch } from "./state.js";

/** @typedef {import("./types.js").Estimate} Estimate */
/** @typedef {"objectives"|"experts"} View */

const LEARNING = {
  nothing: "nothing learned yet",
  observing: "observing: not used for answers yet",
  applied: "applied: answers use it",
};

/** @type {View} */
let view = "objectives";

/**
 * @param {{export: () => void, reset: () => void, erase: () => void, choose: () => void}} actions
 */
export function mountBelief(actions) {
  watch(["user", "belief", "library"], () => render(actions));
}

/** @param {Parameters<typeof mountBelief>[0]} actions */
function render(actions) {
  const { user, belief } = get();
  const host = byId("belief");
  if (!user) {
    host.replaceChildren(nobody(actions.choose));
    return;
  }
  if (!belief) {
    host.replaceChildren(el("p", { class: "muted" }, "Loading …"));
    return;
  }
  const table = host.querySelector("table");
  if (table && table.dataset.key === keyOf(user)) {
    update(host, belief);
    return;
  }
  host.replaceChildren(
    el("p", { class: "learning" }),
    viewSwitch(actions),
    tableOf(user, belief),
    el("p", { class: "muted small-print scale-note" }),
    el("p", { class: "muted small-print settled" }),
    el("div", { class: "learned" }),
    el("div", { class: "soup muted small-print" }),
    dataActions(actions),
  );
  update(host, belief);
}

/** @param {string} user */
const keyOf = (user) => `${user}:${view}`;

/** @param {() => void} choose */
function nobody(choose) {
  const button = el("button", { type: "button", class: "small" }, "Choose a user");
  button.addEventListener("click", choose);
  return el("div", { class: "empty" },
    el("p", { class: "empty-title" }, "Nobody chosen"),
    el("p", {}, "With a user chosen, palate stores their feedback and answers by their preference."),
    button);
}

/** @param {Parameters<typeof mountBelief>[0]} actions */
function viewSwitch(actions) {
  /** @type {[View, string][]} */
  const views = [["objectives", "Objectives"], ["experts", "Experts"]];
  const row = el("div", { class: "segment-row" });
  for (const [value, label] of views) {
    const radio = el("input", { type: "radio", name: "belief-view", value });
    radio.checked = value === view;
    radio.addEventListener("change", () => {
      view = value;
      render(actions);
      /** @type {HTMLElement|null} */ (document.querySelector("input[name=belief-view]:checked"))?.focus();
    });
    row.append(el("label", { class: "segment" }, radio, el("span", {}, label)));
  }
  return el("fieldset", { class: "segments" }, el("legend", { class: "hidden" }, "Show the belief over"), row);
}

/**
 * @param {string} user
 * @param {import("./types.js").Belief} belief
 */
function tableOf(user, belief) {
  const rows = belief[view].map(({ name }) =>
    el(
      "tr",
      { "data-name": name },
      el("th", { scope: "row" }, name, el("span", { class: "moved" })),
      el(
        "td",
        {},
        el("div", { class: "bar", "aria-hidden": "true" },
          el("i", { class: "zero" }),
          el("i", { class: "interval before" }),
          el("i", { class: "mean before" }),
          el("i", { class: "interval now" }),
          el("i", { class: "mean now" })),
        el("span", { class: "numbers" }),
      ),
    ),
  );
  const caption = `What is believed of ${user}, by ${view.slice(0, -1)}: mean and 95 % interval`;
  return el(
    "table",
    { class: "bars", "data-key": keyOf(user) },
    el("caption", { class: "hidden" }, caption),
    el("thead", { class: "hidden" },
      el("tr", {}, el("th", { scope: "col" }, "Name"), el("th", { scope: "col" }, "Belief"))),
    el("tbody", {}, ...rows),
  );
}

/**
 * Move the bars; those of the belief before stay behind as outlines.
 *
 * @param {HTMLElement} host
 * @param {import("./types.js").Belief} belief
 */
function update(host, belief) {
  const before = get().before?.[view] ?? [];
  const reach = reachOf([...belief[view], ...before]);
  const at = (/** @type {number} */ value) => `${50 + (50 * value) / reach}%`;
  for (const estimate of belief[view]) {
    const row = host.querySelector(`tr[data-name="${CSS.escape(estimate.name)}"]`);
    if (!row) continue;
    const old = before.find(({ name }) => name === estimate.name) ?? null;
    place(row, "now", estimate, at);
    place(row, "before", old, at);
    const change = old ? estimate.mean - old.mean : 0;
    const moved = Math.abs(change) >= 0.005 ? change : 0; // as written, with two digits
    const numbers = row.querySelector(".numbers");
    numbers?.replaceChildren(
      el("b", {}, signed(estimate.mean)),
      el("span", { class: "muted" }, ` ${fixed(estimate.low)} to ${fixed(estimate.high)}`),
    );
    text(row, ".moved", moved ? `${moved > 0 ? "▲" : "▼"}\u202f${signed(moved)}` : "");
  }
  text(host, ".learning", `${plural(belief.n_feedback, "verdict")}, ${LEARNING[belief.learning]}.`);
  const outlined = before.length > 0 ? " Outlines: before the last verdict." : "";
  text(host, ".scale-note", `Left of the line: disliked; right: liked. Bars: 95 % sure.${outlined}`);
  text(host, ".settled", belief.is_settled ? "Enough is known: more comparisons would change little." : "");
  renderLearned(host, belief);
}

/**
 * @param {HTMLElement} host
 * @param {import("./types.js").Belief} belief
 */
function renderLearned(host, belief) {
  const box = host.querySelector(".learned");
  const { soup, preference } = belief;
  const isUsed = belief.learning === "applied";
  if (preference && belief.n_feedback > 0) {
    const button = el("button", { type: "button", class: "small" }, "Move the point there");
    button.addEventListener("click", () => {
      const { objectives } = get();
      set({ shares: rounded(objectives.map((name) => preference[name] ?? 0)), source: "point" });
    });
    box?.replaceChildren(
      el("p", {}, el("span", { class: "learned-sign", "aria-hidden": "true" }, "◇ "),
        isUsed ? "Learned preference: " : "Leaning so far: ", el("b", {}, sharesInWords(preference, 4) || "even")),
      button,
    );
  } else {
    box?.replaceChildren();
  }
  const { gain } = soup;
  text(host, ".soup", belief.n_feedback === 0 ? "" :
    `${isUsed ? "Served" : "Would be served"} as a soup at ${percent(soup.scale)} of its strength (${fixed(soup.kl, 3)} of ` +
      `${fixed(soup.budget, 3)} nats a token from the base); expected gain ${signed(gain.mean, 3)} ` +
      `(${fixed(gain.low, 3)} to ${fixed(gain.high, 3)}) reward a token.`);
}

/**
 * @param {Element} row
 * @param {"now"|"before"} when
 * @param {Estimate|null} estimate
 * @param {(value: number) => string} at
 */
function place(row, when, estimate, at) {
  const interval = /** @type {HTMLElement} */ (row.querySelector(`.interval.${when}`));
  const mean = /** @type {HTMLElement} */ (row.querySelector(`.mean.${when}`));
  interval.hidden = mean.hidden = estimate === null;
  if (!estimate) return;
  interval.style.left = at(estimate.low);
  interval.style.right = `calc(100% - ${at(estimate.high)})`;
  mean.style.left = at(estimate.mean);
}

/**
 * How far the bars reach to each side: a round number that holds all of them.
 *
 * @param {Estimate[]} estimates
 */
function reachOf(estimates) {
  const most = Math.max(0.1, ...estimates.flatMap(({ low, high }) => [-low, high]));
  const unit = 10 ** Math.floor(Math.log10(most));
  return (Math.ceil((most / unit) * 5) / 5) * unit;
}

/**
 * @param {Element} host
 * @param {string} selector
 * @param {string} words
 */
function text(host, selector, words) {
  const node = host.querySelector(selector);
  if (node) node.textContent = words;
}

/** @param {Parameters<typeof mountBelief>[0]} actions */
function dataActions(actions) {
  /** @type {[string, string, string, () => void, string][]} */
  const buttons = [
    ["export-button", "download", "Export my data", actions.export, "small"],
    ["reset-button", "reset", "Forget what was learned", actions.reset, "small"],
    ["erase-button", "erase", "Erase me", actions.erase, "small danger"],
  ];
  return el("div", { class: "data-actions", role: "group", "aria-label": "Your data" },
    ...buttons.map(([id, sign, label, act, name]) =>
      el("button", { type: "button", id, class: name, onclick: act }, icon(sign), label)));
}
