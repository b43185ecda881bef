/** The question, the choices, and the answer as it streams. */

import { ApiError, streamChat } from "./api.js";
import { showAnswer } from "./answer.js";
import { compare, stopComparing } from "./compare.js";
import { ask, clear, goOn, keep, lastTurn, messages, nTurns, shorten } from "./conversation.js";
import { byId, el } from "./dom.js";
import { plural } from "./format.js";
import { aboutMethod, labelOf } from "./methods.js";
import { clearErrors, showError } from "./notices.js";
import { get, preference, set, watch } from "./state.js";

const LIVE_MS = 220; // after the last move of the point
const SAMPLES = ["Why is the sky blue?", "How can I sleep better?", "What is inflation?"];
const WORLD_SAMPLES = ["What is a desert fox?", "Explain the steam engine."];
/** @type {AbortController|null} */
let running = null;
/** @type {number|undefined} */
let timer;
let isLive = false; // whether the last turn is an answer, which follows the point

/** Wire the form; `showEmpty` is what stands there before the first answer. */
export function mountAsk() {
  byId("ask-form").addEventListener("submit", (event) => {
    event.preventDefault();
    if (running) stop();
    else send();
  });
  byId("compare-button").addEventListener("click", askForTwo);
  byId("new-button").addEventListener("click", () => {
    startAfresh();
    input("prompt").focus();
  });
  byId("prompt").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    send();
  });
  byId("method").addEventListener("change", () => set({ method: input("method").value }));
  byId("explain").addEventListener("change", () => isLive && answer());
  byId("instruction").addEventListener("input", renderSource);
  byId("instruction").addEventListener("change", later);
  watch(["library"], renderChoices);
  watch(["user", "source", "belief"], renderSource);
  watch(["shares"], () => get().source === "point" && later());
  watch(["method"], renderMethod);
  watch(["method"], later);
  let whose = get().user;
  watch(["user"], ({ user }) => {
    if (user !== whose) startAfresh(); // not where the same user was read again
    whose = user;
  });
  showEmpty();
}

/** A new conversation: an answer to one user is no other user's. */
function startAfresh() {
  stop();
  clear();
  isLive = false;
  showEmpty();
}

/** Stop what is being written, and keep what there is of it. */
export function stop() {
  clearTimeout(timer);
  stopComparing();
  running?.abort();
  if (running) keep();
  running = null;
  setBusy(false);
}

function later() {
  if (!isLive || !checked("live")) return;
  clearTimeout(timer);
  timer = setTimeout(() => answer({ keepsText: true }), LIVE_MS);
}

/** Answer what was typed; with nothing typed, the last question again. */
function send() {
  if (begin()) answer();
}

/** Whether there is a question: what was typed becomes the last turn. */
function begin() {
  const question = input("prompt").value.trim();
  if (!question && !lastTurn()) {
    input("prompt").focus();
    return false;
  }
  stop();
  if (question) {
    ask(question);
    input("prompt").value = "";
    showBegun();
  }
  return true;
}

function showBegun() {
  byId("samples").hidden = true;
  byId("new-button").hidden = false;
}

/**
 * After the page was loaded again: the conversation of before.
 *
 * @param {ReturnType<typeof import("./conversation.js").kept>} was
 */
export function goOnWith(was) {
  if (goOn(was)) showBegun();
}

/** @param {{keepsText?: boolean}} [options] `keepsText` until the new text starts: the point moved. */
async function answer({ keepsText = false } = {}) {
  const turn = lastTurn();
  if (!turn) return;
  stop();
  const control = new AbortController();
  running = control;
  isLive = true;
  clearErrors();
  setBusy(true);
  document.documentElement.classList.toggle("asking", !keepsText);
  const card = showAnswer(turn.body, { keepsText, again });
  try {
    for await (const chunk of streamChat(requestNow(), control.signal)) {
      turn.answer = card.take(chunk) || turn.answer;
    }
    turn.answer = card.finish();
    keep();
    if (!keepsText) byId("spoken").textContent = turn.answer;
  } catch (error) {
    card.stopped();
    if (control.signal.aborted) return; // whoever stopped it has kept it
    keep();
    if (error instanceof ApiError && error.code === "context_length_exceeded" && shorten()) answer();
    else showError(error, () => lastTurn() === turn && answer());
  } finally {
    if (running === control) {
      running = null;
      setBusy(false);
      document.documentElement.classList.remove("asking");
    }
  }
}

/** Another draw of the last answer. */
function again() {
  input("seed").value = String(numberOf("seed") + 1);
  answer();
}

async function askForTwo() {
  const { user } = get();
  if (!user) {
    byId("user-button").click();
    return;
  }
  if (!begin()) return;
  const turn = lastTurn();
  if (!turn) return;
  isLive = false; // the point moves on without replacing the two answers
  clearErrors();
  await compare(turn.body, {
    user,
    messages: messages(),
    max_tokens: numberOf("max-tokens"),
    temperature: numberOf("temperature"),
  }, {
    answerLearned,
    messages,
    shorten,
    chosen: (text) => {
      turn.answer = text;
      keep();
    },
  });
}

function answerLearned() {
  set({ source: "learned" });
  answer();
}

/** The conversation, and how it is to be answered. */
function requestNow() {
  const { user, source, method } = get();
  /** @type {Record<string, any>} */
  const palate = { method, explain: checked("explain") };
  if (user) palate.user = user;
  if (source === "point" || (source === "learned" && !user)) palate.preference = preference();
  if (input("strength").value !== "") palate.strength = numberOf("strength");
  if (input("n-candidates").value !== "") palate.n_candidates = numberOf("n-candidates");
  const instruction = input("instruction").value.trim();
  if (instruction) palate.instruction = instruction;
  return {
    model: "palate",
    messages: messages(),
    stream: true,
    stream_options: { include_usage: true },
    max_tokens: numberOf("max-tokens"),
    temperature: numberOf("temperature"),
    seed: numberOf("seed") + nTurns() - 1, // one draw would tempt a small model to repeat itself
    palate,
  };
}

function renderChoices() {
  const { library } = get();
  if (!library) return;
  byId("method").replaceChildren(
    ...library.methods.map((name) => el("option", { value: name }, labelOf(name))),
  );
  renderMethod();
  input("n-candidates").max = String(library.limits.max_candidates);
  input("max-tokens").max = String(library.limits.max_tokens);
  input("max-tokens").value = String(Math.min(120, library.limits.max_tokens));
  renderSamples(library.base.split("/").includes("world") ? WORLD_SAMPLES : SAMPLES);
  buildSources();
}

function renderMethod() {
  const { method } = get();
  input("method").value = method;
  byId("method-about").textContent = aboutMethod(method);
}

/** @param {string[]} questions To try. */
function renderSamples(questions) {
  byId("samples").replaceChildren(
    ...questions.map((text) => {
      const button = el("button", { type: "button", class: "chip" }, text);
      button.addEventListener("click", () => {
        input("prompt").value = text;
        send();
      });
      return button;
    }),
  );
}

function buildSources() {
  const follow = (/** @type {"point"|"words"|"learned"} */ source) => () => {
    set({ source });
    later();
  };
  byId("source-row").replaceChildren(
    segment("source", "point", "My point", "The preference of the point", true, follow("point")),
    segment("source", "words", "My words", "", false, follow("words")),
    segment("source", "learned", "What was learned", "", false, follow("learned")),
  );
  renderSource();
}

function renderSource() {
  const { user, source, belief } = get();
  const hasWords = input("instruction").value.trim() !== "";
  if (source === "words" && !hasWords) {
    set({ source: "point" }); // which comes back here
    return;
  }
  const about = {
    words: [hasWords, hasWords ? "What you wrote, without the point" : "Write what you want first"],
    learned: [user !== null, user
      ? `Rests on ${plural(belief?.n_feedback ?? 0, "verdict")} of ${user}`
      : "Choose a user first"],
  };
  for (const radio of byId("source-row").querySelectorAll("input")) {
    radio.checked = radio.value === source;
    if (radio.value !== "words" && radio.value !== "learned") continue;
    const [isThere, title] = about[radio.value];
    radio.disabled = !isThere;
    /** @type {HTMLElement} */ (radio.parentElement).title = String(title);
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
  byId("samples").hidden = false;
  byId("new-button").hidden = true;
  byId("result").replaceChildren(
    el("div", { class: "empty" },
      el("p", { class: "empty-title" }, "Nothing asked yet"),
      el("p", {}, "Ask a question, then drag the point: the answer follows. Ask on, and the model reads " +
        "what was said. With a user chosen, two answers can be compared, and palate learns from the verdict.")),
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
  const whole = field.step === "1" ? Math.round(value) : value;
  return Math.min(high, Math.max(low, whole));
}
