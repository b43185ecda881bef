/** Dialogs: a question with yes or no, and the key. */

import { keepKey, readKey } from "./api.js";
import { byId, el } from "./dom.js";

/**
 * A question that must be answered before something that cannot be undone.
 *
 * @param {{title: string, text: string, yes: string}} words
 * @returns {Promise<boolean>}
 */
export function confirmed({ title, text, yes }) {
  const dialog = byId("confirm-dialog");
  return new Promise((answer) => {
    const no = el("button", { type: "button" }, "Cancel");
    const go = el("button", { type: "button", class: "danger" }, yes);
    no.addEventListener("click", () => close(dialog));
    go.addEventListener("click", () => {
      answer(true);
      close(dialog);
    });
    dialog.replaceChildren(
      el("h2", { id: "confirm-dialog-title" }, title),
      el("p", {}, text),
      el("div", { class: "row dialog-actions" }, no, go),
    );
    dialog.addEventListener("close", () => answer(false), { once: true });
    open(dialog);
    no.focus();
  });
}

/**
 * Something to read, with a button that closes it.
 *
 * @param {{title: string, body: Node[]}} words
 */
export function tell({ title, body }) {
  const dialog = byId("confirm-dialog");
  const done = el("button", { type: "button", class: "primary" }, "Done");
  done.addEventListener("click", () => close(dialog));
  dialog.replaceChildren(
    el("h2", { id: "confirm-dialog-title" }, title),
    ...body,
    el("div", { class: "row dialog-actions" }, done),
  );
  open(dialog);
  done.focus();
}

/**
 * Ask for the key; it stays in this tab's session storage.
 *
 * @param {() => void} onChange
 */
export function openKey(onChange) {
  const dialog = byId("key-dialog");
  if (isOpen(dialog)) return;
  const field = el("input", {
    type: "password", id: "key-field", autocomplete: "off", spellcheck: "false", placeholder: "pk_…",
  });
  field.value = readKey() ?? "";
  const forget = el("button", { type: "button" }, "Forget it");
  const form = el(
    "form",
    {},
    el("h2", { id: "key-dialog-title" }, "API key"),
    el("p", {}, "This server answers to keys only. Yours stays in this tab and is gone when you close it."),
    el("label", { for: "key-field" }, "Key"),
    field,
    el("div", { class: "row dialog-actions" }, forget, el("button", { class: "primary" }, "Use this key")),
  );
  const keep = (/** @type {string} */ key) => {
    keepKey(key);
    close(dialog);
    onChange();
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    keep(field.value.trim());
  });
  forget.addEventListener("click", () => keep(""));
  dialog.replaceChildren(form);
  open(dialog);
  field.focus();
}

/** @param {HTMLElement} dialog */
export const open = (dialog) => /** @type {HTMLDialogElement} */ (dialog).showModal();

/** @param {HTMLElement} dialog */
export const close = (dialog) => /** @type {HTMLDialogElement} */ (dialog).close();

/** @param {HTMLElement} dialog */
const isOpen = (dialog) => /** @type {HTMLDialogElement} */ (dialog).open;
