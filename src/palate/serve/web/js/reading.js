/** Under the triangle, in words: who serves the point, what that costs at most, and the legend. */

import { byId, el } from "./dom.js";
import { certifiedAtPoint, faceTotal, memberCorners } from "./face.js";
import { fixed, percent, plural } from "./format.js";
import { swatch } from "./hatches.js";
import { memberName } from "./members.js";
import { lookOf } from "./palette.js";
import { areaOf, regions } from "./simplex.js";
import { get, watch } from "./state.js";

/** Keep the words up to date. */
export function mountReading() {
  watch(["library", "shares", "corners"], renderReading);
  watch(["library", "shares", "corners"], renderLegend);
}

/** Say what is certified at the point; called again when the server has answered. */
export function renderReading() {
  const { library } = get();
  if (!library) return;
  const host = byId("reading");
  if (!library.portfolio) {
    host.replaceChildren(
      el("p", { class: "reading-none" },
        "This library has no portfolio: nothing is certified, and the triangle has no regions. " +
          "The point still steers soups and mixtures."),
    );
    return;
  }
  const point = certifiedAtPoint();
  const { certificate } = library.portfolio;
  const confidence = percent(certificate.confidence);
  host.classList.toggle("loading", point === null);
  if (point && document.activeElement?.id === "handle") {
    byId("spoken").textContent =
      point.loss === null
        ? `Member ${memberName(point.member)} serves; nothing is known beyond the listed policies.`
        : `Member ${memberName(point.member)} serves and loses at most ${fixed(point.loss, 3)}.`;
  }
  host.replaceChildren(
    fact("Member", point ? name(point.member) : "…"),
    point && point.loss === null
      ? fact("Loses at most", "unknown", "nothing is known beyond the listed policies")
      : fact("Loses at most", point ? fixed(point.loss ?? 0, 3) : "…", `reward, ${confidence} sure`),
    fact(
      "Ahead of next",
      point ? (point.margin === null ? "–" : fixed(point.margin, 3)) : "…",
      "reward, at least",
    ),
  );
}

/**
 * @param {string} label
 * @param {Node|string} value
 * @param {string} [unit]
 */
function fact(label, value, unit) {
  return el(
    "div",
    { class: "fact" },
    el("span", { class: "fact-label" }, label),
    el("span", { class: "fact-value" }, value),
    unit ? el("span", { class: "fact-unit" }, unit) : null,
  );
}

/** @param {string} member */
function name(member) {
  return el("span", { class: "named" }, swatch(lookOf(member)), memberName(member));
}

function renderLegend() {
  const { library, corners } = get();
  const host = byId("regions-legend");
  if (!library?.portfolio || corners.length !== 3) {
    host.replaceChildren();
    return;
  }
  const members = memberCorners();
  const areas = regions(members.map((member) => member.corners)).map((polygon) =>
    polygon.length ? areaOf(polygon) : 0,
  );
  const here = members.map((member, k) => ({ ...member, area: areas[k] })).filter(({ area }) => area > 0);
  const items = here
    .sort((a, b) => b.area - a.area)
    .map(({ name: member, area }) =>
      el("li", {}, swatch(lookOf(member)), memberName(member), el("span", { class: "muted" }, area < 0.005 ? " <\u202f1\u202f%" : ` ${percent(area)}`)),
    );
  const nElsewhere = members.length - here.length;
  if (nElsewhere > 0) {
    items.push(el("li", { class: "muted" }, `${plural(nElsewhere, "other")} not here: see the library`));
  }
  const { certificate } = library.portfolio;
  const outside = 1 - faceTotal();
  host.replaceChildren(
    el("ul", { class: "legend", "aria-label": "Members, and their part of the triangle" }, ...items),
    el("p", { class: "muted small-print" },
      ...(certificate.additive_gap === null
        ? ["Every listed policy is a member: nothing is known beyond the listed policies."]
        : [
            "Larger dots: more may be lost there. ✕ the worst case of all: ",
            el("b", {}, fixed(certificate.additive_gap, 3)),
            certificate.kind === "candidate-relative"
              ? ", relative to the listed policies only."
              : ", against any policy.",
          ]),
      outside > 0.0005 ? ` The other objectives keep ${percent(outside)}.` : ""),
  );
}
