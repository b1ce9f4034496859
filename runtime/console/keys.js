// The keyboard. Keys do nothing while the user types, or while a dialog is open.
import { signal } from "./vendor/signals.js";
import { go } from "./route.js";

/** Whether the list of keys is shown. */
export const help = signal(false);

export const VIEW_KEYS = { e: "events", f: "flow", t: "trace", n: "functions", d: "dead", p: "pending", m: "patterns", s: "state", r: "replays", l: "logs", o: "sources", h: "health" };

export const KEYS = [
  ["/", "search"],
  ["j k", "next or previous row"],
  ["Enter", "open the row"],
  ["Esc", "close the panel or the dialog"],
  ["x", "select the row"],
  ["r", "redrive, or retry"],
  ["g, then a letter", "go to a view: e events, t trace, n functions, d dead letters, p pending, f flow, m patterns, o sources, s state, r replays, l logs, h health"],
  ["?", "show this list"],
];

let prefix = 0;

addEventListener("keydown", (e) => {
  if (e.ctrlKey || e.metaKey || e.altKey || e.defaultPrevented) return;
  if (document.querySelector("dialog[open]")) return;
  const types = e.target.closest?.("input:not([type=checkbox]), textarea, select");
  if (types) {
    if (e.key === "Escape") e.target.blur();
    return;
  }
  if (performance.now() - prefix < 1500 && VIEW_KEYS[e.key]) {
    prefix = 0;
    e.preventDefault();
    go(VIEW_KEYS[e.key]);
    return;
  }
  prefix = 0;
  const row = document.activeElement?.closest("[data-row]");
  const act = {
    g: () => { prefix = performance.now(); },
    "/": () => document.querySelector("[data-search]")?.focus(),
    j: () => step(row, 1),
    k: () => step(row, -1),
    x: () => row?.querySelector("input[type=checkbox]")?.click(),
    r: () => (row?.querySelector("[data-key=r]") ?? document.querySelector("[data-drawer] [data-key=r]") ?? document.querySelector("[data-key=r]"))?.click(),
    "?": () => { help.value = true; },
    Escape: () => (document.querySelector("[data-drawer] [data-close]") ?? document.querySelector("[data-close]"))?.click(),
  }[e.key];
  if (act) {
    e.preventDefault();
    act();
  }
});

function step(row, by) {
  const rows = [...document.querySelectorAll(".view [data-row]")];
  const next = rows[row ? rows.indexOf(row) + by : 0];
  next?.focus();
  next?.scrollIntoView({ block: "nearest" });
}
