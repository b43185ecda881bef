/** Who it is: choose, create, and everything a person may do with what is kept of them. */

import {
  ApiError, createPerson, erasePerson, exportPerson, getPeople, getPerson, resetPerson,
  statePreference,
} from "./api.js";
import { close, confirmed, open, tell } from "./dialogs.js";
import { byId, el } from "./dom.js";
import { plural } from "./format.js";
import { say, showError } from "./notices.js";
import { rounded } from "./simplex.js";
import { get, preference, set, watch } from "./state.js";

const LAST = "palate.person"; // of the session's storage

/** Wire the button in the head of the page and the one under the triangle. */
export function mountPeople() {
  byId("person-button").addEventListener("click", openPicker);
  byId("state-button").addEventListener("click", keepStated);
  watch(["person"], ({ person }) => {
    byId("person-name").textContent = person ?? "Choose a person";
    byId("person-button").classList.toggle("chosen", person !== null);
  });
  watch(["person", "shares", "stated"], renderStated);
}

/** Go back to the person of this tab, if there was one. */
export async function restorePerson() {
  const last = sessionStorage.getItem(LAST);
  if (!last) return;
  try {
    take(await getPerson(last));
  } catch {
    sessionStorage.removeItem(LAST); // erased meanwhile, or another tenant's
  }
}

/** Let somebody choose or create a person. */
export async function openPicker() {
  const dialog = byId("person-dialog");
  const list = el("ul", { class: "people", "aria-label": "People" });
  const field = el("input", {
    id: "new-person", autocomplete: "off", spellcheck: "false", maxlength: 128, required: true,
    pattern: "[A-Za-z0-9][A-Za-z0-9._@+\\-]*", placeholder: "ana",
    title: "Letters, digits and . _ @ + -, starting with a letter or digit",
  });
  const problem = el("p", { class: "field-error", role: "alert" });
  const form = el(
    "form",
    { class: "new-person" },
    el("label", { for: "new-person" }, "Name of a new person"),
    el("div", { class: "row" }, field, el("button", { class: "primary" }, "Create")),
    problem,
  );
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      await createPerson(field.value.trim());
      await choose(field.value.trim());
    } catch (error) {
      problem.textContent = error instanceof ApiError ? error.message : String(error);
    }
  });
  const closer = el("button", { type: "button" }, "Close");
  closer.addEventListener("click", () => close(dialog));
  dialog.replaceChildren(
    el("h2", { id: "person-dialog-title" }, "Who is it?"),
    form,
    list,
    el("div", { class: "row dialog-actions" }, closer),
  );
  open(dialog);
  field.focus();
  await fill(list, null);
}

/**
 * Add a page of people to the list.
 *
 * @param {HTMLElement} list
 * @param {number|null} after
 */
async function fill(list, after) {
  try {
    const { people, next_after: next } = await getPeople(after);
    list.querySelector(".more")?.remove();
    for (const row of people) list.append(lineOf(row));
    if (!list.firstChild) list.append(el("li", { class: "muted" }, "Nobody yet."));
    if (next !== null) {
      const more = el("button", { type: "button", class: "small" }, "Show more");
      more.addEventListener("click", () => fill(list, next));
      list.append(el("li", { class: "more" }, more));
    }
  } catch (error) {
    if (error instanceof ApiError && error.status === 403) {
      list.replaceChildren(el("li", { class: "muted" }, "This key may not list people; type a name."));
      return;
    }
    close(byId("person-dialog"));
    showError(error, openPicker);
  }
}

/** @param {import("./types.js").PersonRow} row */
function lineOf(row) {
  const button = el(
    "button",
    { type: "button", class: "person-line", "aria-current": row.person === get().person ? "true" : null },
    el("span", {}, row.person),
    el("span", { class: "muted" }, plural(row.n_feedback, "verdict")),
  );
  button.addEventListener("click", () => choose(row.person));
  return el("li", {}, button);
}

/** @param {string} person */
async function choose(person) {
  try {
    take(await getPerson(person));
    close(byId("person-dialog"));
    byId("person-button").focus();
  } catch (error) {
    close(byId("person-dialog"));
    showError(error, () => choose(person));
  }
}

/** @param {import("./types.js").Person} found */
function take(found) {
  const { objectives, shares, source } = get();
  const stated = found.preference;
  sessionStorage.setItem(LAST, found.person);
  set({
    person: found.person,
    belief: found.belief,
    before: null,
    stated,
    shares: stated ? rounded(objectives.map((name) => stated[name] ?? 0)) : shares,
    source: found.belief.learning === "applied" ? "learned" : source,
  });
}

function renderStated() {
  const { person, stated } = get();
  const button = /** @type {HTMLButtonElement} */ (byId("state-button"));
  button.hidden = person === null;
  const isKept = stated !== null && JSON.stringify(sorted(stated)) === JSON.stringify(sorted(preference()));
  button.disabled = isKept;
  button.textContent = isKept ? `Kept as ${person}'s wish` : `Keep as ${person}'s wish`;
}

/** @param {Record<string, number>} shares */
const sorted = (shares) =>
  Object.entries(shares).filter(([, v]) => v > 0).map(([k, v]) => [k, v.toFixed(3)]).sort();

async function keepStated() {
  const { person } = get();
  if (!person) return;
  try {
    const stated = preference();
    await statePreference(person, stated);
    set({ stated });
    say(`Kept: ${person}'s answers follow it until something was learned.`);
  } catch (error) {
    showError(error, keepStated);
  }
}

/** Everything that is kept of the person, as a file. */
export async function exportData() {
  const { person } = get();
  if (!person) return;
  try {
    const data = await exportPerson(person);
    const file = new Blob([JSON.stringify(data, null, 2)], { type: "application/json" });
    const link = el("a", { href: URL.createObjectURL(file), download: `palate-${person}.json` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    say("Everything that is kept was saved as a file.");
  } catch (error) {
    showError(error, exportData);
  }
}

/** Forget what was learned, keep the person. */
export async function resetData() {
  const { person } = get();
  if (!person) return;
  const isSure = await confirmed({
    title: `Forget what ${person} taught?`,
    text: "The belief starts afresh. The person and the stated wish stay.",
    yes: "Forget it",
  });
  if (!isSure) return;
  try {
    await resetPerson(person);
    take(await getPerson(person));
    set({ source: "point" });
    say("Forgotten. The belief starts afresh.");
  } catch (error) {
    showError(error, resetData);
  }
}

/** Erase the person, and show the receipt. */
export async function eraseData() {
  const { person } = get();
  if (!person) return;
  const isSure = await confirmed({
    title: `Erase ${person}?`,
    text: "Every row that is kept of this person is removed. It cannot be undone.",
    yes: "Erase everything",
  });
  if (!isSure) return;
  try {
    const receipt = await erasePerson(person);
    sessionStorage.removeItem(LAST);
    set({ person: null, belief: null, before: null, stated: null, source: "point" });
    showReceipt(receipt);
  } catch (error) {
    showError(error, eraseData);
  }
}

/** @param {import("./types.js").Receipt} receipt */
function showReceipt(receipt) {
  const when = new Date(receipt.erased_at * 1000);
  const lines = [
    ["Receipt", receipt.id],
    ["Erased", when.toLocaleString()],
    ["Verdicts", String(receipt.n_feedback)],
    ["Answers", String(receipt.n_responses)],
    ["Rows in all", String(receipt.n_rows)],
    ["Storage cleared", receipt.is_cleared ? "yes" : "not yet: kept in old pages of the file"],
  ];
  tell({
    title: "Erased",
    body: [
      el("p", {}, "Nothing is kept any more. This receipt does not name the person."),
      el("dl", { class: "receipt" },
        ...lines.flatMap(([label, value]) => [el("dt", {}, label), el("dd", {}, value)])),
    ],
  });
}
