// Everything that came of an event: a tree and a timeline over the same rows. Long gaps are squeezed.
import { useState } from "../vendor/hooks.js";
import { getExact, lines, segment } from "../api.js";
import { go, href, update } from "../route.js";
import { clock, duration, exact, plural } from "../format.js";
import { DataTree, Drawer, Empty, Fold, Loaded, State, Time, html, leafText, rowProps, useLoad } from "../parts.js";
import { Delivery, EventPanel } from "./event.js";

/** A gap without any activity that is longer than this share of the rest is squeezed. */
const GAP_SHARE = 0.25;
/** The width of a squeezed gap, as a share of the timeline. */
const GAP_WIDTH = 0.03;
const ROWS_MAX = 1000;

/** The rows of a tree: events, deliveries, attempts. */
function rowsOf(node, open, depth = 0, rows = []) {
  const at = Date.parse(node.accepted);
  rows.push({ kind: "event", key: `e${node.seq}`, depth, node, from: at, to: at });
  for (const delivery of node.deliveries) {
    const spans = delivery.attempts.map((one) => ({ from: Date.parse(one.started), to: Date.parse(one.started) + one.duration_us / 1000, one }));
    const last = spans.at(-1);
    const due = delivery.due ? Date.parse(delivery.due) : undefined;
    const from = spans[0]?.from ?? at;
    rows.push({ kind: "delivery", key: `d${delivery.id}`, depth: depth + 1, delivery, event: node, spans, accepted: at, from: at, to: Math.max(last?.to ?? at, due && due < Date.now() + 3600e3 ? due : 0, from), due });
    for (const child of delivery.published ?? []) rowsOf(child, open, depth + 2, rows);
    if (delivery.omitted) rows.push({ kind: "note", key: `o${delivery.id}`, depth: depth + 2, text: `${plural(delivery.omitted, "published event")} left out: the trace is too large` });
  }
  if (node.cut) rows.push({ kind: "note", key: `c${node.seq}`, depth: depth + 1, text: node.cut, seq: node.seq });
  if (node.missing) rows.push({ kind: "note", key: "missing", depth: depth + 1, text: node.missing });
  return rows;
}

/** Maps times to shares of the width. Returns the mapping and the squeezed gaps. */
export function scaleOf(intervals) {
  const sorted = [...intervals].sort((a, b) => a[0] - b[0]);
  const busy = [];
  for (const [from, to] of sorted) {
    const last = busy.at(-1);
    if (last && from <= last[1]) last[1] = Math.max(last[1], to);
    else busy.push([from, to]);
  }
  if (!busy.length) return { at: () => 0, gaps: [], total: 0 };
  const work = busy.reduce((sum, [from, to]) => sum + to - from, 0);
  const holes = busy.slice(1).map(([from], at) => ({ from: busy[at][1], to: from }));
  // Short gaps stay as they are; of the long ones, each is shown with the same small width.
  const rest = Math.max(work, 1) + holes.filter((hole) => hole.to - hole.from <= Math.max(work, 5)).reduce((sum, hole) => sum + hole.to - hole.from, 0);
  for (const hole of holes) hole.squeezed = hole.to - hole.from > rest * GAP_SHARE && hole.to - hole.from > 20;
  const squeezed = holes.filter((hole) => hole.squeezed);
  const first = busy[0][0];
  const lastEnd = busy.at(-1)[1];
  const real = lastEnd - first - squeezed.reduce((sum, hole) => sum + hole.to - hole.from, 0);
  const width = 1 - Math.min(0.5, squeezed.length * GAP_WIDTH);
  const gapWidth = squeezed.length ? (1 - width) / squeezed.length : 0;
  const at = (time) => {
    let share = 0;
    let from = first;
    for (const hole of squeezed) {
      if (time <= hole.from) break;
      share += real > 0 ? ((hole.from - from) / real) * width : 0;
      if (time < hole.to) return share + gapWidth * ((time - hole.from) / (hole.to - hole.from));
      share += gapWidth;
      from = hole.to;
    }
    return Math.min(1, share + (real > 0 ? ((time - from) / real) * width : 0));
  };
  return { at, gaps: squeezed.map((hole) => ({ left: at(hole.from), width: gapWidth, ms: hole.to - hole.from })), total: lastEnd - first };
}

const percent = (share) => `${(share * 100).toFixed(3)}%`;

export function View({ params }) {
  const { event, root, pick } = params;
  const [text, setText] = useState(event ?? "");
  const find = (e) => { e.preventDefault(); update({ event: text.trim(), pick: "" }, true); };
  const selected = pick?.startsWith("e") ? pick.slice(1) : undefined;
  return html`
    <div class=${`main ${selected ? "open" : ""}`}>
      <main class="view" id="main" tabindex="-1">
        <header><h1>Trace</h1>
          <form class="filters" onSubmit=${find} role="search"><input class="wide" data-search placeholder="number or id of an event" aria-label="Event" value=${text} onInput=${(e) => setText(e.target.value)} /><button>Trace</button>
          ${event && html`<label class="row"><input type="checkbox" checked=${root !== "false"} onChange=${(e) => update({ root: e.target.checked ? "" : "false" })} /> from the first event of the chain</label>`}</form>
        </header>
        ${event ? html`<${Tree} event=${event} fromRoot=${root !== "false"} pick=${pick} />` : html`<div class="panel"><${Empty} title="Which event?"><p>Give the number or the id of an event, or choose one in the list of events.</p><a class="button" href=${href("events")}>Events</a><//></div>`}
      </main>
      ${selected && html`<${Drawer} title=${`Event ${selected}`} onClose=${() => update({ pick: "" })}><${EventPanel} reference=${selected} onFilter=${(_, value) => go("events", { text: leafText(value) })} /><//>`}
    </div>`;
}

function Tree({ event, fromRoot, pick }) {
  const load = useLoad((abort) => getExact(`/api/v1/trace/${segment(event)}`, { root: fromRoot || undefined }, abort), [event, fromRoot], 1500);
  const [open, setOpen] = useState(new Set());
  const toggle = (key) => {
    const next = new Set(open);
    if (!next.delete(key)) next.add(key);
    setOpen(next);
  };
  return html`<${Loaded} of=${load}>${(tree) => {
    const all = rowsOf(tree, open);
    const rows = all.slice(0, ROWS_MAX);
    const intervals = all.filter((row) => row.from !== undefined).flatMap((row) => [[row.from, row.from + 0.05], ...(row.spans ?? []).map((span) => [span.from, Math.max(span.to, span.from + 0.05)])]);
    const scale = scaleOf(intervals);
    const deliveries = all.filter((row) => row.kind === "delivery");
    const failed = deliveries.filter((row) => row.delivery.state === "dead");
    const waiting = deliveries.filter((row) => !["done", "dead", "purged", "removed", "damaged"].includes(row.delivery.state));
    return html`
      <p class="row"><b>${plural(all.filter((row) => row.kind === "event").length, "event")}, ${plural(deliveries.length, "delivery", "deliveries")}</b> in ${duration(scale.total)}
        ${failed.length > 0 ? html`<${State} name="dead" text=${plural(failed.length, "dead letter")} />` : waiting.length > 0 ? html`<${State} name="pending" text=${`${waiting.length} not finished`} />` : html`<${State} name="done" text="all done" />`}
        ${scale.gaps.length > 0 && html`<span class="dim">${plural(scale.gaps.length, "gap")} of ${duration(scale.gaps.reduce((sum, gap) => sum + gap.ms, 0))} squeezed</span>`}</p>
      <div class="panel scroll"><table class="trace flat">
        <thead><tr><th>What happened</th><th>State</th><th class="num">Time</th><th>From ${clock(tree.accepted)}</th></tr></thead>
        <tbody>${rows.map((row) => html`<${Row} key=${row.key} ...${{ row, scale, pick, first: Date.parse(tree.accepted), isOpen: open.has(row.key), toggle }} />`)}</tbody>
      </table></div>
      ${all.length > rows.length && html`<p class="dim">${all.length - rows.length} further rows are not shown; to see them, trace an event further down.</p>`}`;
  }}<//>`;
}

function Row({ row, scale, pick, first, isOpen, toggle }) {
  const indent = html`<svg class="indent" width=${row.depth * 14} height="1" aria-hidden="true"></svg>`;
  if (row.kind === "note") return html`<tr><td colspan="4" class="dim">${indent}${row.text} ${row.seq && html`<a href=${href("trace", { event: row.seq, root: "false" })}>Trace event ${row.seq}</a>`}</td></tr>`;
  const bars = html`<div class="timeline">${scale.gaps.map((gap, at) => html`<span key=${at} class="gap" style=${{ left: percent(gap.left), width: percent(gap.width) }} title=${`${duration(gap.ms)} without activity`}></span>`)}<${Bars} ...${{ row, scale }} /></div>`;
  if (row.kind === "event") {
    const { node } = row;
    return html`
      <tr ...${rowProps(() => update({ pick: row.key }, true), pick === row.key)}>
        <td class="what">${indent}<button class="text" onClick=${() => update({ pick: row.key }, true)}><b class="mono">${node.event?.type ?? "damaged"}</b></button> <span class="dim">event ${node.seq}</span></td>
        <td></td>
        <td class="num dim" title=${exact(node.accepted)}>+${duration(row.from - first)}</td>
        <td class="time">${bars}</td>
      </tr>`;
  }
  const { delivery, spans } = row;
  const took = spans.reduce((sum, span) => sum + span.to - span.from, 0);
  return html`
    <tr ...${rowProps(() => toggle(row.key))} aria-expanded=${isOpen}>
      <td class="what">${indent}<button class="text" onClick=${() => toggle(row.key)} aria-expanded=${isOpen}>${isOpen ? "▾" : "▸"} <span class="mono">${delivery.function}</span></button> <span class="dim">${delivery.attempts.length > 1 ? `${delivery.attempts.length} attempts` : ""}${delivery.replay ? ` replay ${delivery.replay}` : ""}</span></td>
      <td><${State} name=${delivery.state} /></td>
      <td class="num">${spans.length ? duration(took) : "–"}</td>
      <td class="time">${bars}</td>
    </tr>
    ${isOpen && html`<tr><td colspan="4"><${Unfolded} ...${{ delivery, spans, event: row.event }} /></td></tr>`}`;
}

function Bars({ row, scale }) {
  const place = (from, to) => ({ left: percent(scale.at(from)), width: percent(Math.max(0, scale.at(to) - scale.at(from))) });
  if (row.kind === "event") return html`<span class="bar point" style=${{ left: percent(scale.at(row.from)) }} title=${exact(row.node.accepted)}></span>`;
  let from = row.accepted;
  return row.spans.map(({ from: start, to, one }, at) => {
    const waited = start - from;
    const queue = html`<span class="bar queue" style=${place(from, start)} title=${`${at ? "waited for the next attempt" : "queued"} for ${duration(waited)}`}></span>`;
    from = to;
    return html`${queue}<span class=${`bar ${one.outcome === "done" ? "ok" : at === row.spans.length - 1 && row.delivery.state === "dead" ? "bad" : "warn"}`} style=${place(start, to)} title=${`attempt ${one.attempt}: ${one.outcome}${one.message ? `: ${one.message}` : ""}, ${duration(to - start)}`}></span>`;
  });
}

function Unfolded({ delivery, spans, event }) {
  const logs = useLoad((abort) => lines("/api/v1/logs", { delivery: delivery.id, limit: 200 }, abort), [delivery.id, delivery.attempts.length]);
  const queue = spans[0] ? spans[0].from - Date.parse(event.accepted) : undefined;
  return html`
    <div class="stack">
      <p class="row">${queue !== undefined && html`<span class="dim">queued for ${duration(Math.max(0, queue))}</span>`} <span class="dim mono">${delivery.trigger}</span> ${delivery.order_key && html`<span class="dim">order key <code>${delivery.order_key}</code></span>`}</p>
      <${Delivery} delivery=${delivery} />
      <section class="stack tight"><h3>Log</h3><${Loaded} of=${logs}>${(all) => (all.length ? html`<div class="lines">${all.map((line) => html`<${LogLine} line=${line} short />`)}</div>` : html`<p class="dim">The function wrote no log lines.</p>`)}<//></section>
      ${delivery.published?.length > 0 && html`<section class="stack tight"><h3>Published</h3>${delivery.published.map((node) => html`<${Fold} key=${node.seq} summary=${html`<summary class="mono">${node.event?.type}, event ${node.seq}</summary>`}>${() => html`<div class="tree"><${DataTree} value=${node.event?.data ?? null} /></div>`}<//>`)}</section>`}
    </div>`;
}

/** A line of a function's log. */
export function LogLine({ line, short }) {
  return html`<div class="logline"><span class="dim" title=${exact(line.at)}>${clock(line.at)}</span><span class=${line.level}>${line.level}</span><span>${short ? `attempt ${line.attempt ?? "–"}` : html`${line.function ?? "evoke"}${line.delivery ? html` <a href=${href("dead", { dead: line.delivery })}>${line.delivery}</a>` : ""}`}</span><span>${line.text}</span></div>`;
}
