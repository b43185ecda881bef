/** Requests to the server: one function each, one kind of error. */

import { events } from "./sse.js";

const KEY = "palate.key"; // of the session's storage: gone when the tab is closed

/** An answer of status 400 and above, or none at all. */
export class ApiError extends Error {
  /**
   * @param {string} message
   * @param {number} status Zero where the server could not be reached.
   * @param {number|null} retryAfter Seconds.
   * @param {string|null} code For programs.
   */
  constructor(message, status, retryAfter = null, code = null) {
    super(message);
    this.name = "ApiError";
    this.status = status;
    this.retryAfter = retryAfter;
    this.code = code;
  }
}

/** The key that goes with every request, or `null`. */
export const readKey = () => sessionStorage.getItem(KEY);

/** @param {string} key Empty to forget it. */
export function keepKey(key) {
  if (key) sessionStorage.setItem(KEY, key);
  else sessionStorage.removeItem(KEY);
}

/** @returns {Promise<import("./types.js").Library>} */
export const getLibrary = () => json("GET", "v1/library");

/**
 * @param {Record<string, number>[]} preferences
 * @param {AbortSignal} signal
 * @returns {Promise<{points: import("./types.js").RegretPoint[]}>}
 */
export const getRegret = (preferences, signal) =>
  json("POST", "v1/regret", { preferences }, signal);

/**
 * What each method costs and gains, for each preference.
 *
 * @param {Record<string, number>[]} preferences
 * @param {AbortSignal} signal
 * @returns {Promise<import("./types.js").Methods>}
 */
export const getMethods = (preferences, signal) =>
  json("POST", "v1/methods", { preferences }, signal);

/**
 * @param {number|null} after
 * @returns {Promise<{users: import("./types.js").UserRow[], next_after: number|null}>}
 */
export const getUsers = (after) =>
  json("GET", `v1/users?limit=50${after === null ? "" : `&after=${after}`}`);

/**
 * @param {string} user
 * @returns {Promise<import("./types.js").User>}
 */
export const getUser = (user) => json("GET", userPath(user));

/** @param {string} user */
export const createUser = (user) => json("POST", "v1/users", { user });

/**
 * @param {string} user
 * @param {Record<string, number>|null} preference
 */
export const statePreference = (user, preference) =>
  json("PATCH", userPath(user), { preference });

/** @param {string} user */
export const resetUser = (user) => json("POST", `${userPath(user)}/reset`);

/** @param {string} user */
export const exportUser = (user) => json("GET", `${userPath(user)}/export`);

/**
 * @param {string} user
 * @returns {Promise<import("./types.js").Receipt>}
 */
export const eraseUser = (user) => json("DELETE", userPath(user));

/**
 * @param {object} body
 * @param {AbortSignal} signal
 * @returns {Promise<import("./types.js").Question>}
 */
export const askQuestion = (body, signal) => json("POST", "v1/questions", body, signal);

/**
 * @param {object} body
 * @returns {Promise<{is_new: boolean, user: string, belief: import("./types.js").Belief}>}
 */
export const sendFeedback = (body) => json("POST", "v1/feedback", body);

/**
 * @param {string} user
 * @param {string} key Of the feedback, as its sender gave it.
 */
export const withdrawFeedback = (user, key) =>
  json("DELETE", `${userPath(user)}/feedback/${encodeURIComponent(key)}`);

/** Whether the server answers at all. */
export async function isAlive() {
  try {
    return (await fetch("health", { cache: "no-store" })).ok;
  } catch {
    return false;
  }
}

/**
 * The chunks of a streamed chat completion.
 *
 * @param {object} body
 * @param {AbortSignal} signal
 * @returns {AsyncGenerator<any>}
 */
export async function* streamChat(body, signal) {
  const response = await send("POST", "v1/chat/completions", body, signal);
  if (!response.body) throw new ApiError("The answer had no body.", response.status);
  try {
    for await (const data of events(response.body)) {
      if (data === "[DONE]") return;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new ApiError(chunk.error.message, 503, null, chunk.error.code);
      yield chunk;
    }
    throw new ApiError("The answer broke off: the connection was lost.", 0);
  } catch (error) {
    if (error instanceof ApiError || signal.aborted) throw error;
    throw new ApiError("The answer broke off: the connection was lost.", 0);
  }
}

/** @param {string} user */
const userPath = (user) => `v1/users/${encodeURIComponent(user)}`;

/** A key for feedback; the second where the page was not loaded over HTTPS or from this machine. */
export function randomKey() {
  if (crypto.randomUUID) return crypto.randomUUID();
  return Array.from(crypto.getRandomValues(new Uint32Array(4)), (v) => v.toString(16)).join("-");
}

/**
 * @param {string} method
 * @param {string} path
 * @param {object} [body]
 * @param {AbortSignal} [signal]
 */
async function json(method, path, body, signal) {
  return (await send(method, path, body, signal)).json();
}

/**
 * @param {string} method
 * @param {string} path
 * @param {object} [body]
 * @param {AbortSignal} [signal]
 */
async function send(method, path, body, signal) {
  /** @type {Record<string, string>} */
  const headers = {};
  const key = readKey();
  if (key) headers.Authorization = `Bearer ${key}`;
  if (method !== "GET") headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(path, {
      method,
      headers,
      signal,
      body: body ? JSON.stringify(body) : undefined,
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError("The server cannot be reached.", 0);
  }
  if (!response.ok) throw await errorOf(response);
  return response;
}

/** @param {Response} response */
async function errorOf(response) {
  const wait = Number(response.headers.get("Retry-After"));
  let message = `The server answered with status ${response.status}.`;
  let code = null;
  try {
    const { error } = await response.json();
    message = error.message ?? message;
    code = error.code ?? null;
  } catch {
    // not JSON: something between the page and the server answered
  }
  return new ApiError(message, response.status, wait > 0 ? wait : null, code);
}
