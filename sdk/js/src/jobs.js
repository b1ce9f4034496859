// The event loop. QuickJS never runs the jobs of its own promises in a component that is called synchronously, so the
// build turns `async` functions into generators, and promise.js replaces the promises.

const jobs = [];
const waits = [];
let poll;

export function enqueue(job) {
  jobs.push(job);
}

// Calls `done` when the host's pollable is ready. `pollAll` waits for any of a list of pollables and returns the indexes
// of the ready ones. Returns a function that cancels the wait.
export function wait(pollable, done, pollAll) {
  poll = pollAll;
  const entry = { pollable, done };
  waits.push(entry);
  return () => {
    const at = waits.indexOf(entry);
    if (at >= 0) waits.splice(at, 1);
  };
}

// Runs jobs until `isDone` returns true or nothing is left that could run. Returns the last value of `isDone`.
export function run(isDone) {
  for (;;) {
    for (let next = 0; next < jobs.length; next++) jobs[next]();
    jobs.length = 0;
    if (isDone() || waits.length === 0) return isDone();
    const ready = new Set(poll(waits.map((entry) => entry.pollable)));
    const ended = waits.filter((_, index) => ready.has(index));
    const open = waits.filter((_, index) => !ready.has(index));
    waits.splice(0, waits.length, ...open);
    for (const entry of ended) entry.done();
  }
}
