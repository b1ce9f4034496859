// The pattern playground: a pattern, checked while it is typed, and the stored events that match it, or nearly do.
import { useEffect, useRef, useState } from "../vendor/hooks.js";
import { post } from "../api.js";
import { go, href, range, update } from "../route.js";
import { count, plural, rate } from "../format.js";
import { Time, copy, html, rowProps } from "../parts.js";
import { Miss } from "./event.js";

const START = "type: [order.placed]\n# data: { total: [{ numeric: [\">\", 0] }] }\n";
const WAIT_MS = 250;
/** Searches end after this many events; a button continues. */
const SEARCH_MAX = 200_000;

/** The pattern as an entry of `on:`. */
export const asTrigger = (text) => `on:\n  - events:\n${text.trimEnd().split(/\r\n|\r|\n/).map((line) => `      ${line}`).join("\n")}\n`;

export function View({ params, Range }) {
  const [text, setText] = useState(params.pattern ?? START);
  const [state, setState] = useState({ busy: true });
  const at = range();
  const key = JSON.stringify([text, at.name, params.since, params.until]);
  const abort = useRef();
  const area = useRef();
  /** The first pattern is searched at once. */
  const isTyped = useRef(false);

  useEffect(() => { if (params.pattern !== undefined && params.pattern !== text) setText(params.pattern); }, [params.pattern]);

  const search = async (before, start, most) => {
    const own = new AbortController();
    abort.current?.abort();
    abort.current = own;
    let sum = start;
    try {
      for (;;) {
        const found = await post("/api/v1/console/pattern", { pattern: text, since_ms: at.since_ms, until_ms: at.until_ms, before, limit: 100 }, own.signal);
        if (own.signal.aborted) return;
        sum = { diagnostics: found.diagnostics, scanned: sum.scanned + found.scanned, matched: sum.matched + found.matched, rows: [...sum.rows, ...found.rows].slice(0, 100), near: [...sum.near, ...found.near].slice(0, 20), next: found.next };
        before = found.next;
        const isMore = before !== undefined && sum.scanned < most;
        setState({ ...sum, busy: isMore });
        if (!isMore) return;
      }
    } catch (error) {
      if (!own.signal.aborted) setState({ ...sum, error, busy: false });
    }
  };
  const none = { scanned: 0, matched: 0, rows: [], near: [] };
  useEffect(() => {
    setState((before) => ({ ...before, busy: true }));
    const timer = setTimeout(() => {
      if (text !== START || params.pattern !== undefined) update({ pattern: text });
      search(undefined, none, SEARCH_MAX);
    }, isTyped.current ? WAIT_MS : 0);
    isTyped.current = true;
    return () => { clearTimeout(timer); abort.current?.abort(); };
  }, [key]);

  const { diagnostics = [], scanned = 0, matched = 0, rows = [], near = [], next, busy, error } = state;
  const errors = diagnostics.filter((one) => one.severity === "error");
  const jump = ({ line, column }) => {
    const offset = text.split("\n").slice(0, line - 1).reduce((sum, one) => sum + one.length + 1, 0) + column - 1;
    area.current.focus();
    area.current.setSelectionRange(offset, offset);
  };
  const seconds = at.seconds ?? (at.since_ms && at.until_ms ? (at.until_ms - at.since_ms) / 1000 : undefined);
  return html`
    <div class="main"><main class="view" id="main" tabindex="-1">
      <header><h1>Pattern playground</h1><div class="filters"><${Range} /></div></header>
      <div class="split">
        <div class="stack">
          <label class="field">Pattern, as YAML or JSON<textarea ref=${area} rows="14" spellcheck=${false} data-search value=${text} onInput=${(e) => setText(e.target.value)} aria-describedby="mistakes" aria-invalid=${errors.length > 0}></textarea></label>
          <div id="mistakes" class="stack tight" role="status">
            ${diagnostics.map((one) => html`<div class=${`notice ${one.severity === "error" ? "bad" : "warn"}`} key=${one.line + one.message}><span class="grow"><button class="text" onClick=${() => jump(one)}><b>${one.line}:${one.column}</b> ${one.message}</button>${one.help && html`<br /><span class="dim">${one.help}</span>`}</span></div>`)}
            ${!diagnostics.length && !error && html`<p class="state ok">The pattern is valid</p>`}
          </div>
          <div class="acts"><button disabled=${errors.length > 0} onClick=${() => copy(asTrigger(text))}>Copy as trigger</button></div>
        </div>
        <div class="stack">
          ${error && html`<div class="notice bad" role="alert">${error.message}</div>`}
          ${!errors.length && html`<p role="status"><b>${plural(matched, "match", "matches")}</b> in ${plural(scanned, "event")}${seconds && next === undefined && !busy ? `, ${rate(matched / seconds)}/s` : ""}${busy ? "; searching…" : ""}
            ${next !== undefined && !busy && html` <button onClick=${() => search(next, state, scanned + SEARCH_MAX)}>Search further</button>`}</p>`}
          ${rows.length > 0 && html`<${List} title="Matches" all=${rows.map((row) => ({ row }))} />`}
          ${near.length > 0 && html`<${List} title="Near misses: one field does not match" all=${near} />`}
          ${!errors.length && !busy && !rows.length && !near.length && html`<p class="dim">In this time range, no stored event matches or nearly matches.</p>`}
        </div>
      </div>
    </main></div>`;
}

function List({ title, all }) {
  return html`
    <section class="stack tight"><h3>${title}</h3>
      <div class="panel scroll"><table class="flat"><tbody>${all.map(({ row, pattern }) => html`
        <tr key=${row.seq} ...${rowProps(() => go("events", { event: row.seq, range: "all" }))}>
          <td class="nowrap"><${Time} at=${row.accepted} /></td>
          <td class="nowrap"><a class="mono" href=${href("events", { event: row.seq, range: "all" })}>${row.type}</a></td>
          ${pattern ? html`<td class="full"><${Miss} pattern=${pattern} /></td>` : html`<td class="preview">${row.preview}</td>`}
        </tr>`)}</tbody></table></div>
    </section>`;
}
