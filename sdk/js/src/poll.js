import poll from "wasi:io/poll@0.2.0";
import { wait } from "./jobs.js";

// Calls `done` when the pollable is ready. Returns a function that cancels this. The pollable is disposed in both cases.
export function whenReady(pollable, done) {
  const dispose = () => pollable[Symbol.dispose]();
  const cancel = wait(pollable, () => (dispose(), done()), poll.poll);
  return () => (cancel(), dispose());
}

// Returns a promise that is fulfilled when the pollable is ready.
export function ready(pollable) {
  return new Promise((resolve) => whenReady(pollable, resolve));
}
