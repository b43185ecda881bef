/** Light, dark, or as the system says. */

import { byId } from "./dom.js";

const KEY = "palate.theme";
const THEMES = ["auto", "light", "dark"];
const TITLES = {
  auto: "Theme: as the system",
  light: "Theme: light",
  dark: "Theme: dark",
};

/** Let the button go through the themes. */
export function mountTheme() {
  const button = byId("theme-button");
  button.addEventListener("click", () => {
    apply(THEMES[(THEMES.indexOf(stored()) + 1) % THEMES.length]);
  });
  apply(stored());
}

function stored() {
  const theme = localStorage.getItem(KEY) ?? "auto";
  return THEMES.includes(theme) ? theme : "auto";
}

/** @param {string} theme */
function apply(theme) {
  if (theme === "auto") {
    delete document.documentElement.dataset.theme;
    localStorage.removeItem(KEY);
  } else {
    document.documentElement.dataset.theme = theme;
    localStorage.setItem(KEY, theme);
  }
  const title = TITLES[/** @type {keyof TITLES} */ (theme)];
  const button = byId("theme-button");
  button.setAttribute("aria-label", title);
  button.title = title;
  byId("theme-icon").setAttribute("href", `icons.svg#theme-${theme}`);
}
