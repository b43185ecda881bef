/** Thumbs and stars for one answer. */

import { randomKey, sendFeedback, withdrawFeedback } from "./api.js";
import { el, icon } from "./dom.js";
import { showError } from "./notices.js";
import { get, set } from "./state.js";

const STARS = [1, 2, 3, 4, 5];

/**
 * Send a verdict; the belief that comes back is shown beside the one before. Its key comes back.
 *
 * @param {object} verdict
 */
export async function learn(verdict) {
  const { belief: before } = get();
  const key = randomKey();
  const { user, belief } = await sendFeedback({ key, ...verdict });
  if (user === get().user) set({ before, belief });
  return key;
}

/**
 * A row of buttons; each verdict is sent at once, after the one before, and stands in the place of
 * an earlier one of its kind: arrow keys pass every star.
 *
 * @param {string} response
 */
export function feedbackRow(response) {
  const note = el("span", { class: "muted", role: "status" });
  const { user } = get();
  /** @type {Record<string, string>} */
  const given = {}; // kind to key
  let line = Promise.resolve(true);
  const send = (/** @type {{kind: string}} */ verdict) => {
    line = line.then(async () => {
      try {
        const earlier = given[verdict.kind];
        if (earlier && user) await withdrawFeedback(user, earlier);
        delete given[verdict.kind];
        given[verdict.kind] = await learn({ response, ...verdict });
        note.textContent = "Learned.";
        return true;
      } catch (error) {
        showError(error);
        return false;
      }
    });
    return line;
  };
  return el("div", { class: "feedback" }, thumbs(send), stars(send), note);
}

/** @typedef {(verdict: {kind: string} & Record<string, any>) => Promise<boolean>} Send */

/** @param {Send} send */
function thumbs(send) {
  const group = el("div", { class: "thumbs", role: "group", "aria-label": "Thumbs" });
  const buttons = ["up", "down"].map((thumb) => {
    const button = el("button", {
      type: "button",
      class: "plain",
      "aria-label": thumb === "up" ? "A good answer" : "A bad answer",
      title: thumb === "up" ? "A good answer" : "A bad answer",
      "aria-pressed": "false",
    });
    button.append(icon(thumb));
    button.addEventListener("click", async () => {
      if (!(await send({ kind: "thumbs", thumbs: thumb, answer: 0 }))) return;
      for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
    });
    return button;
  });
  group.append(...buttons);
  return group;
}

/** @param {Send} send */
function stars(send) {
  const group = el("fieldset", { class: "stars" }, el("legend", { class: "hidden" }, "Rating"));
  const name = `stars-${crypto.getRandomValues(new Uint32Array(1))[0]}`;
  for (const rating of STARS) {
    const radio = el("input", { type: "radio", name, value: rating, class: "hidden" });
    const label = el(
      "label",
      { class: "star", title: `${rating} of 5` },
      radio,
      icon("star"),
      el("span", { class: "hidden" }, `${rating} of 5`),
    );
    radio.addEventListener("change", async () => {
      if (!(await send({ kind: "rating", rating, answer: 0 }))) return;
      group.dataset.rating = String(rating);
      group.querySelectorAll(".star").forEach((star, k) => {
        star.classList.toggle("lit", k < rating);
      });
    });
    group.append(label);
  }
  return group;
}
