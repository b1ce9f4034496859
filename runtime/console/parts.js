// The parts that all views are made of.
import { Component, h } from "./vendor/preact.js";
import { useCallback, useEffect, useMemo, useRef, useState } from "./vendor/hooks.js";
import { computed, signal } from "./vendor/signals.js";
import htm from "./vendor/htm.js";
import { ago, count, cut, exact } from "./format.js";
import { TooDeep } from "./json.js";

export const html = htm.bind(h);

/** The current second, for texts such as `3 s ago`. */
export const second = signal(Date.now());
setInterval(() => { if (document.visibilityState === "visible") second.value = Date.now(); }, 1000);

/** Short notices at the edge of the page. */
export const toasts = signal([]);
export function toast(text, kind = "ok") {
  const one = { text, kind };
  toasts.value = [...toasts.value.slice(-3), one];
  setTimeout(() => { toasts.value = toasts.value.filter((other) => other !== one); }, kind === "bad" ? 12_000 : 5_000);
}

/** Copies a text, or the text that a function returns. */
export async function copy(source) {
  try {
    const text = typeof source === "function" ? source() : source;
    await navigator.clipboard.writeText(text);
    toast("Copied");
  } catch (error) {
    toast(error instanceof TooDeep ? error.message : "The browser does not allow copying here", "bad");
  }
}

/**
 * Loads data; again when `keys` change, or every `every` milliseconds. Keeps the last data while it loads. The first time,
 * `load` may show what it has so far, with its second argument.
 */
export function useLoad(load, keys, every) {
  const [state, setState] = useState({ data: undefined, error: undefined });
  const [round, setRound] = useState(0);
  const again = useCallback(() => setRound((n) => n + 1), []);
  const last = useRef();
  const isWhole = useRef(false);
  useEffect(() => {
    const abort = new AbortController();
    let timer = 0;
    const name = JSON.stringify(keys);
    if (last.current !== name) {
      setState({ data: undefined, error: undefined });
      isWhole.current = false;
    }
    last.current = name;
    const onPart = (data) => { if (!abort.signal.aborted && !isWhole.current) setState({ data, error: undefined, isPart: true }); };
    const run = async () => {
      try {
        const data = await load(abort.signal, onPart);
        if (!abort.signal.aborted) {
          isWhole.current = true;
          setState({ data, error: undefined });
        }
      } catch (error) {
        if (!abort.signal.aborted) setState(({ data }) => ({ data, error }));
      }
      if (every && !abort.signal.aborted) timer = setTimeout(() => (document.visibilityState === "visible" ? run() : (timer = setTimeout(run, every))), every);
    };
    run();
    return () => {
      abort.abort();
      clearTimeout(timer);
    };
  }, [...keys, round]);
  return { ...state, again };
}

/** Shows the state of a load until there is data, and that more is to come. */
export function Loaded({ of: { data, error, isPart, again }, children }) {
  return html`
    ${error && html`<div class="notice bad" role="alert"><span class="grow">${error.message}</span><button onClick=${again}>Try again</button></div>`}
    ${data !== undefined && children(data)}
    ${(isPart || (data === undefined && !error)) && html`<p class="loading" aria-busy="true">${isPart ? `Loading… ${count(data.length)} so far` : "Loading…"}</p>`}`;
}

/** A time such as `3 s ago`. The text alone follows the clock, and changes nothing while it reads the same. */
export function Time({ at }) {
  const text = useMemo(() => computed(() => ago(at, second.value)), [at]);
  return html`<time datetime=${at} title=${exact(at)}>${text}</time>`;
}

export const Id = ({ text, max }) => html`<button class="text mono" title=${`${text} (click to copy)`} onClick=${(e) => { e.stopPropagation(); copy(String(text)); }}>${cut(String(text), max)}</button>`;

const STATES = { done: "ok", ok: "ok", running: "ok", live: "ok", critical: "bad", warning: "warn", unknown: "warn", dead: "bad", failing: "bad", damaged: "bad", degraded: "bad", retrying: "warn", paused: "warn", blocked: "warn", ready: "wait", pending: "wait", scheduled: "wait", purged: "off", removed: "off", nobody: "off" };

/** A state as a word, a shape and a colour. */
export const State = ({ name, text }) => html`<span class=${`state ${STATES[name] ?? "wait"}`}>${text ?? name}</span>`;

/** What became of an event's deliveries. */
export function Outcome({ of }) {
  if (!of) return html`<${State} name="pending" text="…" />`;
  const { done, pending, retrying, dead, purged, damaged } = of;
  if (dead + damaged) return html`<${State} name="dead" text=${`${dead + damaged} dead`} />`;
  if (retrying) return html`<${State} name="retrying" text=${`${retrying} retrying`} />`;
  if (pending) return html`<${State} name="pending" text=${`${pending} pending`} />`;
  if (done) return html`<${State} name="done" text=${done > 1 ? `${done} done` : "done"} />`;
  if (purged) return html`<${State} name="purged" />`;
  return html`<${State} name="nobody" text="no function" />`;
}

export const Command = ({ text }) => html`<div class="command"><pre class="grow">${text}</pre><button class="plain" onClick=${() => copy(text)} aria-label="Copy the command">Copy</button></div>`;

export const Empty = ({ title, children }) => html`<div class="empty"><h2>${title}</h2>${children}</div>`;

/** A panel beside the list; Escape closes it. */
export function Drawer({ title, onClose, children }) {
  const ref = useRef();
  useEffect(() => { ref.current?.focus(); }, [title]);
  return html`
    <aside class="drawer" aria-label=${title} tabindex="-1" ref=${ref} data-drawer>
      <header><h2 class="grow">${title}</h2><button class="plain" onClick=${onClose} data-close title="Close (Esc)">Close</button></header>
      <div class="body">${children}</div>
    </aside>`;
}

/** A modal dialog that keeps the focus. */
export function Dialog({ title, wide, onClose, children }) {
  const ref = useRef();
  useEffect(() => {
    const dialog = ref.current;
    dialog.showModal();
    dialog.querySelector("[data-focus]")?.focus();
    return () => dialog.close();
  }, []);
  return html`
    <dialog ref=${ref} class=${wide ? "wide" : ""} aria-label=${title} onCancel=${(e) => { e.preventDefault(); onClose(); }}>
      <h1>${title}</h1>${children}
    </dialog>`;
}

/** Opens on Enter and click, and is found by the keys j and k. */
export const rowProps = (open, selected) => ({
  "data-row": true,
  tabindex: "0",
  "aria-selected": selected ? "true" : undefined,
  onClick: (e) => { if (!e.target.closest("a, button, input, label")) open(); },
  onKeyDown: (e) => { if (e.key === "Enter" && e.target === e.currentTarget) open(); },
});

/** A part that the user opens. Its content is made only while it is open, because it may be large. */
export function Fold({ summary, open = false, children }) {
  const [isOpen, setOpen] = useState(open);
  return html`<details open=${isOpen} onToggle=${(e) => setOpen(e.currentTarget.open)}>${summary}${isOpen && children()}</details>`;
}

/** Shows an error in place of a part of the page that cannot be drawn, until `at` changes. */
export class Boundary extends Component {
  componentDidCatch(error) {
    this.setState({ error, at: this.props.at });
  }

  render({ at, children, onClose }, { error, at: failed }) {
    if (!error || failed !== at) return children;
    return html`<div class="view"><div class="notice bad" role="alert"><span class="grow">This part of the page cannot be shown: ${error.message}</span><button onClick=${() => this.setState({ error: undefined })}>Try again</button>${onClose && html`<button onClick=${onClose}>Close</button>`}</div></div>`;
  }
}

/** A number whose text JavaScript would change. */
const isRaw = (value) => JSON.isRawJSON?.(value) ?? false;
const isBranch = (value) => value !== null && typeof value === "object" && !isRaw(value);
const scalar = (value) => (typeof value === "string" ? "string" : typeof value === "number" || isRaw(value) ? "number" : "word");
/** A leaf of JSON as text, as a filter takes it. */
export const leafText = (value) => (isRaw(value) ? value.rawJSON : String(value));

/** The number of values that a tree shows before the user opens a part of it. */
const OPEN_MAX = 500;

/** The arrays and objects of a tree that are open at first: small ones near the root, as long as they are few in all. */
function openAtFirst(value) {
  const open = new Set();
  let shown = 0;
  let level = [value].filter(isBranch);
  for (let depth = 0; depth < 3; depth += 1) {
    const next = [];
    for (const one of level) {
      const items = Object.values(one);
      if (items.length > 50 || shown + items.length > OPEN_MAX) continue;
      shown += items.length;
      open.add(one);
      next.push(...items.filter(isBranch));
    }
    level = next;
  }
  return open;
}

/** JSON as a tree. `onPick(path, value)` offers a filter and a pattern for each leaf. */
export function DataTree({ value, onPick }) {
  const open = useMemo(() => openAtFirst(value), [value]);
  return html`<${Branch} ...${{ value, open, onPick, path: [] }} />`;
}

function Branch({ value, open, path, name, onPick }) {
  const label = name !== undefined && html`<span class="key">${name}: </span>`;
  if (isBranch(value)) {
    const entries = Object.entries(value);
    const [first, last] = Array.isArray(value) ? ["[", "]"] : ["{", "}"];
    if (!entries.length) return html`<div class="leaf">${label}${first}${last}</div>`;
    const summary = html`<summary>${label}<span class="dim">${first} ${entries.length} ${last}</span></summary>`;
    return html`<${Fold} open=${open.has(value)} summary=${summary}>${() => html`
        <ul>${entries.slice(0, 500).map(([key, item]) => html`<li key=${key}><${Branch} name=${key} value=${item} open=${open} path=${[...path, Array.isArray(value) ? undefined : key]} onPick=${onPick} /></li>`)}
        ${entries.length > 500 && html`<li class="dim">${entries.length - 500} more; the raw form has all</li>`}</ul>`}<//>`;
  }
  const steps = path.filter((step) => step !== undefined);
  return html`
    <div class="leaf">${label}<span class=${scalar(value)}>${JSON.stringify(value)}</span>
      ${onPick && html`<span class="offer">
        <button class="plain" onClick=${() => onPick("filter", steps, value)}>Filter by this</button>
        <button class="plain" onClick=${() => onPick("pattern", steps, value)}>Pattern from this</button>
      </span>`}
    </div>`;
}

/** A line over time; `values` are at equal distances, and null where there is none. */
export function Line({ values, label }) {
  const known = values.filter((value) => value !== null);
  if (known.length < 2) return null;
  const [low, high] = [Math.min(...known), Math.max(...known)];
  const place = (value, at) => `${((at / (values.length - 1)) * 100).toFixed(2)},${(38 - ((value - low) / (high - low || 1)) * 36).toFixed(2)}`;
  const points = values.map((value, at) => (value === null ? "" : place(value, at))).filter(Boolean).join(" ");
  return html`<svg class="spark line" viewBox="0 0 100 40" preserveAspectRatio="none" role="img" aria-label=${label}><polyline points=${points} /></svg>`;
}

/** Bars over time: `good` and `bad` of each step. */
export function Spark({ steps, label }) {
  const max = Math.max(1, ...steps.map((step) => step.good + step.bad));
  const width = 100 / Math.max(steps.length, 30);
  return html`
    <svg class="spark" viewBox="0 0 100 40" preserveAspectRatio="none" role="img" aria-label=${label}>
      ${steps.map((step, at) => {
        const [good, bad] = [(step.good / max) * 38, (step.bad / max) * 38];
        return html`<g key=${step.at}><title>${`${step.at}: ${step.good} done, ${step.bad} failed`}</title>
          <rect class="ok" x=${at * width} width=${width * 0.8} y=${40 - good} height=${good} />
          <rect class="bad" x=${at * width} width=${width * 0.8} y=${40 - good - bad} height=${bad} /></g>`;
      })}
    </svg>`;
}
