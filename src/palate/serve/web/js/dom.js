/** Elements made and found in one line each. */

const SVG = "http://www.w3.org/2000/svg";

/**
 * An element with attributes and children; `class`, `on*` handlers and booleans as expected.
 *
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Record<string, any>} [attributes] `null`, `undefined` and `false` are left out.
 * @param {...(Node|string|null)} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  assign(node, attributes);
  node.append(.../** @type {(Node|string)[]} */ (children.filter((child) => child !== null)));
  return node;
}

/**
 * The same for drawings.
 *
 * @template {keyof SVGElementTagNameMap} K
 * @param {K} tag
 * @param {Record<string, any>} [attributes]
 * @param {...(Node|string|null)} children
 * @returns {SVGElementTagNameMap[K]}
 */
export function svg(tag, attributes = {}, ...children) {
  const node = /** @type {SVGElementTagNameMap[K]} */ (document.createElementNS(SVG, tag));
  assign(node, attributes);
  node.append(.../** @type {(Node|string)[]} */ (children.filter((child) => child !== null)));
  return node;
}

/**
 * @param {Element} node
 * @param {Record<string, any>} attributes
 */
function assign(node, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
}

/**
 * The element with this id; the page's own ids are always there.
 *
 * @template {HTMLElement} [T=HTMLElement]
 * @param {string} id
 * @returns {T}
 */
export function byId(id) {
  const node = document.getElementById(id);
  if (!node) throw new Error(`The page has no element with the id "${id}".`);
  return /** @type {T} */ (node);
}

/**
 * One of the icons of `icons.svg`; it says nothing to screen readers.
 *
 * @param {string} name
 */
export function icon(name) {
  const use = svg("use", { href: `icons.svg#${name}` });
  return svg("svg", { class: "icon", "aria-hidden": "true", viewBox: "0 0 24 24" }, use);
}
