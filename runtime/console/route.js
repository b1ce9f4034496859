// The state of the page is in the fragment of its address: #/view?name=value. A link to it shows the same.
import { signal } from "./vendor/signals.js";

/** Parameters that all views share. */
const SHARED = ["range", "since", "until"];

function parse() {
  const [path, query = ""] = location.hash.slice(1).split("?");
  return { view: path.replace(/^\//, "") || "events", params: Object.fromEntries(new URLSearchParams(query)) };
}

export const route = signal(parse());

/** Reads the address again, after it was replaced. */
export const sync = () => { route.value = parse(); };

addEventListener("hashchange", sync);

/** Returns the address of a view. The shared parameters stay unless they are given. */
export function href(view, params = {}) {
  const all = {};
  for (const name of SHARED) all[name] = route.value.params[name];
  Object.assign(all, params);
  const text = new URLSearchParams(Object.entries(all).filter(([, value]) => value !== undefined && value !== null && value !== "")).toString();
  return `#/${view}${text ? `?${text}` : ""}`;
}

export const go = (view, params) => { location.hash = href(view, params); };

/** Changes parameters of the current view, without a new entry in the history unless `push` is set. */
export function update(params, push = false) {
  const next = href(route.value.view, { ...route.value.params, ...params });
  if (next === location.hash) return;
  if (push) {
    location.hash = next;
  } else {
    history.replaceState(null, "", next);
    sync();
  }
}

const RANGES = { "15m": 900, "1h": 3600, "1d": 86400 };

/** Returns the chosen time range: its length in seconds, and both ends in milliseconds; `until` is absent while it is live. */
export function range() {
  const { range: name = "1h", since, until } = route.value.params;
  if (name === "all") return { name };
  if (name === "own") return { name, since_ms: Date.parse(since) || undefined, until_ms: Date.parse(until) || undefined };
  const seconds = RANGES[name] ?? 3600;
  return { name: RANGES[name] ? name : "1h", seconds, since_ms: Date.now() - seconds * 1000 };
}
