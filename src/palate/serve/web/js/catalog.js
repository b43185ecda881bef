/** The library's page: its experts with sample answers, its portfolio and the certificate. */

import { ApiError, getMethods, streamChat } from "./api.js";
import { byId, el } from "./dom.js";
import { bytes, fixed, percent, plural, sharesInWords, signed } from "./format.js";
import { swatch } from "./hatches.js";
import { memberName } from "./members.js";
import { gainRange } from "./methods.js";
import { showError } from "./notices.js";
import { lookOf } from "./palette.js";
import { get, watch } from "./state.js";

const MAX_TOKENS = 80; // of a sample answer

/** Fill the page when the library is known. */
export function mountCatalog() {
  watch(["library"], render);
}

function render() {
  const { library } = get();
  if (!library) return;
  const size = library.experts.reduce((sum, expert) => sum + expert.size_bytes, 0);
  byId("library-about").textContent =
    `${plural(library.experts.length, "expert")}, ${bytes(size)} together, on the base ${library.base.split("/").pop()}; ` +
    `${plural(library.objectives.length, "objective")}. Version ${library.fingerprint}.`;
  byId("experts").replaceChildren(
    ...library.experts.map((expert) => expertCard(expert)),
    sampleCard("base", "The shared model without any expert.", [], ""),
  );
  byId("portfolio").replaceChildren(...portfolioOf(library));
  loadGains(library);
}

/** @param {import("./types.js").Expert} expert */
function expertCard({ name, wanted, size_bytes: size, card }) {
  const parts = Object.entries(wanted).filter(([, share]) => share !== 0);
  const about = parts.length === 1
    ? get().library?.objectives.find((objective) => objective.name === parts[0][0])?.description ?? ""
    : "";
  const direction = isShares(wanted)
    ? sharesInWords(wanted)
    : parts.map(([objective, share]) => `${objective} ${signed(share)}`).join(", ");
  return sampleCard(name, about, [["Trained for", direction], ["Size", bytes(size)], ["Gain alone", "…"]], card);
}

/**
 * @param {string} name
 * @param {string} about
 * @param {[string, string][]} facts
 * @param {string} card Markdown.
 */
function sampleCard(name, about, facts, card) {
  const answer = el("p", { class: "sample-answer", role: "status" });
  const button = el("button", { type: "button", class: "small" }, "Show an answer");
  button.setAttribute("aria-label", `Show an answer of ${name}`);
  button.addEventListener("click", () => sample(name, answer, button));
  return el(
    "article",
    { class: "card expert", "data-name": name, "aria-label": `Expert ${name}` },
    el("h3", { class: "named" }, swatch(lookOf(name)), name),
    about ? el("p", { class: "muted" }, about) : null,
    facts.length > 0
      ? el("dl", { class: "facts" }, ...facts.flatMap(([label, text]) => [el("dt", {}, label), el("dd", {}, text)]))
      : null,
    button,
    answer,
    card ? el("details", {}, el("summary", {}, "Model card"), el("pre", { tabindex: 0 }, card)) : null,
  );
}

/**
 * The answer of one expert alone to the question of the page.
 *
 * @param {string} name
 * @param {HTMLElement} host
 * @param {HTMLButtonElement} button
 */
async function sample(name, host, button) {
  const content = /** @type {HTMLInputElement} */ (byId("sample-question")).value.trim();
  if (!content) {
    byId("sample-question").focus();
    return;
  }
  const { library } = get();
  const palate = name === "base" ? { method: "base" } : { method: "soup", coefficients: { [name]: 1 } };
  const request = {
    model: "palate",
    messages: [{ role: "user", content }],
    stream: true,
    max_tokens: Math.min(MAX_TOKENS, library?.limits.max_tokens ?? MAX_TOKENS),
    temperature: 0,
    palate,
  };
  button.disabled = true;
  host.textContent = "…";
  let text = "";
  try {
    for await (const chunk of streamChat(request, new AbortController().signal)) {
      text += chunk.choices?.[0]?.delta?.content ?? "";
      if (text) host.textContent = text;
    }
    if (!text) host.textContent = "(an empty answer)";
  } catch (error) {
    host.textContent = "";
    showError(error, () => sample(name, host, button));
  } finally {
    button.disabled = false;
  }
}

/** @param {Record<string, number>} wanted */
function isShares(wanted) {
  const shares = Object.values(wanted);
  return shares.every((share) => share >= 0) && Math.abs(shares.reduce((a, b) => a + b, 0) - 1) < 1e-6;
}

/**
 * What each expert gains alone, for whoever wants just what it was trained for.
 *
 * @param {import("./types.js").Library} library
 */
async function loadGains({ experts }) {
  const plain = experts.filter(({ wanted }) => isShares(wanted));
  /** @type {Map<string, string>} */
  const texts = new Map();
  try {
    for (let k = 0; k < plain.length; k += 64) {
      const some = plain.slice(k, k + 64);
      const { points } = await getMethods(some.map(({ wanted }) => wanted), new AbortController().signal);
      some.forEach(({ name }, j) => {
        const gain = points[j].find(({ method }) => method === "soup")?.predicted_utility;
        if (gain) texts.set(name, `${signed(gain.estimate)} reward (${gainRange(gain)})`);
      });
    }
  } catch (error) {
    if (!(error instanceof ApiError)) throw error; // the cards do without
  }
  for (const { name } of experts) {
    const value = byId("experts").querySelector(`[data-name="${CSS.escape(name)}"] dd:last-of-type`);
    if (value) value.textContent = texts.get(name) ?? "not measured";
  }
}

/** @param {import("./types.js").Library} library */
function portfolioOf({ portfolio, objectives }) {
  if (!portfolio) return [el("p", { class: "muted" }, "This library has no portfolio: nothing is certified.")];
  const { members, certificate } = portfolio;
  const names = objectives.map(({ name }) => name);
  const best = names.map((name) => Math.max(...members.map(({ values }) => values[name])));
  const rows = members.map(({ name, values }) =>
    el("tr", {},
      el("th", { scope: "row" }, el("span", { class: "named" }, swatch(lookOf(name)), memberName(name))),
      ...names.map((objective, k) =>
        el("td", {}, el(values[objective] === best[k] ? "b" : "span", {}, fixed(values[objective]))))));
  const head = ["Member", ...names].map((text) => el("th", { scope: "col" }, text));
  /** @type {[string, string][]} */
  const facts = [
    ["Largest loss", certificate.additive_gap === null
      ? "unknown: every listed policy is a member"
      : `${fixed(certificate.additive_gap, 3)} reward, ${percent(certificate.confidence)} sure`],
    ["Worst served", sharesInWords(certificate.worst_preference) || "–"],
    ["Compared with", certificate.kind === "candidate-relative" ? "the listed policies only" : "any policy"],
  ];
  return [
    el("p", { class: "muted" },
      "What each member is worth to each objective at least, in reward. The best of a column is bold."),
    el("div", { class: "wide-table", role: "region", "aria-label": "Members of the portfolio", tabindex: 0 },
      el("table", { class: "members" },
        el("thead", {}, el("tr", {}, ...head)),
        el("tbody", {}, ...rows))),
    el("h3", {}, "Certificate"),
    el("dl", { class: "facts" }, ...facts.flatMap(([label, text]) => [el("dt", {}, label), el("dd", {}, text)])),
    el("p", { class: "muted small-print" }, "It holds if:"),
    el("ul", { class: "assumptions muted small-print" }, ...certificate.assumptions.map((text) => el("li", {}, text))),
  ];
}
