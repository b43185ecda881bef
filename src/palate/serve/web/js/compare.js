/** Two answers side by side; the verdict teaches. */

import { ApiError, askQuestion } from "./api.js";
import { el } from "./dom.js";
import { learn } from "./feedback.js";
import { fixed, signed } from "./format.js";
import { showError } from "./notices.js";
import { get, watch } from "./state.js";

const MAX_MOVES = 3; // that are named after a verdict

/** @typedef {{answerLearned: () => void, chosen: (text: string) => void, messages: () => object[], shorten: () => boolean}} Then */
/** @typedef {Then & {again: () => void}} Next What can be done after a verdict. */

/** @type {AbortController|null} */
let running = null;

/** Forget a question that is under way when the user changes. */
export function mountCompare() {
  watch(["user"], stopComparing);
}

/** Forget a question that is under way. */
export const stopComparing = () => running?.abort();

/**
 * Fetch the two answers most worth comparing and show them.
 *
 * @param {HTMLElement} host
 * @param {{user: string, messages: object[], max_tokens: number, temperature: number}} request
 * @param {Then} then `chosen` takes the answer that the conversation goes on with: what one would
 *   get now, until there is a verdict; `messages` are the conversation after `shorten` has let its
 *   oldest turn go, where it has become too long.
 */
export async function compare(host, request, then) {
  if (!host.isConnected || host.closest(".past")) return; // of another conversation or an older turn
  stopComparing();
  running = new AbortController();
  const { signal } = running;
  host.setAttribute("aria-busy", "true");
  const { node, stop } = waiting();
  host.replaceChildren(node);
  try {
    const seed = crypto.getRandomValues(new Uint32Array(1))[0];
    const question = await askQuestion({ ...request, seed }, signal);
    const again = () => compare(host, request, then);
    host.replaceChildren(pair(question, { again, ...then }));
    const [now] = question.answers.filter(({ source }) => source === "now");
    then.chosen((now ?? question.answers[0]).text);
    host.querySelector("h3")?.focus();
  } catch (error) {
    node.remove();
    if (signal.aborted) return;
    if (error instanceof ApiError && error.code === "context_length_exceeded" && then.shorten()) {
      await compare(host, { ...request, messages: then.messages() }, then);
    } else {
      showError(error, () => compare(host, request, then));
    }
  } finally {
    stop();
    if (running?.signal === signal) host.setAttribute("aria-busy", "false");
  }
}

/** What stands there meanwhile, and what stops its clock. */
function waiting() {
  const started = performance.now();
  const clock = el("span", { "aria-hidden": "true" });
  const timer = setInterval(() => {
    clock.textContent = ` ${Math.round((performance.now() - started) / 1000)} s`;
  }, 1000);
  const lines = () =>
    el("div", { class: "card choice skeleton", "aria-hidden": "true" }, el("span"), el("span"), el("span"));
  const node = el("div", {},
    el("p", { class: "muted" },
      el("span", { role: "status" }, "Several answers are written, and the two most worth comparing are shown …"), clock),
    el("div", { class: "pair" }, lines(), lines()));
  return { node, stop: () => clearInterval(timer) };
}

/**
 * @param {import("./types.js").Question} question
 * @param {Next} next
 */
function pair(question, next) {
  const cards = question.answers.map((answer, k) =>
    el(
      "article",
      { class: "card choice", "aria-label": `Answer ${"AB"[k]}` },
      el("p", { class: "choice-letter", "aria-hidden": "true" }, "AB"[k]),
      el("p", { class: "answer-text" }, answer.text || "(an empty answer)"),
      el("p", { class: "choice-source muted" }),
    ),
  );
  const after = el("div", { class: "verdict-after" });
  /** @type {[string, 0|1|"tie"][]} */
  const verdicts = [["A is better", 0], ["As good as each other", "tie"], ["B is better", 1]];
  const buttons = verdicts.map(([label, preferred]) => {
    const button = el("button", { type: "button" }, label);
    button.addEventListener("click", async () => {
      for (const other of buttons) other.disabled = true;
      try {
        await learn({ response: question.response, kind: "comparison", preferred });
        reveal(question, cards, preferred);
        if (preferred !== "tie") next.chosen(question.answers[preferred].text);
        button.classList.add("chosen");
        after.replaceChildren(...thanks(next));
        /** @type {HTMLElement|null} */ (after.querySelector("button"))?.focus();
      } catch (error) {
        for (const other of buttons) other.disabled = false;
        showError(error, () => button.click());
      }
    });
    return button;
  });
  return el(
    "section",
    { class: "question", "aria-labelledby": "question-title" },
    el("h3", { id: "question-title", tabindex: -1 }, "Which answer do you like more?"),
    el("div", { class: "pair" }, ...cards),
    el("div", { class: "verdicts", role: "group", "aria-label": "Your verdict" }, ...buttons),
    el("p", { class: "muted small-print" },
      `The verdict is expected to tell ${fixed(question.information_nats, 3)} nats; two answers can tell ${fixed(Math.LN2, 3)} at most.`),
    after,
  );
}

/**
 * Say where the answers came from, once it can no longer sway anybody.
 *
 * @param {import("./types.js").Question} question
 * @param {HTMLElement[]} cards
 * @param {0|1|"tie"} preferred
 */
function reveal(question, cards, preferred) {
  cards.forEach((card, k) => {
    card.classList.toggle("preferred", preferred === k);
    const line = card.querySelector(".choice-source");
    if (line) line.textContent = inWords(question.answers[k].source);
  });
}

/**
 * Where an answer came from: what the user would get now, the base, an expert, or a sampled soup.
 *
 * @param {string} source
 */
function inWords(source) {
  if (source === "now") return "What you would get now.";
  if (source === "base") return "The base model, without any expert.";
  if (get().library?.experts.some(({ name }) => name === source)) return `The expert “${source}” alone.`;
  const draw = /^draw (\d+)$/.exec(source);
  return draw ? `A soup sampled from the belief (draw ${draw[1]}).` : source;
}

/** @param {Next} next */
function thanks({ again, answerLearned }) {
  const { belief, before } = get();
  const line = el("p", { role: "status" }, `Learned from. ${movesInWords(before, belief)}`);
  const more = el("button", { type: "button", class: "primary" }, "Next two");
  more.addEventListener("click", again);
  const row = el("div", { class: "row" }, more);
  if (belief?.learning === "applied") {
    const use = el("button", { type: "button" }, "Answer with what was learned");
    use.addEventListener("click", answerLearned);
    row.append(use);
  }
  return [line, row];
}

/**
 * The objectives whose belief moved most.
 *
 * @param {import("./types.js").Belief|null} before
 * @param {import("./types.js").Belief|null} now
 */
function movesInWords(before, now) {
  const moves = (now?.objectives ?? [])
    .map(({ name, mean }) => {
      const old = before?.objectives.find((estimate) => estimate.name === name);
      return { name, move: mean - (old?.mean ?? 0) };
    })
    .filter(({ move }) => Math.abs(move) >= 0.005)
    .sort((a, b) => Math.abs(b.move) - Math.abs(a.move))
    .slice(0, MAX_MOVES);
  if (moves.length === 0) return "The belief did not move.";
  return `Moved: ${moves.map(({ name, move }) => `${name} ${signed(move)}`).join(", ")}.`;
}
