// Requests to the admin API of this origin, with the session's key. The cookie goes along by itself.
import { signal } from "./vendor/signals.js";
import { parseExact } from "./json.js";
import { sync } from "./route.js";

const KEY = "evoke-console-key";

/** The session: undefined while it is checked, null without one, else {name, role, expires, version}. */
export const session = signal(undefined);

/** Why there is no session, as text. */
export const refused = signal("");

/** An error response: status and detail of its problem document. */
export class Problem extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

export const mayAct = () => session.value?.role === "operator";

const query = (params) => {
  const text = new URLSearchParams(Object.entries(params ?? {}).filter(([, value]) => value !== undefined && value !== "" && value !== null)).toString();
  return text ? `?${text}` : "";
};

export async function request(method, path, { params, body, headers, signal: abort } = {}) {
  const options = { method, signal: abort, credentials: "same-origin", headers: { "x-evoke-console": localStorage.getItem(KEY) ?? "", ...headers } };
  if (body !== undefined) {
    options.body = JSON.stringify(body);
    options.headers["content-type"] = "application/json";
  }
  let response;
  try {
    response = await fetch(path + query(params), options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, "Evoke cannot be reached; it may be stopped or restarting");
  }
  if (response.ok) return response;
  let detail = `${method} ${path} failed with status ${response.status}`;
  try {
    detail = (await response.json()).detail ?? detail;
  } catch { /* The response is no problem document. */ }
  if (response.status === 401 && path !== "/api/v1/console/session") session.value = null;
  throw new Problem(response.status, detail);
}

const json = async (response) => (response.status === 204 ? null : response.json());

/** Like `get`, for answers with the data of events. */
export const getExact = async (path, params, abort) => parseExact(await (await request("GET", path, { params, signal: abort })).text());

export const get = async (path, params, abort) => json(await request("GET", path, { params, signal: abort }));
export const post = async (path, body, abort) => json(await request("POST", path, { body, signal: abort }));
export const put = async (path, body) => json(await request("PUT", path, { body }));
export const del = async (path) => json(await request("DELETE", path));

/** How often a list shows the lines that have arrived. */
const PART_MS = 150;

/** Reads a list: one JSON object per line. `onPart` gets the lines so far, while others are still to come. */
export const lines = async (path, params, abort, onPart) => readLines(await request("GET", path, { params, signal: abort }), onPart);

/** Like `lines`, for a request with a body. */
export const postLines = async (path, body, abort, onPart) => readLines(await request("POST", path, { body, signal: abort }), onPart);

async function readLines(response, onPart) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  const all = [];
  let rest = "";
  let shown = 0;
  for (;;) {
    const { done, value } = await reader.read();
    const texts = (rest + (value ?? "")).split("\n");
    rest = done ? "" : texts.pop();
    for (const text of texts) if (text) all.push(JSON.parse(text));
    if (done) return all;
    if (onPart && all.length > 0 && performance.now() - shown > PART_MS) {
      shown = performance.now();
      onPart([...all]);
    }
  }
}

export const segment = encodeURIComponent;

/** Opens a session with the code in the address, or finds the one of this browser. */
export async function enter() {
  const code = /^#code=([\w-]+)$/.exec(location.hash)?.[1];
  if (code) {
    history.replaceState(null, "", "/");
    sync();
    await useCode(code);
    return;
  }
  try {
    session.value = await get("/api/v1/console/session");
  } catch (error) {
    if (error.status !== 401) refused.value = error.message;
    session.value = null;
  }
}

export async function useCode(code) {
  try {
    const { key, ...opened } = await post("/api/v1/console/session", { code });
    localStorage.setItem(KEY, key);
    refused.value = "";
    session.value = opened;
  } catch (error) {
    refused.value = error.message;
    session.value = null;
  }
}

export async function leave() {
  try {
    await del("/api/v1/console/session");
  } finally {
    localStorage.removeItem(KEY);
    session.value = null;
  }
}
