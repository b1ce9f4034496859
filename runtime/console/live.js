// The stream of server-sent events. It is read with fetch, because EventSource sends no headers; it reconnects by itself
// and continues after the last event that arrived.
import { signal } from "./vendor/signals.js";
import { request, session } from "./api.js";

/** The last status of the process. */
export const beat = signal(null);
/** The state of the connection: `connecting`, `live` or `lost`, with the reason. */
export const link = signal({ state: "connecting" });

/** How long the stream may be silent: a status arrives every second. */
const SILENCE_MAX_MS = 10_000;
/** After this time in the background, the stream is closed: it has one of few places. */
const HIDDEN_MAX_MS = 60_000;

let abort = null;
let wanted = null;
let lastId = "";
let failures = 0;
let timer = 0;

/** Receives batches of the events after a position, by type and source, until the returned function is called. */
export function follow(filter, after, onBatch) {
  wanted = { filter, onBatch };
  lastId = String(after);
  const mine = wanted;
  restart();
  return () => {
    if (wanted !== mine) return;
    wanted = null;
    restart();
  };
}

export function start() {
  restart();
}

export function stop() {
  clearTimeout(timer);
  abort?.abort();
  abort = null;
}

function restart() {
  stop();
  if (session.value) timer = setTimeout(connect, 0);
}

async function connect() {
  const own = new AbortController();
  abort = own;
  let silence = 0;
  const alive = () => {
    clearTimeout(silence);
    silence = setTimeout(() => own.abort("silent"), SILENCE_MAX_MS);
  };
  alive();
  const listener = wanted;
  let reason = "the connection was closed";
  try {
    const params = listener ? { events: true, type: listener.filter.type, source: listener.filter.source } : {};
    const headers = lastId ? { "last-event-id": lastId } : {};
    const response = await request("GET", "/api/v1/console/live", { params, headers, signal: own.signal });
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      alive();
      text += value;
      let end;
      while ((end = text.indexOf("\n\n")) >= 0) {
        receive(text.slice(0, end), listener);
        text = text.slice(end + 2);
      }
    }
  } catch (error) {
    reason = error?.message ?? String(error);
  }
  clearTimeout(silence);
  if (abort !== own || !session.value) return;
  link.value = { state: "lost", reason };
  failures += 1;
  const wait = Math.min(10_000, 500 * 2 ** Math.min(failures, 5)) * (0.5 + Math.random() / 2);
  timer = setTimeout(connect, wait);
}

function receive(text, listener) {
  const fields = {};
  for (const line of text.split("\n")) {
    const at = line.indexOf(": ");
    if (at > 0) fields[line.slice(0, at)] = line.slice(at + 2);
  }
  if (fields.event === "status") {
    failures = 0;
    const next = JSON.parse(fields.data);
    // The first status of a connection has no rates; the last known ones are better than none.
    next.rates ??= beat.value?.rates;
    beat.value = next;
    if (link.value.state !== "live") link.value = { state: "live" };
  } else if (fields.event === "events" && listener && listener === wanted) {
    lastId = fields.id ?? lastId;
    listener.onBatch(JSON.parse(fields.data));
  }
}

let hidden = 0;
document.addEventListener("visibilitychange", () => {
  clearTimeout(hidden);
  if (document.visibilityState === "hidden") hidden = setTimeout(stop, HIDDEN_MAX_MS);
  else if (!abort) restart();
});
