/**
 * The heat map of who wrote what: each token by the expert with the largest part in it, shown by hue,
 * underline and words. What the base wrote alone stays plain.
 */

import { el } from "./dom.js";
import { fixed, percent } from "./format.js";
import { lookOf } from "./palette.js";

const MIN_SHARE = 0.05; // below it an expert had no part worth painting
const MAX_ALPHA = 0.5; // of a hue behind text, so that the text keeps its contrast

const SPLIT = "\ufffd"; // in the text of a token that holds a part of a character

/**
 * The tokens with those that share a character put together: the character is in the answer's text,
 * their log-probabilities are summed, and what each expert wrote of them is averaged.
 *
 * @param {import("./types.js").Token[]} tokens
 * @param {string} text Of the answer.
 */
export function whole(tokens, text) {
  /** @type {import("./types.js").Token[]} */
  const merged = [];
  let at = 0; // in the text
  for (let start = 0, end = 1; start < tokens.length; start = end, end += 1) {
    const isSplit = tokens[start].text.includes(SPLIT);
    while (isSplit && tokens[end]?.text.includes(SPLIT)) end += 1;
    const run = tokens.slice(start, end);
    const next = end < tokens.length ? text.indexOf(tokens[end].text, at) : text.length;
    if (!isSplit || next < at) {
      merged.push(...run);
      at += run.reduce((n, token) => n + token.text.length, 0);
      continue;
    }
    /** @type {Record<string, number>} */
    const wrote = {};
    for (const token of run) {
      for (const [name, share] of Object.entries(token.wrote)) {
        wrote[name] = (wrote[name] ?? 0) + share / run.length;
      }
    }
    const logProb = run.reduce((sum, token) => sum + token.log_prob, 0);
    merged.push({ text: text.slice(at, next), log_prob: logProb, wrote });
    at = next;
  }
  return merged;
}

/**
 * The text as tokens, with a legend and a line that explains the token at hand.
 *
 * @param {import("./types.js").Token[]} tokens
 */
export function heatMap(tokens) {
  const readout = el("p", { class: "heat-readout", role: "status" }, "Point at a word, or use the arrow keys.");
  const text = el("p", {
    class: "answer-text heat",
    role: "toolbar",
    "aria-label": "The answer, token by token",
  });
  const marks = tokens.map((token, k) => markOf(token, k));
  tokens.forEach((token, k) => {
    const space = /^\s+(?=\S)/.exec(token.text)?.[0] ?? ""; // outside, so that lines break there
    text.append(space, marks[k]);
  });
  const tell = (/** @type {number} */ k) => {
    marks.forEach((mark, j) => mark.classList.toggle("current", j === k));
    readout.replaceChildren(...explained(tokens[k]));
  };
  marks.forEach((mark, k) => {
    mark.addEventListener("pointerenter", () => tell(k));
    mark.addEventListener("focus", () => tell(k));
  });
  text.addEventListener("keydown", (event) => rove(event, marks));
  return el("div", { class: "heat-map" }, text, readout, legendOf(tokens));
}

/**
 * @param {import("./types.js").Token} token
 * @param {number} k
 */
function markOf(token, k) {
  const [writer, share] = mainWriter(token);
  const look = lookOf(writer);
  const mark = el(
    "span", // a button element would let lines break inside words
    {
      role: "button",
      class: `token ${look.hue} ${look.underline}`,
      tabindex: k === 0 ? 0 : -1,
      "aria-label": `${token.text.trim() || "space"}: ${writer} ${percent(share)}`,
    },
    token.text.trimStart() || token.text,
  );
  mark.style.setProperty("--alpha", `${(share * MAX_ALPHA * 100).toFixed(1)}%`);
  return mark;
}

/**
 * Left and right go from token to token.
 *
 * @param {KeyboardEvent} event
 * @param {HTMLElement[]} marks
 */
function rove(event, marks) {
  const now = marks.findIndex((mark) => mark === document.activeElement);
  /** @type {Record<string, number>} */
  const targets = {
    ArrowLeft: now - 1,
    ArrowRight: now + 1,
    Home: 0,
    End: marks.length - 1,
  };
  const next = marks[targets[event.key]];
  if (now < 0 || !next) return;
  event.preventDefault();
  marks[now].tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
}

/** @param {import("./types.js").Token} token */
function explained(token) {
  const writers = Object.entries(token.wrote)
    .filter(([, share]) => share >= 0.005)
    .sort((a, b) => b[1] - a[1])
    .flatMap(([name, share], k) => [k ? ", " : " ", el("b", {}, name), ` ${percent(share)}`]);
  const probability = Math.exp(token.log_prob);
  const likely = probability < 0.01 ? "<\u202f1\u202f%" : percent(probability);
  return [
    el("q", {}, token.text.trim() || "␣"),
    ...writers,
    el("span", { class: "muted" }, ` · probability ${likely}, log ${fixed(token.log_prob)}`),
  ];
}

/** @param {import("./types.js").Token[]} tokens */
function legendOf(tokens) {
  /** @type {Map<string, number>} */
  const totals = new Map();
  for (const token of tokens) {
    for (const [name, share] of Object.entries(token.wrote)) {
      totals.set(name, (totals.get(name) ?? 0) + share / tokens.length);
    }
  }
  const items = [...totals]
    .filter(([, share]) => share >= 0.005)
    .sort((a, b) => b[1] - a[1])
    .map(([name, share]) => {
      const look = lookOf(name);
      const sample = el("span", { class: `token sample ${look.hue} ${look.underline}`, "aria-hidden": "true" }, "ab");
      sample.style.setProperty("--alpha", `${MAX_ALPHA * 100}%`);
      return el("li", {}, sample, name, el("span", { class: "muted" }, ` ${percent(share)}`));
    });
  return el(
    "div",
    { class: "heat-legend" },
    el("ul", { class: "legend", "aria-label": "Who wrote the answer" }, ...items),
    el("p", { class: "muted small-print" },
      "Colour and underline name the expert with the largest part in a token; the stronger the " +
        "colour, the larger the part. Plain words are the base model's."),
  );
}

/**
 * The expert with the largest part in a token; the base where no expert has one.
 *
 * @param {import("./types.js").Token} token
 * @returns {[string, number]}
 */
function mainWriter(token) {
  const experts = Object.entries(token.wrote).filter(([name]) => name !== "base");
  const [name, share] = experts.reduce((best, pair) => (pair[1] > best[1] ? pair : best), ["base", 0]);
  return share >= MIN_SHARE ? [name, share] : ["base", token.wrote.base ?? 0];
}
