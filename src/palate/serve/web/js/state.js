/** What the page knows, in one object; parts of the page watch its fields. */

/**
 * @typedef {object} State
 * @property {import("./types.js").Library|null} library
 * @property {string|null} user
 * @property {import("./types.js").Belief|null} belief
 * @property {import("./types.js").Belief|null} before The belief before the last feedback.
 * @property {Record<string, number>|null} stated The user's stated preference.
 * @property {string[]} objectives Names, in the library's order.
 * @property {number[]} shares The preference of the point, one share per objective.
 * @property {number[]} corners Indices of the objectives at the top, left and right corner.
 * @property {"point"|"words"|"learned"} source What the next answer follows.
 * @property {string} method
 */

/** @type {State} */
const state = {
  library: null,
  user: null,
  belief: null,
  before: null,
  stated: null,
  objectives: [],
  shares: [],
  corners: [],
  source: "point",
  method: "auto",
};

/** @type {{fields: (keyof State)[], tell: (state: Readonly<State>) => void}[]} */
const listeners = [];

/** @returns {Readonly<State>} */
export const get = () => state;

/**
 * Change fields; everybody who watches one of them is called once.
 *
 * @param {Partial<State>} changes
 */
export function set(changes) {
  Object.assign(state, changes);
  for (const { fields, tell } of listeners) {
    if (fields.some((field) => field in changes)) tell(state);
  }
}

/**
 * Be called when one of the fields changes.
 *
 * @param {(keyof State)[]} fields
 * @param {(state: Readonly<State>) => void} tell
 */
export function watch(fields, tell) {
  listeners.push({ fields, tell });
}

/** The point's preference by name, without zeros. */
export function preference() {
  return named(state.shares);
}

/**
 * Shares by name, without zeros.
 *
 * @param {number[]} shares
 */
export function named(shares) {
  return Object.fromEntries(
    state.objectives.map((name, k) => [name, shares[k]]).filter(([, share]) => Number(share) > 0),
  );
}
