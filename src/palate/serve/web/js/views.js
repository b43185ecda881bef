/** Which page is shown: the conversation, or the library at `#library`. */

import { byId } from "./dom.js";

/** Follow the address. */
export function mountViews() {
  window.addEventListener("hashchange", show);
  show();
}

function show() {
  const target = location.hash.slice(1);
  const isLibrary = target === "library";
  const wasLibrary = !byId("library").hidden;
  byId("main").hidden = isLibrary;
  byId("library").hidden = !isLibrary;
  document.title = isLibrary ? "Library · palate" : "palate";
  const links = [...byId("views").querySelectorAll("a")];
  const current = links.find((link) => link.hash === location.hash) ?? links[0];
  for (const link of links) {
    if (link === current) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (isLibrary === wasLibrary) return;
  const place = document.getElementById(target); // it was hidden when the browser looked for it
  if (target === "prompt") place?.focus();
  else if (place && !isLibrary) place.scrollIntoView();
  else window.scrollTo(0, 0);
}
