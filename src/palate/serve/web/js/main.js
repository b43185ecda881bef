/** Puts the page together. */

import { getLibrary, readKey } from "./api.js";
import { goOnWith, mountAsk, stop } from "./ask.js";
import { mountBelief } from "./belief.js";
import { mountCatalog } from "./catalog.js";
import { mountCompare } from "./compare.js";
import { kept } from "./conversation.js";
import { openKey } from "./dialogs.js";
import { byId } from "./dom.js";
import { clearErrors, onKeyWanted, showError } from "./notices.js";
import { mountMethods } from "./methods.js";
import { setNames } from "./palette.js";
import { mountPeek } from "./peek.js";
import { eraseData, exportData, mountUsers, openPicker, resetData, restoreUser } from "./users.js";
import { mountReading, renderReading } from "./reading.js";
import { rounded } from "./simplex.js";
import { mountSliders } from "./sliders.js";
import { set } from "./state.js";
import { mountTheme } from "./theme.js";
import { mountTriangle } from "./triangle.js";
import { mountViews } from "./views.js";

/** @param {string} text Read out by screen readers. */
function speak(text) {
  byId("spoken").textContent = text;
}

async function load() {
  try {
    const library = await getLibrary();
    const objectives = library.objectives.map((objective) => objective.name);
    setNames(library.experts.map((expert) => expert.name));
    const n = objectives.length;
    byId("base").textContent =
      `${library.experts.length} experts on ${library.base.split("/").pop()}`;
    byId("key-button").hidden = !library.needs_key;
    set({
      library,
      objectives,
      shares: rounded(Array(n).fill(1 / n)),
      corners: n >= 3 ? cornersFor(library) : [],
    });
    byId("main").setAttribute("aria-busy", "false");
    clearErrors();
    const was = kept(); // a user who is chosen begins a new one
    await restoreUser();
    goOnWith(was);
  } catch (error) {
    showError(error, load);
  }
}

/**
 * The triangle starts with the three objectives on whose face the most members serve.
 *
 * @param {import("./types.js").Library} library
 */
function cornersFor(library) {
  const names = library.objectives.map((objective) => objective.name);
  const members = (library.portfolio?.members ?? []).map((member) => member.name);
  const first = names.map((_, k) => k).filter((k) => members.includes(names[k]));
  const rest = names.map((_, k) => k).filter((k) => !first.includes(k));
  return [...first, ...rest].slice(0, 3);
}

onKeyWanted(() => openKey(load));
byId("key-button").addEventListener("click", () => openKey(load));
mountTheme();
mountViews();
mountTriangle(renderReading);
mountSliders(speak);
mountReading();
mountUsers();
mountBelief({ export: exportData, reset: resetData, erase: eraseData, choose: openPicker });
mountCompare();
mountMethods();
mountCatalog();
mountAsk();
mountPeek();
window.addEventListener("pagehide", stop);
if (readKey()) byId("key-button").hidden = false;
load();
