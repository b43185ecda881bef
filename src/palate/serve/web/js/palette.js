/**
 * One look per name, to be distinguished without colour, too: a hue of Okabe and Ito, a hatch and an underline.
 *
 * The hues are read from the style sheet (`--hue-0` ... `--hue-7`), so light and dark have their own.
 */

const N_HUES = 8;
const HATCHES = ["plain", "rising", "dots", "falling", "level", "cross", "upright", "rings"];
const UNDERLINES = ["solid", "dashed", "dotted", "double", "wavy"];

/** @type {string[]} */
let order = [];

/**
 * Fix which look belongs to which name: the library's experts, in its order.
 *
 * @param {string[]} names
 */
export function setNames(names) {
  order = names;
}

/**
 * The name's place; names that no expert has come after them.
 *
 * @param {string} name
 */
function placeOf(name) {
  const place = order.indexOf(name);
  if (place >= 0) return place;
  order = [...order, name];
  return order.length - 1;
}

/**
 * @typedef {object} Look
 * @property {string} hue Class that sets `--hue`.
 * @property {string} hatch Id of a pattern of the triangle.
 * @property {string} underline Class of a text decoration.
 */

/**
 * @param {string} name
 * @returns {Look}
 */
export function lookOf(name) {
  if (name === "base") return { hue: "hue-base", hatch: "hatch-plain", underline: "under-none" };
  const place = placeOf(name);
  const round = Math.floor(place / N_HUES);
  return {
    hue: `hue-${place % N_HUES}`,
    hatch: `hatch-${HATCHES[(place + round) % HATCHES.length]}`,
    underline: `under-${UNDERLINES[(place + round) % UNDERLINES.length]}`,
  };
}
