/** Numbers and names as users read them. */

const MINUS = "\u2212";

/** @param {number} share */
export const percent = (share) => `${Math.round(share * 100)}\u202f%`;

/**
 * @param {number} value
 * @param {number} [digits]
 */
export function fixed(value, digits = 2) {
  const text = Math.abs(value).toFixed(digits);
  return value < 0 && Number(text) !== 0 ? MINUS + text : text;
}

/**
 * @param {number} value
 * @param {number} [digits]
 */
export function signed(value, digits = 2) {
  const text = fixed(value, digits);
  return value > 0 && Number(text) !== 0 ? `+${text}` : text;
}

/**
 * The largest shares in words: "friendly 60 %, concise 40 %".
 *
 * @param {Record<string, number>} shares
 * @param {number} [limit]
 */
export function sharesInWords(shares, limit = 8) {
  return Object.entries(shares)
    .filter(([, share]) => Math.round(share * 100) > 0)
    .sort((a, b) => b[1] - a[1])
    .slice(0, limit)
    .map(([name, share]) => `${name} ${percent(share)}`)
    .join(", ");
}

/** @param {number} size In bytes, of a file. */
export const bytes = (size) =>
  size < 1e6 ? `${Math.max(1, Math.round(size / 1e3))}\u202fkB` : `${(size / 1e6).toFixed(1)}\u202fMB`;

/**
 * @param {number} count
 * @param {string} noun
 */
export const plural = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;
