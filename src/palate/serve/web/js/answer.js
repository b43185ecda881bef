/** One answer: its text as it streams, how it came about, and what the user says of it. */

import { el, icon } from "./dom.js";
import { feedbackRow } from "./feedback.js";
import { fixed, plural, signed } from "./format.js";
import { heatMap, whole } from "./heat.js";
import { swatch } from "./hatches.js";
import { say } from "./notices.js";
import { passesOf } from "./methods.js";
import { lookOf } from "./palette.js";
import { get } from "./state.js";

let isHowOpen = true; // as the last card was left

/**
 * A card that takes the chunks of a stream.
 *
 * @param {HTMLElement} host
 * @param {{keepsText: boolean, again: () => void}} options `keepsText` leaves the last answer until
 *   the new one starts; `again` answers once more.
 */
export function showAnswer(host, { keepsText, again }) {
  const parts = cardIn(host, keepsText);
  const started = performance.now();
  /** @type {import("./types.js").Origin|null} */
  let origin = null;
  /** @type {import("./types.js").Token[]|null} */
  let tokens = null;
  let text = "";
  let firstAt = 0;
  let nTokens = 0;

  return {
    /**
     * The text so far, with this chunk's.
     *
     * @param {any} chunk
     */
    take(chunk) {
      if (chunk.palate) {
        origin = /** @type {import("./types.js").Origin} */ (chunk.palate);
        renderOrigin(parts, origin);
        if (origin.is_waiting) parts.timing.textContent = `best of ${origin.n_candidates} …`;
      }
      if (chunk.usage) nTokens = chunk.usage.completion_tokens;
      const choice = chunk.choices?.[0];
      if (choice?.palate) tokens = choice.palate.tokens;
      if (choice?.delta?.content) {
        if (!firstAt) firstAt = performance.now();
        text += choice.delta.content;
        parts.text.textContent = text;
      }
      return text;
    },
    /** The text, now that it is whole. */
    finish() {
      parts.card.classList.remove("streaming");
      parts.text.textContent = text || "(an empty answer)";
      if (tokens && tokens.length > 0) parts.body.replaceChildren(heatMap(whole(tokens, text)));
      renderTiming(parts.timing, { started, firstAt, nTokens });
      if (origin) renderFeedback(parts.foot, origin, text, again);
      return text;
    },
    /** No more of it comes. */
    stopped() {
      parts.card.classList.remove("streaming");
      parts.timing.textContent = "stopped";
    },
  };
}

/**
 * @typedef {object} Parts
 * @property {HTMLElement} card
 * @property {HTMLElement} head
 * @property {HTMLElement} body
 * @property {HTMLElement} text
 * @property {HTMLElement} timing
 * @property {HTMLElement} reason
 * @property {HTMLElement} foot
 */

/**
 * @param {HTMLElement} host
 * @param {boolean} keepsText
 * @returns {Parts}
 */
function cardIn(host, keepsText) {
  const old = keepsText ? host.querySelector(".answer-text")?.textContent : "";
  const text = el("p", { class: "answer-text" }, old ?? "");
  const head = el("div", { class: "answer-head" });
  const timing = el("p", { class: "timing" });
  const body = el("div", { class: "answer-body" }, text);
  const reason = el("div", { class: "reason" });
  const summary = el("summary", {}, "How it came about");
  const how = el("details", { class: "how" }, summary, reason);
  how.open = isHowOpen;
  summary.addEventListener("click", () => {
    isHowOpen = !how.open; // it is about to change
  });
  const foot = el("div", { class: "answer-foot" });
  const top = el("div", { class: "answer-top" }, head, timing);
  const card = el("article", { class: "card answer streaming", "aria-label": "Answer" });
  card.append(top, body, how, foot);
  host.replaceChildren(card);
  return { card, head, body, text, timing, reason, foot };
}

/**
 * @param {Parts} parts
 * @param {import("./types.js").Origin} origin
 */
function renderOrigin(parts, origin) {
  const largest = Math.max(1e-9, ...Object.values(origin.coefficients).map(Math.abs));
  const bars = Object.entries(origin.coefficients)
    .filter(([, value]) => Math.abs(value) > 0.005)
    .sort((a, b) => Math.abs(b[1]) - Math.abs(a[1]))
    .map(([name, value]) => {
      const bar = el("span", { class: `coefficient-bar ${lookOf(name).hue}` });
      bar.style.width = `${(Math.abs(value) / largest) * 100}%`;
      if (value < 0) bar.classList.add("negative");
      return el(
        "li",
        { class: "coefficient" },
        el("span", { class: "named" }, swatch(lookOf(name)), name),
        el("span", { class: "coefficient-track", "aria-hidden": "true" }, bar),
        el("span", { class: "coefficient-value" }, signed(value)),
      );
    });
  parts.head.replaceChildren(
    el("span", { class: "badge" }, origin.method),
    ...quietLabels(origin).map((label) => el("span", { class: "badge badge-quiet" }, label)),
  );
  parts.reason.replaceChildren(el("p", {}, origin.reason));
  if (bars.length > 0) {
    parts.reason.append(el("ul", { class: "coefficients", "aria-label": "Coefficients" }, ...bars));
  }
}

/**
 * What is known of the answer besides its method, in a few words each.
 *
 * @param {import("./types.js").Origin} origin
 */
function quietLabels(origin) {
  const labels = [];
  const { predicted_utility: utility, certified_loss: loss, lead } = origin;
  labels.push(`${passesOf(origin.n_passes)} a token`);
  if (utility) {
    labels.push(`${signed(utility.estimate)} over the base [${fixed(utility.low)}, ${fixed(utility.high)}]`);
  }
  if (loss !== null) labels.push(`loses at most ${fixed(loss, 3)}`);
  if (lead !== null) labels.push(`best of ${origin.n_candidates}, ahead by ${fixed(lead, 3)}`);
  if (origin.learning !== "nothing") {
    labels.push(origin.learning === "applied" ? "learned preference used" : "learning, not used yet");
  }
  return labels;
}

/**
 * @param {HTMLElement} host
 * @param {{started: number, firstAt: number, nTokens: number}} times Milliseconds.
 */
function renderTiming(host, { started, firstAt, nTokens }) {
  const seconds = (performance.now() - (firstAt || started)) / 1000;
  const words = [plural(nTokens, "token")];
  if (firstAt) words.push(`first after ${Math.round(firstAt - started)} ms`);
  if (nTokens > 1 && seconds > 0.05) words.push(`${Math.round((nTokens - 1) / seconds)} per s`);
  host.textContent = words.join(" · ");
}

/**
 * @param {HTMLElement} host
 * @param {import("./types.js").Origin} origin
 * @param {string} text
 * @param {() => void} again
 */
function renderFeedback(host, origin, text, again) {
  const copy = el("button", { type: "button", class: "plain", title: "Copy", "aria-label": "Copy the answer" });
  copy.append(icon("copy"));
  copy.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text); // which is not there over plain HTTP
      say("Copied.");
    } catch {
      say("The browser lets nothing be copied here; select the text instead.");
    }
  });
  const more = el("button", { type: "button", class: "plain", title: "Answer again", "aria-label": "Answer again, by another draw" });
  more.append(icon("reset"));
  more.addEventListener("click", again);
  const row =
    origin.response && origin.user === get().user
      ? feedbackRow(origin.response)
      : el("p", { class: "muted" }, "Choose a user to say what you think of this answer.");
  host.replaceChildren(row, el("div", { class: "row" }, more, copy));
}
