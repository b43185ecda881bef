/** The patterns that tell regions apart without colour; `hatch-plain` is none. */

import { svg } from "./dom.js";

/** @type {Record<string, [string, Record<string, string|number>][]>} */
const SHAPES = {
  rising: [["path", { d: "M-2 2 2 -2M0 10 10 0M8 12 12 8" }]],
  falling: [["path", { d: "M-2 8 2 12M0 0 10 10M8 -2 12 2" }]],
  level: [["path", { d: "M0 5H10" }]],
  upright: [["path", { d: "M5 0V10" }]],
  cross: [["path", { d: "M0 5H10M5 0V10" }]],
  dots: [["circle", { cx: 5, cy: 5, r: 1.3, class: "hatch-solid" }]],
  rings: [["circle", { cx: 5, cy: 5, r: 2.2 }]],
};

/** Definitions for a drawing. */
export function hatches() {
  const defs = svg("defs");
  for (const [name, shapes] of Object.entries(SHAPES)) {
    const pattern = svg("pattern", {
      id: `hatch-${name}`,
      class: "hatch",
      width: 10,
      height: 10,
      patternUnits: "userSpaceOnUse",
    });
    for (const [tag, attributes] of shapes) {
      pattern.append(svg(/** @type {"path"|"circle"} */ (tag), attributes));
    }
    defs.append(pattern);
  }
  return defs;
}

/**
 * A small square with a name's hue and hatch, for legends.
 *
 * @param {import("./palette.js").Look} look
 */
export function swatch(look) {
  const drawing = svg("svg", {
    class: `swatch ${look.hue}`,
    viewBox: "0 0 20 20",
    "aria-hidden": "true",
  });
  drawing.append(svg("rect", { class: "swatch-fill", width: 20, height: 20, rx: 4 }));
  if (look.hatch !== "hatch-plain") {
    drawing.append(svg("rect", { width: 20, height: 20, rx: 4, fill: `url(#${look.hatch})` }));
  }
  return drawing;
}
