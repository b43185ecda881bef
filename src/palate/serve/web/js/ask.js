/** The question, the choices, and the answer as it streams. */

import { streamChat } from "./api.js";
import { showAnswer } from "./answer.js";
import { compare } from "./compare.js";
import { byId, el } from "./dom.js";
import { plural } from "./format.js";
import { clearErrors, showError } from "./notices.js";
import { get, preference, set, watch } from "./state.js";

const LIVE_MS = 220; // after the last move of the point
const SAMPLES = ["What is a desert fox?", "Explain the steam engine."];
/** @type {Record<string, [string, string]>} Label and description; others go by their name. */
const METHODS = {
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

/** @type {AbortController|null} */
let running = null;
/** @type {number|undefined} */
let timer;
let hasAnswered = false;

/** Wire the form; `showEmpty` is what stands there before the first answer. */
export function mountAsk() {
  byId("ask-form").addEventListener("submit", (event) => {
    event.preventDefault();
    if (running) stop();
    else answer();
  });
  byId("compare-button").addEventListener("click", askForTwo);
  byId("prompt").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    answer();
  });
  byId("method").addEventListener("change", () => set({ method: input("method").value }));
  byId("explain").addEventListener("change", () => hasAnswered && answer());
  watch(["library"], renderChoices);
  watch(["user", "source", "belief"], renderSource);
  watch(["shares"], () => get().source === "point" && later());
  watch(["method"], renderMethod);
  watch(["method"], later);
  watch(["user"], startAfresh);
  showEmpty();
}

/** An answer to one user is no other user's. */
function startAfresh() {
  stop();
  hasAnswered = false;
  showEmpty();
}

/** Stop what is being written. */
export function stop() {
  clearTimeout(timer);
  running?.abort();
  running = null;
  setBusy(false);
}

function later() {
  if (!hasAnswered || !checked("live")) return;
  clearTimeout(timer);
  timer = setTimeout(() => answer({ isLive: true }), LIVE_MS);
}

/** @param {{isLive?: boolean}} [options] */
async function answer({ isLive = false } = {}) {
  const prompt = input("prompt").value.trim();
  if (!prompt) {
    input("prompt").focus();
    return;
  }
  stop();
  const control = new AbortController();
  running = control;
  hasAnswered = true;
  clearErrors();
  setBusy(true);
  const card = showAnswer(byId("result"), { keepsText: isLive });
  try {
    for await (const chunk of streamChat(requestFor(prompt), control.signal)) card.take(chunk);
    card.finish();
  } catch (error) {
    card.stopped();
    if (!control.signal.aborted) showError(error, () => answer());
  } finally {
    if (running === control) {
      running = null;
      setBusy(false);
    }
  }
}

async function askForTwo() {
  const prompt = input("prompt").value.trim();
  const { user } = get();
  if (!user) {
    byId("user-button").click();
    return;
  }
  if (!prompt) {
    input("prompt").focus();
    return;
  }
  stop();
  hasAnswered = false; // the point moves on without replacing the two answers
  clearErrors();
  await compare(byId("result"), {
    user,
    messages: [{ role: "user", content: prompt }],
    max_tokens: numberOf("max-tokens"),
    temperature: numberOf("temperature"),
  }, answerLearned);
}

function answerLearned() {
  set({ source: "learned" });
  answer();
}

/** @param {string} prompt */
function requestFor(prompt) {
  const { user, source, method } = get();
  /** @type {Record<string, any>} */
  const palate = { method, explain: checked("explain") };
  if (user) palate.user = user;
  if (source === "point" || !user) palate.preference = preference();
  if (input("strength").value !== "") palate.strength = numberOf("strength");
  if (input("n-candidates").value !== "") palate.n_candidates = numberOf("n-candidates");
  const instruction = input("instruction").value.trim();
  if (instruction) palate.instruction = instruction;
  return {
    model: "palate",
    messages: [{ role: "user", content: prompt }],
    stream: true,
    stream_options: { include_usage: true },
    max_tokens: numberOf("max-tokens"),
    temperature: numberOf("temperature"),
    seed: numberOf("seed"),
    palate,
  };
}

function renderChoices() {
  const { library } = get();
  if (!library) return;
  byId("method").replaceChildren(
    ...library.methods.map((name) => el("option", { value: name }, METHODS[name]?.[0] ?? name)),
  );
  renderMethod();
  input("n-candidates").max = String(library.limits.max_candidates);
  input("max-tokens").max = String(library.limits.max_tokens);
  input("max-tokens").value = String(Math.min(120, library.limits.max_tokens));
  renderSamples(library.base.split("/").includes("world"));
  buildSources();
}

function renderMethod() {
  const { method } = get();
  input("method").value = method;
  byId("method-about").textContent = METHODS[method]?.[1] ?? "";
}

/** @param {boolean} isWorld Whether the base is the small one that comes with palate. */
function renderSamples(isWorld) {
  byId("samples").hidden = !isWorld;
  byId("samples").replaceChildren(
    ...SAMPLES.map((text) => {
      const button = el("button", { type: "button", class: "chip" }, text);
      button.addEventListener("click", () => {
        input("prompt").value = text;
        answer();
      });
      return button;
    }),
  );
}

function buildSources() {
  const follow = (/** @type {"point"|"learned"} */ source) => () => {
    set({ source });
    later();
  };
  byId("source-row").replaceChildren(
    segment("source", "point", "My point", "The preference of the point", true, follow("point")),
    segment("source", "learned", "What was learned", "", false, follow("learned")),
  );
  renderSource();
}

function renderSource() {
  const { user, source, belief } = get();
  for (const radio of byId("source-row").querySelectorAll("input")) {
    radio.checked = radio.value === source;
    if (radio.value !== "learned") continue;
    radio.disabled = !user;
    const label = /** @type {HTMLElement} */ (radio.parentElement);
    label.title = user
      ? `Rests on ${plural(belief?.n_feedback ?? 0, "verdict")} of ${user}`
      : "Choose a user first";
  }
}

/**
 * @param {string} group
 * @param {string} value
 * @param {string} label
 * @param {string} about
 * @param {boolean} isChosen
 * @param {() => void} choose
 */
function segment(group, value, label, about, isChosen, choose) {
  const radio = el("input", { type: "radio", name: group, value });
  radio.checked = isChosen;
  radio.addEventListener("change", choose);
  return el("label", { class: "segment", title: about }, radio, el("span", {}, label));
}

function showEmpty() {
  byId("result").replaceChildren(
    el("div", { class: "empty" },
      el("p", { class: "empty-title" }, "Nothing asked yet"),
      el("p", {}, "Ask a question, then drag the point: the answer follows. " +
        "With a user chosen, two answers can be compared, and palate learns from the verdict.")),
  );
}

/** @param {boolean} isBusy */
function setBusy(isBusy) {
  byId("answer-button").textContent = isBusy ? "Stop" : "Answer";
  byId("result").setAttribute("aria-busy", String(isBusy));
}

/** @param {string} id */
const input = (id) => /** @type {HTMLInputElement} */ (byId(id));

/** @param {string} id */
const checked = (id) => input(id).checked;

/**
 * The number in a field, within its bounds; its default where there is none.
 *
 * @param {string} id
 */
function numberOf(id) {
  const field = input(id);
  const value = field.value === "" ? NaN : field.valueAsNumber;
  if (Number.isNaN(value)) return Number(field.defaultValue);
  const low = field.min === "" ? -Infinity : Number(field.min);
  const high = field.max === "" ? Infinity : Number(field.max);
  return Math.min(high, Math.max(low, value));
}
