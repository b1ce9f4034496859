// Acts: each names what it will touch, asks once when it cannot be undone, shows its progress, and is listed.
import { signal } from "./vendor/signals.js";
import { useEffect, useRef, useState } from "./vendor/hooks.js";
import { mayAct, session } from "./api.js";
import { indented, parseExact } from "./json.js";
import { Dialog, html, toast } from "./parts.js";

/** The dialog that is open, as a function of no arguments; null without one. */
export const dialog = signal(null);
/** What was done in this page, newest first. */
export const done = signal([]);

const WHY_NOT = "This session has the role viewer, which can read everything and change nothing. To make changes, open the console with an operator's token.";

/** A button of an act: disabled for viewers, with the reason. */
export function Act({ children, class: name, disabled, why, onClick, ...rest }) {
  const not = mayAct() ? (disabled ? why : undefined) : WHY_NOT;
  const blocked = !mayAct() || disabled;
  return html`<button ...${rest} class=${name} disabled=${blocked} title=${not} aria-description=${not} onClick=${(e) => { e.stopPropagation(); onClick(e); }}>${children}</button>`;
}

export const ViewerNotice = () => session.value?.role === "viewer" && html`<p class="dim">${WHY_NOT}</p>`;

/** Runs an act, tells its result and lists it. Returns whether it succeeded. */
export async function run(what, act) {
  try {
    const text = await act();
    const said = typeof text === "string" ? text : what;
    done.value = [{ at: new Date().toISOString(), what: said, ok: true }, ...done.value].slice(0, 100);
    toast(said);
    return true;
  } catch (error) {
    done.value = [{ at: new Date().toISOString(), what: `${what}: ${error.message}`, ok: false }, ...done.value].slice(0, 100);
    toast(`${what} failed: ${error.message}`, "bad");
    return false;
  }
}

/** Asks before an act that cannot be undone. */
export function confirm({ title, text, yes, danger = true, act }) {
  dialog.value = () => html`<${Confirm} ...${{ title, text, yes, danger, act }} />`;
}

function Confirm({ title, text, yes, danger, act }) {
  const [busy, setBusy] = useState(false);
  const close = () => { dialog.value = null; };
  const go = async () => {
    setBusy(true);
    await run(title, act);
    close();
  };
  return html`
    <${Dialog} title=${title} onClose=${close}>
      <p>${text}</p>
      <div class="buttons">
        <button onClick=${close} data-focus>Cancel</button>
        <button class=${danger ? "danger" : "primary"} disabled=${busy} onClick=${go} data-confirm>${busy ? "Working…" : yes}</button>
      </div>
    <//>`;
}

/** Does one step for each item, at a rate, with progress and a stop button. `step(item)` may fail; the next ones follow. */
export function bulk({ title, items, step, verb, rates = [10, 50, 200], after }) {
  dialog.value = () => html`<${Bulk} ...${{ title, items, step, verb, rates, after }} />`;
}

function Bulk({ title, items, step, verb, rates, after }) {
  const [rate, setRate] = useState(rates[1]);
  const [state, setState] = useState({ phase: "asking", at: 0, failed: 0 });
  const stopped = useRef(false);
  useEffect(() => () => { stopped.current = true; }, []);
  const close = () => {
    stopped.current = true;
    dialog.value = null;
    after?.();
  };
  const go = async () => {
    let [at, failed] = [0, 0];
    let error = "";
    const started = performance.now();
    setState({ phase: "running", at, failed });
    for (const item of items) {
      if (stopped.current) break;
      const due = started + (at * 1000) / rate;
      if (due > performance.now() + 4) await new Promise((resolve) => setTimeout(resolve, due - performance.now()));
      try {
        await step(item);
      } catch (problem) {
        failed += 1;
        error = problem.message;
      }
      at += 1;
      setState({ phase: "running", at, failed, error });
    }
    const what = `${title}: ${at - failed} of ${items.length} ${verb}${failed ? `, ${failed} failed` : ""}`;
    done.value = [{ at: new Date().toISOString(), what, ok: !failed }, ...done.value].slice(0, 100);
    setState({ phase: "ended", at, failed, error });
    after?.();
  };
  const { phase, at, failed, error } = state;
  return html`
    <${Dialog} title=${title} onClose=${close}>
      ${phase === "asking" && html`<p class="row"><label>At most <select value=${rate} onChange=${(e) => setRate(Number(e.target.value))}>${rates.map((n) => html`<option value=${n}>${n}</option>`)}</select> per second</label></p>`}
      ${phase !== "asking" && html`<p aria-live="polite"><progress max=${items.length} value=${at}></progress><br />${at - failed} of ${items.length} ${verb}${failed > 0 && `, ${failed} failed: ${error}`}${phase === "ended" && (at < items.length ? "; stopped" : "; finished")}</p>`}
      <div class="buttons">
        ${phase === "running" ? html`<button class="danger" onClick=${() => { stopped.current = true; }}>Stop</button>` : html`<button onClick=${close} data-focus>${phase === "ended" ? "Close" : "Cancel"}</button>`}
        ${phase === "asking" && html`<button class="primary" onClick=${go} data-confirm>Start</button>`}
      </div>
    <//>`;
}

/** The mistake in an event that is about to be sent, if there is one. */
export function checkEvent(event) {
  if (event === null || typeof event !== "object" || Array.isArray(event)) return "An event must be a JSON object";
  return event.type ? undefined : "An event must have a type";
}

/** Lets the user edit JSON before it is sent. `check(value)` returns a mistake; `send(value)` the text of the result. */
export function edit({ title, text, value, label, check, yes, send }) {
  let start;
  try {
    start = indented(value);
  } catch (error) {
    toast(error.message, "bad");
    return;
  }
  dialog.value = () => html`<${Edit} ...${{ title, text, start, label, check, yes, send }} />`;
}

function Edit({ title, text, start, label, check, yes, send }) {
  const [json, setJson] = useState(start);
  const [busy, setBusy] = useState(false);
  let parsed, wrong;
  try {
    parsed = parseExact(json);
    wrong = check?.(parsed);
  } catch (error) {
    wrong = error.message;
  }
  const close = () => { dialog.value = null; };
  const go = async () => {
    setBusy(true);
    if (await run(title, () => send(parsed))) close();
    else setBusy(false);
  };
  return html`
    <${Dialog} title=${title} wide onClose=${close}>
      <p class="dim">${text}</p>
      <textarea rows="16" spellcheck=${false} aria-label=${label} value=${json} onInput=${(e) => setJson(e.target.value)} data-edit data-focus></textarea>
      <p class=${wrong ? "state bad" : "dim"} role="status">${wrong ?? "Valid JSON"}</p>
      <div class="buttons"><button onClick=${close}>Cancel</button><button class="primary" disabled=${busy || wrong} onClick=${go} data-confirm>${yes}</button></div>
    <//>`;
}
