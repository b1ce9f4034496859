import clock from "wasi:clocks/monotonic-clock@0.2.0";
import { whenReady } from "./poll.js";

const timers = new Map();
let last = 0;

export function setTimeout(action, ms = 0, ...values) {
  const id = ++last;
  const pollable = clock.subscribeDuration(Math.round(Math.max(0, Number(ms) || 0) * 1e6));
  const cancel = whenReady(pollable, () => {
    timers.delete(id);
    action(...values);
  });
  timers.set(id, cancel);
  return id;
}

export function clearTimeout(id) {
  timers.get(id)?.();
  timers.delete(id);
}
