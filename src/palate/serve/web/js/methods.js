/** What each method costs and is predicted to gain, for the preference that answers follow. */

import { getMethods } from "./api.js";
import { byId, el } from "./dom.js";
import { fixed, sharesInWords, signed } from "./format.js";
import { showError } from "./notices.js";
import { get, preference, set, watch } from "./state.js";

const SETTLE_MS = 160; // after the last move of the point
const HOSTS = ["methods", "library-methods"];

/** @type {Record<string, [string, string]>} Label and description; others go by their name. */
const KNOWN = {
  auto: ["Auto", "The method measured to be worth most for this preference"],
  base: ["Base", "The base model, nothing personal"],
  prompt: ["Prompt", "The base model, prompted with the preference in words"],
  "best-of-n": ["Best of n", "The best of several answers of the prompted base"],
  portfolio: ["Portfolio", "The one member that serves the preference best"],
  soup: ["Soup", "Experts blended in their parameters"],
  "prompted-soup": ["Prompted soup", "A soup, prompted with the preference in words, too"],
  "output-soup": ["Output soup", "Experts blended in their next-token scores"],
  "implicit-soup": ["Implicit soup", "The output soup, drawn by rejection"],
  mixture: ["Mixture", "Experts mixed token by token"],
};

/** @param {string} name */
export const labelOf = (name) => KNOWN[name]?.[0] ?? name;

/** @param {string} name */
export const aboutMethod = (name) => KNOWN[name]?.[1] ?? "";

/** @param {number} n Of the base model, per token. */
export const passesOf = (n) => (n === 1 ? "1 pass" : `${Number(n.toFixed(1))} passes`);

/** @type {import("./types.js").Methods|null} */
let known = null;
/** @type {AbortController|null} */
let running = null;
/** @type {number|undefined} */
let timer;

/** Keep the tables up to date. */
export function mountMethods() {
  watch(["library", "shares", "source", "belief"], () => {
    clearTimeout(timer);
    if (get().library) timer = setTimeout(load, SETTLE_MS);
  });
  watch(["method"], render);
}

/** The learned preference where answers follow it, and the point's otherwise. */
function followed() {
  const { source, belief } = get();
  return (source === "learned" && belief?.preference) || preference();
}

async function load() {
  running?.abort();
  running = new AbortController();
  try {
    known = await getMethods([followed()], running.signal);
    render();
  } catch (error) {
    showError(error, load);
  }
}

function render() {
  if (!known) return;
  const rows = known.points[0];
  const taken = rows.find((row) => row.method === "auto")?.decides ?? "";
  const gains = rows.flatMap(({ predicted_utility: gain }) => (gain ? [gain.low, gain.high] : []));
  const low = Math.min(0, ...gains);
  const reach = Math.max(1e-9, Math.max(0, ...gains) - low);
  const at = (/** @type {number} */ value) => `${((value - low) / reach) * 100}%`;
  for (const id of HOSTS) {
    byId(id).replaceChildren(
      el("p", { class: "muted small-print" }, `For ${sharesInWords(followed(), 3)}${Object.keys(followed()).length > 3 ? " …" : "."}`),
      tableOf(rows, taken, at),
      el("p", { class: "muted small-print" }, noteOf(known)),
    );
  }
}

/**
 * @param {import("./types.js").MethodCost[]} rows
 * @param {string} taken What `auto` takes.
 * @param {(value: number) => string} at
 */
function tableOf(rows, taken, at) {
  const { method } = get();
  const lines = rows.filter((row) => row.method !== "auto").map((row) => {
    const isTaken = row.method === taken;
    const button = el(
      "button",
      { type: "button", class: "small method-name", title: aboutMethod(row.method), "aria-pressed": String(row.method === method) },
      labelOf(row.method),
    );
    button.addEventListener("click", () => {
      set({ method: row.method === method ? "auto" : row.method });
      /** @type {HTMLElement|null} */ (document.querySelector(`.view:not([hidden]) tr[data-method="${CSS.escape(row.method)}"] button`))?.focus();
    });
    return el(
      "tr",
      { "data-method": row.method, class: isTaken ? "taken" : null },
      el("th", { scope: "row" }, button, isTaken ? el("span", { class: "taken-sign" }, "auto takes it") : null),
      el("td", { class: "passes" }, passesOf(row.n_passes)),
      el("td", { class: "gain" }, ...gainOf(row.predicted_utility, at, row.method === "base")),
    );
  });
  return el(
    "table",
    { class: "method-table" },
    el("caption", { class: "hidden" }, "Methods: passes of the base model per token, and predicted gain over the base"),
    el("thead", { class: "hidden" }, el("tr", {}, ...["Method", "Passes per token", "Predicted gain"].map((text) => el("th", { scope: "col" }, text)))),
    el("tbody", {}, ...lines),
  );
}

/**
 * @param {import("./types.js").Gain|null} gain
 * @param {(value: number) => string} at
 * @param {boolean} isBase
 */
function gainOf(gain, at, isBase) {
  if (isBase) return [el("span", { class: "muted numbers" }, "what gains are measured from")];
  if (!gain) return [el("span", { class: "muted numbers" }, "not measured")];
  const interval = el("i", { class: "interval" });
  interval.style.left = at(gain.low);
  interval.style.right = `calc(100% - ${at(gain.high)})`;
  const mean = el("i", { class: "mean" });
  mean.style.left = at(gain.estimate);
  const zero = el("i", { class: "zero" });
  zero.style.left = at(0);
  return [
    el("div", { class: "bar", "aria-hidden": "true" }, zero, interval, mean),
    el("span", { class: "numbers" }, el("b", {}, signed(gain.estimate)), el("span", { class: "muted" }, ` ${gainRange(gain)}`)),
  ];
}

/** @param {import("./types.js").Gain} gain */
export const gainRange = (gain) => `${fixed(gain.low)} to ${fixed(gain.high)}`;

/** @param {import("./types.js").Methods} methods */
function noteOf({ n_prompts: n, self_judged: judged }) {
  if (n === 0) return "Passes of the base model per token. The methods of this library were not measured.";
  const but = judged.length > 0 ? ` (but for ${judged.join(", ")})` : "";
  return "Passes of the base model per token; gain over the base in reward, with its 95 % interval over " +
    `${n} prompts, judged by rewards that taught no expert${but}.`;
}
