/** The triangle: three objectives, the point that is dragged, who serves where, what it costs. */

import { byId, el, svg } from "./dom.js";
import {
  certifiedGrid, certifiedNear, faceShares, faceTotal, memberCorners, nearest, preferenceAt,
  refresh,
} from "./face.js";
import { fixed, percent, sharesInWords } from "./format.js";
import { hatches } from "./hatches.js";
import { shortMemberName } from "./members.js";
import { lookOf } from "./palette.js";
import { areaOf, centreOf, CORNERS, pixelOf, regions, rounded, sharesOf, towards, VIEW } from "./simplex.js";
import { get, named, set, watch } from "./state.js";

/** @typedef {import("./simplex.js").Triple} Triple */

const STEP = 0.02;
const BIG_STEP = 0.1;
const DOT_STEP = 4; // every fourth point of the grid has a dot
const MAX_DOT = 5.5; // radius in pixels of the largest certified loss
const MAX_LETTERS = 16; // of a name in the drawing
const LABEL_AREA = 0.045; // smaller regions are named in the legend only

/** @type {Record<string, SVGElement>} */
const layers = {};
/** @type {HTMLElement} */
let tip;
/** @type {SVGSVGElement} */
let drawing;
let redraw = () => {};

/** @param {() => void} onCertified What else to do when new bounds are known. */
export function mountTriangle(onCertified) {
  const host = byId("triangle");
  drawing = svg("svg", { viewBox: `0 0 ${VIEW.width} ${VIEW.height}`, class: "simplex" });
  drawing.append(hatches());
  for (const name of ["regions", "grid", "dots", "names", "corners", "marks", "cursor"]) {
    layers[name] = svg("g", { class: `layer-${name}`, "aria-hidden": "true" });
    drawing.append(layers[name]);
  }
  layers.handle = makeHandle();
  drawing.append(layers.handle);
  tip = el("div", { class: "tip", "aria-hidden": "true" });
  tip.hidden = true;
  host.append(drawing, tip, el("p", { id: "triangle-help", class: "hidden" }, HELP));
  listen();
  redraw = () => {
    drawDots();
    onCertified();
  };
  watch(["library", "corners", "shares"], drawAll);
  watch(["belief", "user"], drawMarks);
}

const HELP =
  "Arrow up goes to the top corner, left and right to the corners below, down away from the top. " +
  "With Shift the steps are larger. Home goes to the middle, 1, 2 and 3 to a corner.";

function makeHandle() {
  const handle = svg("g", {
    class: "handle",
    role: "slider",
    tabindex: 0,
    id: "handle",
    "aria-roledescription": "point in a triangle",
    "aria-label": "Preference",
    "aria-describedby": "triangle-help",
    "aria-valuemin": 0,
    "aria-valuemax": 100,
  });
  handle.append(
    svg("circle", { class: "handle-halo", r: 20 }),
    svg("circle", { class: "handle-ring", r: 11 }),
    svg("circle", { class: "handle-dot", r: 4 }),
  );
  return handle;
}

function drawAll() {
  const { corners } = get();
  byId("triangle").hidden = corners.length !== 3;
  byId("preference-hint").hidden = corners.length !== 3;
  refresh(redraw);
  if (corners.length !== 3) return;
  drawRegions();
  drawGrid();
  drawCorners();
  drawDots();
  drawMarks();
  drawHandle();
}

function drawRegions() {
  const members = memberCorners();
  const polygons = regions(members.map((member) => member.corners));
  const outline = polygonOf([[1, 0, 0], [0, 1, 0], [0, 0, 1]], "outline");
  layers.regions.replaceChildren(outline);
  layers.names.replaceChildren();
  members.forEach((member, k) => {
    if (polygons[k].length === 0) return;
    const look = lookOf(member.name);
    const fill = polygonOf(polygons[k], `region ${look.hue}`);
    fill.dataset.member = member.name;
    layers.regions.append(fill);
    if (look.hatch !== "hatch-plain") {
      const hatch = polygonOf(polygons[k], "region-hatch");
      hatch.setAttribute("fill", `url(#${look.hatch})`);
      layers.regions.append(hatch);
    }
    if (areaOf(polygons[k]) < LABEL_AREA) return;
    const [x, y] = pixelOf(centreOf(polygons[k]));
    layers.names.append(svg("text", { x, y, class: "region-name" }, shortened(shortMemberName(member.name))));
  });
}

/**
 * @param {Triple[]} polygon
 * @param {string} name
 */
function polygonOf(polygon, name) {
  const points = polygon.map((parts) => pixelOf(parts).map((v) => v.toFixed(2)).join(",")).join(" ");
  return svg("polygon", { points, class: name });
}

function drawGrid() {
  const lines = [0.25, 0.5, 0.75].flatMap((t) => {
    /** @type {[Triple, Triple][]} */
    const ends = [
      [[t, 1 - t, 0], [t, 0, 1 - t]],
      [[1 - t, t, 0], [0, t, 1 - t]],
      [[1 - t, 0, t], [0, 1 - t, t]],
    ];
    return ends;
  });
  layers.grid.replaceChildren(
    ...lines.map(([from, to]) => {
      const [x1, y1] = pixelOf(from);
      const [x2, y2] = pixelOf(to);
      return svg("line", { x1, y1, x2, y2 });
    }),
  );
}

function drawCorners() {
  const { objectives, corners, shares } = get();
  const anchors = ["middle", "start", "end"];
  layers.corners.replaceChildren(
    ...corners.map((k, corner) => {
      const [cx, cy] = CORNERS[corner];
      const x = corner === 0 ? cx : cx + (corner === 1 ? -16 : 16);
      const y = corner === 0 ? cy - 16 : cy + 25;
      return svg(
        "text",
        { x, y, class: "corner-name", "text-anchor": anchors[corner] },
        `${objectives[k]} `,
        svg("tspan", { class: "corner-share" }, percent(shares[k])),
      );
    }),
  );
}

function drawDots() {
  const grid = certifiedGrid(DOT_STEP).map(({ parts, point }) => ({ parts, loss: point.loss ?? 0 }));
  const largest = Math.max(0, ...grid.map(({ loss }) => loss));
  layers.dots.replaceChildren(
    ...grid
      .filter(({ loss }) => loss > 0.02 * largest)
      .map(({ parts, loss }) => {
        const [cx, cy] = pixelOf(parts);
        return svg("circle", { cx, cy, r: (MAX_DOT * Math.sqrt(loss / largest)).toFixed(2) });
      }),
  );
}

/** The learned preference and the certificate's worst case, where they lie in the triangle. */
function drawMarks() {
  const { belief, corners, library, objectives } = get();
  if (corners.length !== 3) return;
  layers.marks.replaceChildren();
  const place = (/** @type {Record<string, number>} */ shares) => {
    const parts = corners.map((k) => shares[objectives[k]] ?? 0);
    const total = parts.reduce((sum, share) => sum + share, 0);
    return { total, parts: /** @type {Triple} */ (parts.map((share) => share / total)) };
  };
  const certificate = library?.portfolio?.certificate;
  const worst = certificate?.additive_gap == null ? null : certificate.worst_preference;
  if (worst && place(worst).total > 0.999 && faceTotal() > 0.999) {
    const [x, y] = pixelOf(place(worst).parts);
    layers.marks.append(
      svg("path", { class: "worst-mark", d: `M${x - 6} ${y - 6}l12 12m0-12l-12 12` }),
    );
  }
  if (belief?.preference && place(belief.preference).total > 0.02) {
    const [x, y] = pixelOf(place(belief.preference).parts);
    const mark = svg("path", { class: "learned-mark", d: "M0-10 10 0 0 10-10 0Z" });
    mark.style.transform = `translate(${x}px, ${y}px)`;
    layers.marks.append(mark);
  }
}

function drawHandle() {
  const [x, y] = pixelOf(faceShares());
  const { shares, corners } = get();
  layers.handle.setAttribute("transform", `translate(${x.toFixed(2)} ${y.toFixed(2)})`);
  layers.handle.setAttribute("aria-valuenow", String(Math.round(shares[corners[0]] * 100)));
  layers.handle.setAttribute("aria-valuetext", sharesInWords(named(shares)));
}

function listen() {
  drawing.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    drawing.setPointerCapture(event.pointerId);
    drawing.classList.add("dragging");
    layers.handle.focus({ preventScroll: true });
    move(partsUnder(event));
    event.preventDefault();
  });
  drawing.addEventListener("pointermove", (event) => {
    const parts = partsUnder(event);
    if (drawing.classList.contains("dragging")) move(parts);
    if (event.pointerType === "mouse") showTip(parts);
  });
  for (const type of ["pointerup", "pointercancel"]) {
    drawing.addEventListener(type, () => drawing.classList.remove("dragging"));
  }
  drawing.addEventListener("pointerleave", hideTip);
  layers.handle.addEventListener("keydown", press);
}

/** @param {PointerEvent} event */
function partsUnder(event) {
  const box = drawing.getBoundingClientRect();
  const scale = VIEW.width / box.width;
  return sharesOf([(event.clientX - box.left) * scale, (event.clientY - box.top) * scale]);
}

/** @param {Triple} parts */
function move(parts) {
  set({ shares: rounded(preferenceAt(parts)), source: "point" });
}

/** @param {KeyboardEvent} event */
function press(event) {
  const step = event.shiftKey ? BIG_STEP : STEP;
  const now = faceShares();
  /** @type {Record<string, () => Triple>} */
  const moves = {
    ArrowUp: () => towards(now, 0, step),
    ArrowDown: () => towards(now, 0, -step),
    ArrowLeft: () => towards(now, 1, step),
    ArrowRight: () => towards(now, 2, step),
    Home: () => [1 / 3, 1 / 3, 1 / 3],
    1: () => [1, 0, 0],
    2: () => [0, 1, 0],
    3: () => [0, 0, 1],
  };
  if (!(event.key in moves) || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  move(moves[event.key]());
}

/**
 * In the free corner beside the top: what holds under the cursor, at the ring.
 *
 * @param {Triple} parts
 */
function showTip(parts) {
  const near = nearest(parts);
  const point = certifiedNear(near);
  const [cx, cy] = pixelOf(near);
  layers.cursor.replaceChildren(svg("circle", { cx, cy, r: 6 }));
  tip.hidden = false;
  const { objectives, corners } = get();
  const shares = preferenceAt(near);
  tip.replaceChildren(
    el("span", { class: "muted" }, "○ under the cursor"),
    ...corners.map((k) => el("span", {}, `${objectives[k]} ${percent(shares[k])}`)),
  );
  if (point) {
    tip.append(
      el("span", {}, "by ", el("b", {}, shortened(shortMemberName(point.member)))),
      el("span", {}, "loss ≤ ", el("b", {}, point.loss === null ? "?" : fixed(point.loss, 3))),
    );
  }
}

function hideTip() {
  tip.hidden = true;
  layers.cursor.replaceChildren();
}

/** @param {string} name */
const shortened = (name) => (name.length > MAX_LETTERS ? `${name.slice(0, MAX_LETTERS - 1)}…` : name);
