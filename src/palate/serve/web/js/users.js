/** Who it is: choose, create, and everything a user may do with what is kept of them. */

import {
  ApiError, createUser, eraseUser, exportUser, getUsers, getUser, resetUser,
  statePreference,
} from "./api.js";
import { close, confirmed, open, tell } from "./dialogs.js";
import { byId, el } from "./dom.js";
import { plural } from "./format.js";
import { clearErrors, say, showError } from "./notices.js";
import { rounded } from "./simplex.js";
import { get, preference, set, watch } from "./state.js";

const LAST = "palate.user"; // of the session's storage
const NOBODY = { user: null, belief: null, before: null, stated: null, source: /** @type {const} */ ("point") };

/** Wire the button in the head of the page and the one under the triangle. */
export function mountUsers() {
  byId("user-button").addEventListener("click", openPicker);
  byId("state-button").addEventListener("click", keepStated);
  watch(["user"], ({ user }) => {
    byId("user-name").textContent = user ?? "Choose a user";
    byId("user-button").classList.toggle("chosen", user !== null);
  });
  watch(["user", "shares", "stated"], renderStated);
}

/** Go back to the user of this tab, if there was one. */
export async function restoreUser() {
  const last = sessionStorage.getItem(LAST);
  if (!last) return;
  try {
    take(await getUser(last));
  } catch (error) {
    if (!(error instanceof ApiError && [403, 404].includes(error.status))) throw error;
    sessionStorage.removeItem(LAST); // erased meanwhile, or another tenant's
    if (get().user) set(NOBODY);
  }
}

/** Let somebody choose or create a user. */
export async function openPicker() {
  const dialog = byId("user-dialog");
  const list = el("ul", { class: "users", "aria-label": "Users" });
  const field = el("input", {
    id: "new-user", autocomplete: "off", spellcheck: "false", maxlength: 200, required: true,
    placeholder: "ana",
  });
  const problem = el("p", { class: "field-error", role: "alert" });
  const form = el(
    "form",
    { class: "new-user" },
    el("label", { for: "new-user" }, "Name of a new user"),
    el("div", { class: "row" }, field, el("button", { class: "primary" }, "Create")),
    problem,
  );
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const name = field.value.trim();
    try {
      await createUser(name);
    } catch (error) {
      const isThere = error instanceof ApiError && error.code === "user_exists";
      if (!(isThere && list.dataset.closed)) { // whoever may list users picks one from the list
        problem.textContent = error instanceof ApiError ? error.message : String(error);
        return;
      }
    }
    await choose(name);
  });
  const closer = el("button", { type: "button" }, "Close");
  closer.addEventListener("click", () => close(dialog));
  dialog.replaceChildren(
    el("h2", { id: "user-dialog-title" }, "Who is it?"),
    form,
    list,
    el("div", { class: "row dialog-actions" }, closer),
  );
  open(dialog);
  field.focus();
  await fill(list, null);
}

/**
 * Add a page of users to the list.
 *
 * @param {HTMLElement} list
 * @param {number|null} after
 */
async function fill(list, after) {
  try {
    const { users, next_after: next } = await getUsers(after);
    list.querySelector(".more")?.remove();
    for (const row of users) list.append(lineOf(row));
    if (!list.firstChild) list.append(el("li", { class: "muted" }, "Nobody yet."));
    if (next !== null) {
      const more = el("button", { type: "button", class: "small" }, "Show more");
      more.addEventListener("click", () => fill(list, next));
      list.append(el("li", { class: "more" }, more));
    }
  } catch (error) {
    if (error instanceof ApiError && error.status === 403) {
      list.dataset.closed = "yes";
      list.replaceChildren(el("li", { class: "muted" }, "This key may not list users; type a name."));
      return;
    }
    close(byId("user-dialog"));
    showError(error, openPicker);
  }
}

/** @param {import("./types.js").UserRow} row */
function lineOf(row) {
  const button = el(
    "button",
    { type: "button", class: "user-line", "aria-current": row.user === get().user ? "true" : null },
    el("span", {}, row.user),
    el("span", { class: "muted" }, plural(row.n_feedback, "verdict")),
  );
  button.addEventListener("click", () => choose(row.user));
  return el("li", {}, button);
}

/** @param {string} user */
async function choose(user) {
  try {
    take(await getUser(user));
    close(byId("user-dialog"));
    byId("user-button").focus();
  } catch (error) {
    close(byId("user-dialog"));
    showError(error, () => choose(user));
  }
}

/** @param {import("./types.js").User} found */
function take(found) {
  const { objectives, shares, source } = get();
  const stated = found.preference;
  sessionStorage.setItem(LAST, found.user);
  set({
    user: found.user,
    belief: found.belief,
    before: null,
    stated,
    shares: stated ? rounded(objectives.map((name) => stated[name] ?? 0)) : shares,
    source: found.belief.learning === "applied" ? "learned" : source,
  });
}

function renderStated() {
  const { user, stated } = get();
  const button = /** @type {HTMLButtonElement} */ (byId("state-button"));
  button.hidden = user === null;
  const isKept = stated !== null && JSON.stringify(sorted(stated)) === JSON.stringify(sorted(preference()));
  button.disabled = isKept;
  button.textContent = isKept ? `Stored as ${user}'s preference` : `Store as ${user}'s preference`;
}

/** @param {Record<string, number>} shares */
const sorted = (shares) =>
  Object.entries(shares).filter(([, v]) => v > 0).map(([k, v]) => [k, v.toFixed(3)]).sort();

async function keepStated() {
  const { user } = get();
  if (!user) return;
  try {
    const stated = preference();
    await statePreference(user, stated);
    set({ stated });
    say(`Kept: ${user}'s answers follow it until something was learned.`);
  } catch (error) {
    showError(error, keepStated);
  }
}

/** Everything that is kept of the user, as a file. */
export async function exportData() {
  const { user } = get();
  if (!user) return;
  try {
    const data = await exportUser(user);
    const file = new Blob([JSON.stringify(data, null, 2)], { type: "application/json" });
    const link = el("a", { href: URL.createObjectURL(file), download: `palate-${user}.json` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    say("Everything that is kept was saved as a file.");
  } catch (error) {
    showError(error, exportData);
  }
}

/** Forget what was learned, keep the user. */
export async function resetData() {
  const { user } = get();
  if (!user) return;
  const isSure = await confirmed({
    title: `Forget what ${user} taught?`,
    text: "The belief starts afresh. The user and the stated preference stay.",
    yes: "Forget it",
  });
  if (!isSure) return;
  try {
    await resetUser(user);
    take(await getUser(user));
    set({ source: "point" });
    say("Forgotten. The belief starts afresh.");
  } catch (error) {
    showError(error, resetData);
  }
}

/** Erase the user, and show the receipt. */
export async function eraseData() {
  const { user } = get();
  if (!user) return;
  const isSure = await confirmed({
    title: `Erase ${user}?`,
    text: "Every row that is kept of this user is removed. It cannot be undone.",
    yes: "Erase everything",
  });
  if (!isSure) return;
  try {
    const receipt = await eraseUser(user);
    sessionStorage.removeItem(LAST);
    set(NOBODY);
    clearErrors(); // one of them might offer to try again what made the user anew
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
    ["Storage cleared", receipt.is_cleared ? "yes" : `not yet: ${receipt.remains}`],
  ];
  tell({
    title: "Erased",
    body: [
      el("p", {}, "Every row of the user is deleted. This receipt does not name the user."),
      el("dl", { class: "receipt" },
        ...lines.flatMap(([label, value]) => [el("dt", {}, label), el("dd", {}, value)])),
    ],
  });
}
