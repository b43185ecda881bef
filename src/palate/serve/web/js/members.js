/** The portfolio's members by names that can be read: what they are blended of. */

import { get } from "./state.js";

/**
 * Largest parts first; empty for the base.
 *
 * @param {string} member
 * @returns {[string, number][]}
 */
function partsOf(member) {
  const found = get().library?.portfolio?.members.find(({ name }) => name === member);
  return Object.entries(found?.coefficients ?? {})
    .filter(([, value]) => value !== 0)
    .sort((a, b) => Math.abs(b[1]) - Math.abs(a[1]));
}

/**
 * The member in words: "unfriendly 65 + friendly 35"; an expert and the base go by their names.
 *
 * @param {string} member
 */
export function memberName(member) {
  const parts = partsOf(member);
  if (parts.length === 0) return member;
  if (parts.length === 1) return parts[0][0];
  const total = parts.reduce((sum, [, value]) => sum + Math.abs(value), 0);
  return parts.map(([name, value]) => `${name} ${Math.round((value / total) * 100)}`).join(" + ");
}

/**
 * The same for a place where little fits: its largest part, and how many more there are.
 *
 * @param {string} member
 */
export function shortMemberName(member) {
  const parts = partsOf(member);
  if (parts.length === 0) return member;
  return parts.length === 1 ? parts[0][0] : `${parts[0][0]} +${parts.length - 1}`;
}
