/** The conversation: its turns, oldest first, and what of it the model reads. */

import { byId, el } from "./dom.js";
import { get } from "./state.js";

/**
 * @typedef {object} Turn
 * @property {string} question
 * @property {string} answer Empty while there is none: the model does not read the turn then.
 * @property {HTMLElement} host
 * @property {HTMLElement} body Where answers are shown.
 */

const KEPT = "palate.conversation"; // of the session's storage: closing the tab forgets it

/** @type {Turn[]} */
let turns = [];
let firstRead = 0; // turns before it no longer fit the model's context

/** The turn that is answered now, or `null` before the first question. */
export const lastTurn = () => turns.at(-1) ?? null;

/**
 * A question at the end of the conversation; the turns before it are folded.
 *
 * @param {string} question
 */
export function ask(question) {
  for (const turn of turns) fold(turn);
  if (turns.length === 0) byId("result").replaceChildren();
  const body = el("div", { class: "turn-body" });
  const said = el("p", { class: "said" }, el("span", { class: "hidden" }, "You asked: "), question);
  const host = el("div", { class: "turn" }, said, body);
  turns.push({ question, answer: "", host, body });
  byId("result").append(host);
  host.scrollIntoView({ block: "start" });
  keep();
}

/** How many questions there were. */
export const nTurns = () => turns.length;

/** What the model reads for an answer to the last turn: the answered turns that fit, and it. */
export function messages() {
  const before = turns.slice(firstRead, -1).filter((turn) => turn.answer !== "");
  const read = before.flatMap((turn) => [
    { role: "user", content: turn.question },
    { role: "assistant", content: turn.answer.replaceAll("\0", "") }, // which the server refuses
  ]);
  return [...read, { role: "user", content: turns[turns.length - 1].question }];
}

/** Whether the oldest turn that is read could be left out, which is done and shown. */
export function shorten() {
  if (firstRead >= turns.length - 1) return false;
  leaveOut(firstRead + 1);
  keep();
  return true;
}

/** @param {number} n How many turns the model no longer reads. */
function leaveOut(n) {
  for (const turn of turns.slice(0, n)) turn.host.classList.add("unread");
  firstRead = n;
  byId("result").querySelector(".forgotten")?.remove();
  turns[n].host.before(
    el("p", { class: "forgotten muted small-print" }, "The model no longer reads what is above: its context is full."));
}

/** Keep the conversation for when the page is loaded again in this tab. */
export function keep() {
  const said = turns.map(({ question, answer }) => ({ question, answer }));
  try {
    sessionStorage.setItem(KEPT, JSON.stringify({ user: get().user, firstRead, turns: said }));
  } catch {
    sessionStorage.removeItem(KEPT); // too long for the browser
  }
}

/** What was kept in this tab, or `null`. */
export function kept() {
  return JSON.parse(sessionStorage.getItem(KEPT) ?? "null");
}

/**
 * Go on with what was kept, if it was this user's; returns whether there is anything.
 *
 * @param {{user: string|null, firstRead: number, turns: {question: string, answer: string}[]}|null} was
 */
export function goOn(was) {
  if (turns.length > 0) return false;
  if (!was || was.user !== get().user || was.turns.length === 0) {
    clear();
    return false;
  }
  for (const { question, answer } of was.turns) {
    ask(question);
    const turn = turns[turns.length - 1];
    turn.answer = answer;
    const text = el("p", { class: "answer-text" }, answer || "(no answer)");
    turn.body.append(el("article", { class: "card answer", "aria-label": "Answer" }, text));
  }
  if (was.firstRead > 0) leaveOut(was.firstRead);
  keep();
  return true;
}

/** Start afresh. */
export function clear() {
  turns = [];
  firstRead = 0;
  sessionStorage.removeItem(KEPT);
}

/**
 * A turn of the past: its text stays, what could be done with it goes.
 *
 * @param {Turn} turn
 */
function fold(turn) {
  turn.host.classList.add("past");
  for (const name of ["answer", "question"]) {
    turn.body.querySelector(`.${name}`)?.classList.replace(name, `past-${name}`);
  }
  for (const details of turn.body.querySelectorAll("details")) details.open = false;
}
