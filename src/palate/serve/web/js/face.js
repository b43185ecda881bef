/** The face of the simplex that the triangle shows, and what is certified on it. */

import { getRegret } from "./api.js";
import { showError } from "./notices.js";
import { lattice, rounded } from "./simplex.js";
import { get, named } from "./state.js";

const DENOMINATOR = 40; // 861 points: 2.5 % apart
const SETTLE_MS = 160;

/** @typedef {import("./simplex.js").Triple} Triple */
/** @typedef {import("./types.js").RegretPoint} RegretPoint */

const GRID = lattice(DENOMINATOR);

/** @type {{key: string, points: RegretPoint[]}|null} */
let known = null;
/** @type {{key: string, point: RegretPoint}|null} */
let exact = null;
/** @type {AbortController|null} */
let running = null;
/** @type {number|undefined} */
let timer;

/** Share of everything that the three objectives of the triangle have together. */
export function faceTotal() {
  const { shares, corners } = get();
  return corners.reduce((sum, k) => sum + shares[k], 0);
}

/** The point's shares among the three objectives of the triangle. */
export function faceShares() {
  const { shares, corners } = get();
  const total = faceTotal();
  const parts = corners.map((k) => (total > 1e-9 ? shares[k] / total : 1 / 3));
  return /** @type {Triple} */ (parts);
}

/**
 * The whole preference of a point of the triangle: the other objectives keep their shares.
 *
 * @param {Triple} parts
 * @returns {number[]}
 */
export function preferenceAt(parts) {
  const { shares, corners } = get();
  const total = faceTotal() > 1e-9 ? faceTotal() : 1; // nothing left: the three take it all
  return shares.map((share, k) => {
    const corner = corners.indexOf(k);
    if (corner >= 0) return parts[corner] * total;
    return total === 1 ? 0 : share;
  });
}

/** What each member is worth at the three corners of the face, in reward units. */
export function memberCorners() {
  const { library, objectives } = get();
  return (library?.portfolio?.members ?? []).map((member) => {
    const worth = (/** @type {Triple} */ parts) =>
      preferenceAt(parts).reduce((sum, w, k) => sum + w * member.values[objectives[k]], 0);
    return {
      name: member.name,
      corners: /** @type {Triple} */ ([worth([1, 0, 0]), worth([0, 1, 0]), worth([0, 0, 1])]),
    };
  });
}

/** What is certified at the chosen point itself, or `null` while it is not known. */
export function certifiedAtPoint() {
  const { shares } = get();
  return exact && exact.key === shares.join() ? exact.point : certifiedNear(faceShares());
}

/**
 * What is certified at the grid's point that is closest, or `null` while it is not known.
 *
 * @param {Triple} parts
 */
export function certifiedNear(parts) {
  if (!known || known.key !== faceKey()) return null;
  return known.points[gridIndex(parts)];
}

/**
 * The grid's point that is closest.
 *
 * @param {Triple} parts
 */
export const nearest = (parts) => GRID[gridIndex(parts)];

/**
 * The grid's points with what is certified there, every `step`-th; empty while it is not known.
 *
 * @param {number} step
 */
export function certifiedGrid(step) {
  const loaded = known;
  if (!loaded || loaded.key !== faceKey()) return [];
  return GRID.map((parts, k) => ({ parts, point: loaded.points[k] })).filter(({ parts }) =>
    parts.every((share) => Math.round(share * DENOMINATOR) % step === 0),
  );
}

/**
 * Ask the server for what is not known, once the point rests.
 *
 * @param {() => void} tell When something new is known.
 */
export function refresh(tell) {
  clearTimeout(timer);
  if (!get().library?.portfolio) return;
  timer = setTimeout(() => load(tell), SETTLE_MS);
}

/** @param {() => void} tell */
async function load(tell) {
  const key = faceKey();
  const shares = get().shares;
  const needsGrid = get().corners.length === 3 && known?.key !== key;
  if (!needsGrid && exact?.key === shares.join()) return;
  running?.abort();
  running = new AbortController();
  const grid = needsGrid ? GRID.map(preferenceAt) : [];
  try {
    const all = [shares, ...grid].map((point) => named(rounded(point)));
    const { points } = await getRegret(all, running.signal);
    exact = { key: shares.join(), point: points[0] };
    if (needsGrid) known = { key, points: points.slice(1) };
    tell();
  } catch (error) {
    showError(error, () => load(tell));
  }
}

/** Names the face: its corners, and the shares of the objectives outside it. */
function faceKey() {
  const { shares, corners } = get();
  const others = shares.map((share, k) => (corners.includes(k) ? 0 : Math.round(share * 1000)));
  return `${corners.join()}:${others.join()}`;
}

/** @param {Triple} parts */
function gridIndex(parts) {
  const [a, b] = rounded(parts).map((share) => Math.round(share * DENOMINATOR));
  const first = Math.min(a, DENOMINATOR);
  const second = Math.min(b, DENOMINATOR - first);
  const before = first * (DENOMINATOR + 1) - (first * (first - 1)) / 2; // rows above
  return before + second;
}
