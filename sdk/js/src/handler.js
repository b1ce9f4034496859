// The component's export: calls the function, and converts its result.

import { Event, encodeData } from "./event.js";
import { Reject, Retry } from "./failure.js";
import { run } from "./jobs.js";
import { log } from "./log.js";
import { Promise } from "./promise.js";
import { frames } from "./stack.js";

globalThis.Promise = Promise;
globalThis.queueMicrotask = (job) => void Promise.resolve().then(job);
Error.stackTraceLimit = 30;

// The delivery that the function handles.
export let current;

let kept;

export function makeHandler(handle) {
  if (typeof handle !== "function") throw new TypeError("the default export is not a function: write `export default function (event) { … }`");
  kept = warmUp();
  return {
    handle(event, delivery) {
      current = delivery;
      try {
        settle(handle(new Event(event), delivery));
      } catch (error) {
        throw toFailure(error);
      }
    },
  };
}

// Runs the common code of attempts at build time: QuickJS makes most of its built-in functions at their first use. Returns
// the objects that it made, because QuickJS drops the hidden class of its last object.
function warmUp() {
  const { data } = encodeData({ a: [1, 2.5, "x", true, null] });
  const attributes = { id: "1", source: "/a", type: "a", subject: null, time: null, dataschema: null };
  const event = new Event({ ...attributes, datacontenttype: "application/json", extensions: [["a", "a"]], data });
  return [event, event.data];
}

// Waits for the promise that an async function returned.
function settle(result) {
  if (typeof result?.then !== "function") return;
  let state = "pending", value;
  Promise.resolve(result).then(() => (state = "done"), (error) => ([state, value] = ["failed", error]));
  if (!run(() => state !== "pending")) throw new Retry("the function waits for a promise that nothing settles");
  if (state === "failed") throw value;
}

// Returns the contract's form of a failure: see `failure` in function.wit.
function toFailure(error) {
  if (error instanceof Reject) return { tag: "reject", val: error.message };
  if (error instanceof Retry) {
    const afterMs = error.afterMs == null ? null : Math.max(0, Math.round(error.afterMs));
    return { tag: "retry", val: { message: error.message, afterMs } };
  }
  const text = error instanceof Error ? `${error.name}: ${error.message}` : `threw ${String(error)}`;
  const stack = frames(error);
  log.error([text, ...stack.map((frame) => `    at ${frame}`)].join("\n"));
  for (let cause = error?.cause; cause instanceof Error; cause = cause.cause) {
    log.error([`caused by ${cause.name}: ${cause.message}`, ...frames(cause).map((frame) => `    at ${frame}`)].join("\n"));
  }
  const message = stack.length > 0 ? `${text}, at ${stack[0]}` : text;
  return { tag: "retry", val: { message, afterMs: null } };
}
