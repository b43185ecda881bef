/** One slider per objective; a button beside it takes the objective into the triangle. */

import { byId, el, icon } from "./dom.js";
import { percent } from "./format.js";
import { rounded, withShare } from "./simplex.js";
import { get, set, watch } from "./state.js";

const PLACES = ["top", "left", "right"];

/** @typedef {{input: HTMLInputElement, number: HTMLElement, corner: HTMLButtonElement}} Line */

/** @type {Line[]} */
let lines = [];
/** @type {number[]} */
let order = []; // objectives of the triangle, the one chosen longest ago first

/** @param {(text: string) => void} speak Tells screen readers. */
export function mountSliders(speak) {
  watch(["library"], () => build(speak));
  watch(["shares", "corners", "library"], update);
  byId("even-button").addEventListener("click", () => {
    const n = get().objectives.length;
    set({ shares: rounded(Array(n).fill(1 / n)), source: "point" });
    speak("Every objective has the same share.");
  });
}

/** @param {(text: string) => void} speak */
function build(speak) {
  const { library, corners } = get();
  order = [...corners];
  lines = [];
  const rows = (library?.objectives ?? []).map((objective, k) => {
    const id = `share-${k}`;
    const input = el("input", {
      type: "range", id, min: 0, max: 100, step: 1,
      "aria-describedby": objective.description ? `${id}-about` : null,
    });
    const number = el("output", { for: id, class: "share-number" });
    const corner = el("button", { type: "button", class: "plain corner-button" });
    input.addEventListener("input", () => {
      const shares = withShare(get().shares, k, input.valueAsNumber / 100);
      set({ shares: rounded(shares), source: "point" });
    });
    corner.addEventListener("click", () => toggle(k, speak));
    lines.push({ input, number, corner });
    return el(
      "div",
      { class: "slider" },
      corner,
      el("label", { for: id, title: objective.description }, objective.name),
      input,
      number,
      el("span", { id: `${id}-about`, class: "hidden" }, objective.description),
    );
  });
  byId("sliders").replaceChildren(...rows);
}

function update() {
  const { shares, corners, objectives } = get();
  byId("sliders").classList.toggle("all-in", objectives.length <= 3);
  lines.forEach(({ input, number, corner }, k) => {
    const value = Math.round(shares[k] * 100);
    if (input.valueAsNumber !== value) input.value = String(value);
    input.setAttribute("aria-valuetext", percent(shares[k]));
    input.style.setProperty("--filled", `${shares[k] * 100}%`);
    number.textContent = percent(shares[k]);
    const place = corners.indexOf(k);
    corner.hidden = objectives.length <= 3;
    corner.replaceChildren(icon(place < 0 ? "corner-none" : `corner-${place}`));
    corner.setAttribute("aria-pressed", String(place >= 0));
    const where = place < 0 ? "Put" : `At the ${PLACES[place]} corner:`;
    corner.title = place < 0 ? "Put into the triangle" : `At the ${PLACES[place]} corner`;
    corner.setAttribute(
      "aria-label",
      place < 0 ? `${where} ${objectives[k]} into the triangle` : `${where} ${objectives[k]}`,
    );
  });
}

/**
 * Take an objective into the triangle, in place of the one that is there longest.
 *
 * @param {number} k
 * @param {(text: string) => void} speak
 */
function toggle(k, speak) {
  const { corners, objectives } = get();
  if (corners.includes(k)) {
    speak(`${objectives[k]} is in the triangle; choose another one to replace the oldest.`);
    return;
  }
  const leaving = order.shift();
  order.push(k);
  set({ corners: corners.map((other) => (other === leaving ? k : other)) });
  speak(`${objectives[k]} is in the triangle now, in place of ${objectives[Number(leaving)]}.`);
}
