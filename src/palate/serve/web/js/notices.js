/** Errors and small news: what happened, and what can be done about it. */

import { ApiError, isAlive } from "./api.js";
import { byId, el, icon } from "./dom.js";

const POLL_SECONDS = 3;
const NEWS_SECONDS = 6;

/** @type {() => void} */
let askForKey = () => {};
let isPolling = false;
/** @type {(() => void)[]} */
let undone = []; // what the dead line cut short

/** @param {() => void} open What to do where a key is wanted. */
export function onKeyWanted(open) {
  askForKey = open;
}

/**
 * Show an error where everybody sees it; cancelled requests are none.
 *
 * @param {unknown} error
 * @param {(() => void)} [again] Offered as a button.
 */
export function showError(error, again) {
  if (error instanceof DOMException && error.name === "AbortError") return;
  const problem = error instanceof ApiError ? error : new ApiError(String(error), -1);
  if (problem.status === 401) {
    askForKey();
    notice("error", "A key is needed", problem.message, again, "Try again");
  } else if (problem.status === 429) {
    waitAndOffer("Too many requests", problem, again);
  } else if (problem.status === 503) {
    waitAndOffer("The server is busy", problem, again);
  } else if (problem.status === 0) {
    notice("offline", "No connection", `${problem.message} This page keeps trying.`);
    waitForServer(again);
  } else {
    notice("error", "That did not work", problem.message, again, "Try again");
  }
}

/**
 * Say something that went well; it goes away by itself.
 *
 * @param {string} text
 */
export function say(text) {
  const news = byId("news");
  news.textContent = text;
  news.classList.add("shown");
  setTimeout(() => {
    if (news.textContent === text) news.classList.remove("shown");
  }, NEWS_SECONDS * 1000);
}

/** Take the error away. */
export function clearErrors() {
  if (!isPolling) byId("notices").replaceChildren();
}

/**
 * @param {string} kind
 * @param {string} title
 * @param {string} text
 * @param {(() => void)} [again]
 * @param {string} [label]
 */
function notice(kind, title, text, again, label) {
  const close = el("button", { type: "button", class: "plain", "aria-label": "Close this message" });
  close.append(icon("close"));
  const box = el(
    "div",
    { class: `notice notice-${kind}` },
    icon(kind === "offline" ? "offline" : "warning"),
    el("p", {}, el("strong", {}, `${title}. `), text),
  );
  if (again) {
    const button = el("button", { type: "button", class: "small" }, label ?? "Try again");
    button.addEventListener("click", () => {
      box.remove();
      again();
    });
    box.append(button);
  }
  close.addEventListener("click", () => box.remove());
  box.append(close);
  byId("notices").replaceChildren(box);
  return box;
}

/**
 * A button that can be pressed once the server's time is up.
 *
 * @param {string} title
 * @param {ApiError} problem
 * @param {(() => void)} [again]
 */
function waitAndOffer(title, problem, again) {
  const box = notice("error", title, problem.message, again);
  const button = box.querySelector("button.small");
  if (!(button instanceof HTMLButtonElement) || !problem.retryAfter) return;
  const end = Date.now() + problem.retryAfter * 1000;
  const tick = () => {
    const left = Math.ceil((end - Date.now()) / 1000);
    button.disabled = left > 0;
    button.textContent = left > 0 ? `Try again in ${left} s` : "Try again";
    if (left > 0 && button.isConnected) setTimeout(tick, 250);
  };
  tick();
}

/** @param {(() => void)} [again] */
async function waitForServer(again) {
  if (again) undone.push(again);
  if (isPolling) return;
  isPolling = true;
  while (!(await isAlive())) {
    await new Promise((wake) => setTimeout(wake, POLL_SECONDS * 1000));
  }
  isPolling = false;
  byId("notices").replaceChildren();
  say("The server is back.");
  const left = undone;
  undone = [];
  for (const task of left) task();
}
