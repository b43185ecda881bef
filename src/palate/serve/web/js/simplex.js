/**
 * Geometry of preferences: pure functions of arrays.
 *
 * A face is three objectives; `shares` are three numbers of zero or more that sum to one, for the
 * top, left and right corner. Pixels are those of the drawing's view box.
 */

/** @typedef {[number, number, number]} Triple */
/** @typedef {[number, number]} Pixel */

/** @type {[Pixel, Pixel, Pixel]} */
export const CORNERS = [[200, 34], [20, 345.77], [380, 345.77]]; // equilateral, side 360
export const VIEW = { width: 400, height: 384 };
const STEPS = 1000; // preferences are written in thousandths

/**
 * @param {Triple} shares
 * @returns {Pixel}
 */
export function pixelOf(shares) {
  const along = (/** @type {0|1} */ axis) =>
    shares.reduce((sum, share, k) => sum + share * CORNERS[k][axis], 0);
  return [along(0), along(1)];
}

/**
 * Shares of the point of the triangle that is closest to a pixel.
 *
 * @param {Pixel} pixel
 * @returns {Triple}
 */
export function sharesOf([x, y]) {
  const [top, left, right] = CORNERS;
  const height = left[1] - top[1];
  const first = (left[1] - y) / height;
  const third = (x - left[0] - (first * (right[0] - left[0])) / 2) / (right[0] - left[0]);
  return /** @type {Triple} */ (closest([first, 1 - first - third, third]));
}

/**
 * The point of the simplex closest to a point of its plane or space.
 *
 * Source: Duchi et al. 2008, "Efficient projections onto the l1-ball", figure 1.
 *
 * @param {number[]} point
 * @returns {number[]}
 */
export function closest(point) {
  const sorted = [...point].sort((a, b) => b - a);
  let sum = 0;
  let shift = 0;
  sorted.forEach((value, k) => {
    sum += value;
    if (value - (sum - 1) / (k + 1) > 0) shift = (sum - 1) / (k + 1);
  });
  return point.map((value) => Math.max(0, value - shift));
}

/**
 * A share more or less for one corner, taken from the other two in proportion.
 *
 * @param {Triple} shares
 * @param {number} corner
 * @param {number} step
 * @returns {Triple}
 */
export function towards(shares, corner, step) {
  return /** @type {Triple} */ (withShare(shares, corner, shares[corner] + step));
}

/**
 * The shares with one of them set and the others scaled to fill the rest.
 *
 * @param {number[]} shares
 * @param {number} index
 * @param {number} share
 * @returns {number[]}
 */
export function withShare(shares, index, share) {
  const own = shares.length === 1 ? 1 : Math.min(1, Math.max(0, share));
  const rest = shares.reduce((sum, value, k) => sum + (k === index ? 0 : value), 0);
  const even = (1 - own) / (shares.length - 1);
  return shares.map((value, k) => {
    if (k === index) return own;
    return rest > 1e-9 ? (value / rest) * (1 - own) : even;
  });
}

/**
 * Shares in thousandths that sum to one exactly: largest remainders are rounded up.
 *
 * @param {number[]} shares
 * @returns {number[]}
 */
export function rounded(shares) {
  const floors = shares.map((share) => Math.floor(share * STEPS + 1e-9));
  const missing = STEPS - floors.reduce((sum, value) => sum + value, 0);
  const order = shares
    .map((share, k) => ({ k, remainder: share * STEPS - floors[k] }))
    .sort((a, b) => b.remainder - a.remainder);
  for (const { k } of order.slice(0, missing)) floors[k] += 1;
  return floors.map((value) => value / STEPS);
}

/**
 * All shares with a denominator: `(n + 1)(n + 2) / 2` points.
 *
 * @param {number} denominator
 * @returns {Triple[]}
 */
export function lattice(denominator) {
  /** @type {Triple[]} */
  const points = [];
  for (let a = 0; a <= denominator; a += 1) {
    for (let b = 0; a + b <= denominator; b += 1) {
      points.push([a / denominator, b / denominator, (denominator - a - b) / denominator]);
    }
  }
  return points;
}

/**
 * Where each of several linear functions is the largest, as polygons in shares.
 *
 * @param {Triple[]} corners What each function is worth at the three corners.
 * @returns {Triple[][]} One convex polygon each; empty where a function is nowhere the largest.
 */
export function regions(corners) {
  return corners.map((own, k) => {
    /** @type {Triple[]} */
    let polygon = [[1, 0, 0], [0, 1, 0], [0, 0, 1]];
    corners.forEach((other, j) => {
      const lead = own.map((value, axis) => value - other[axis]);
      const isSame = lead.every((value) => value === 0);
      if (isSame && j < k) polygon = []; // of equals, the first serves
      else if (!isSame) polygon = clipped(polygon, lead);
    });
    return areaOf(polygon) > 1e-7 ? polygon : [];
  });
}

/**
 * The part of a convex polygon where a linear function is at least zero.
 *
 * Source: Sutherland and Hodgman 1974, one half plane.
 *
 * @param {Triple[]} polygon
 * @param {number[]} slope Value of the function at the three corners.
 * @returns {Triple[]}
 */
function clipped(polygon, slope) {
  const value = (/** @type {Triple} */ point) => point.reduce((s, v, k) => s + v * slope[k], 0);
  /** @type {Triple[]} */
  const kept = [];
  polygon.forEach((point, k) => {
    const next = polygon[(k + 1) % polygon.length];
    const [here, there] = [value(point), value(next)];
    if (here >= 0) kept.push(point);
    if ((here > 0 && there < 0) || (here < 0 && there > 0)) {
      const t = here / (here - there);
      kept.push(/** @type {Triple} */ (point.map((v, axis) => v + t * (next[axis] - v))));
    }
  });
  return kept;
}

/**
 * Area of a polygon as a share of the triangle.
 *
 * @param {Triple[]} polygon
 */
export function areaOf(polygon) {
  let twice = 0;
  polygon.forEach((point, k) => {
    const next = polygon[(k + 1) % polygon.length];
    twice += point[1] * next[2] - next[1] * point[2];
  });
  return Math.abs(twice); // the whole triangle has 1 in these two coordinates, doubled
}

/**
 * Centre of mass of a convex polygon.
 *
 * @param {Triple[]} polygon
 * @returns {Triple}
 */
export function centreOf(polygon) {
  /** @type {number[]} */
  const sum = [0, 0, 0];
  let total = 0;
  for (let k = 1; k + 1 < polygon.length; k += 1) {
    const piece = [polygon[0], polygon[k], polygon[k + 1]];
    const area = areaOf(piece);
    total += area;
    sum.forEach((_, axis) => {
      sum[axis] += (area * (piece[0][axis] + piece[1][axis] + piece[2][axis])) / 3;
    });
  }
  return /** @type {Triple} */ (sum.map((value) => value / total));
}
