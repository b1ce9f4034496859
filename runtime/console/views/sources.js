// Sources: state, what each takes, its next times or what it watches, what it refused, and its last event.
import { get, lines } from "../api.js";
import { beat } from "../live.js";
import { href, update } from "../route.js";
import { count, exact, plural } from "../format.js";
import { Drawer, Empty, Line, Loaded, State, Time, html, rowProps, useLoad } from "../parts.js";
import { globMatches } from "./flow.js";

const REFRESH_MS = 5000;
/** The states of what monitors watch, worst first. */
const WORST = ["critical", "unknown", "warning", "waiting", "ok"];

export function View({ params }) {
  const { source } = params;
  const status = beat.value?.status;
  const declared = useLoad((abort) => get("/api/v1/console/flow", {}, abort), [], REFRESH_MS);
  const watched = useLoad((abort) => lines("/api/v1/monitors", {}, abort), [], REFRESH_MS);
  const of = new Map(declared.data?.sources.map((one) => [one.uri, one]));
  const counts = new Map();
  for (const edge of declared.data?.edges ?? []) counts.set(edge.from, { count: (counts.get(edge.from)?.count ?? 0) + edge.count, newest: Math.max(counts.get(edge.from)?.newest ?? 0, ...edge.newest) });
  return html`
    <div class=${`main ${source ? "open" : ""}`}>
      <main class="view" id="main" tabindex="-1">
        <header><h1>Sources</h1></header>
        ${!status ? html`<p class="loading">Loading…</p>` : status.sources.length === 0 ? html`<div class="panel"><${Empty} title="No sources"><p>The active manifests declare no source. Events can still be sent with <code>evoke emit</code>.</p><//></div>` : html`
        <div class="panel scroll"><table class="flat">
          <thead><tr><th>Source</th><th>Kind</th><th>State</th><th>Types</th><th>Taken by</th><th>Newest event</th><th>Next</th><th class="num">Refused</th></tr></thead>
          <tbody>${status.sources.map((one) => html`
            <tr key=${one.uri} ...${rowProps(() => update({ source: one.uri }, true), one.uri === source)}>
              <td class="nowrap"><button class="text mono" onClick=${() => update({ source: one.uri }, true)}>${one.uri}</button></td>
              <td>${one.kind}</td>
              <td><${SourceState} one=${one} subjects=${watched.data?.filter((subject) => subject.monitor === one.uri) ?? []} /></td>
              <td class="mono">${of.get(one.uri)?.types.join(", ")}</td>
              <td>${takers(declared.data, one.uri).map((name) => html`<a key=${name} class="mono" href=${href("functions", { function: name })}>${name}</a> `)}</td>
              <td class="nowrap">${counts.get(one.uri) ? html`<a href=${href("events", { event: counts.get(one.uri).newest, range: "all" })}>event ${counts.get(one.uri).newest}</a>` : html`<span class="dim">none lately</span>`}</td>
              <td class="nowrap">${of.get(one.uri)?.next?.[0] && html`<${Time} at=${of.get(one.uri).next[0]} />`}</td>
              <td class="num" data-label="refused">${one.refused > 0 && html`<span class="state warn" title=${one.refusals?.[0]?.reason}>${count(one.refused)}</span>`}</td>
            </tr>`)}</tbody>
        </table></div>`}
      </main>
      ${source && html`<${Drawer} title=${source} onClose=${() => update({ source: "" })}><${Whole} uri=${source} ...${{ declared, watched }} state=${status?.sources.find((one) => one.uri === source)} /><//>`}
    </div>`;
}

/** The functions that take a source by name, or one of the types that it makes. */
function takers(flow, uri) {
  const types = flow?.sources.find((one) => one.uri === uri)?.types ?? [];
  const takes = (trigger) => (trigger.source ? trigger.source === uri : trigger.types?.some((type) => types.some((glob) => globMatches(glob, type))) ?? false);
  return flow?.functions.filter((f) => f.triggers.some(takes)).map((f) => f.name) ?? [];
}

/** The state of a source; of a monitor that works, the worst state of what it watches. */
function SourceState({ one, subjects }) {
  if (one.trouble) return html`<${State} name=${one.state} /> <span>${one.trouble}</span>`;
  const worst = WORST.find((state) => subjects.some((subject) => subject.state === state));
  return html`<${State} name=${worst ?? one.state} />`;
}

function Whole({ uri, declared, watched, state }) {
  const newest = useLoad((abort) => get("/api/v1/console/events", { source: uri, limit: 10 }, abort), [uri], REFRESH_MS);
  const one = declared.data?.sources.find((source) => source.uri === uri);
  return html`
    ${state?.trouble && html`<div class="notice bad">${state.trouble}</div>`}
    <div class="acts"><a class="button" href=${href("events", { source: uri })}>Events</a></div>
    ${one?.next && html`<section class="stack tight"><h3>Next times</h3>${one.next.map((at) => html`<p key=${at}><${Time} at=${at} /> <span class="dim">${exact(at)}</span></p>`)}</section>`}
    ${one?.kind === "monitor" && html`<section class="stack tight"><h3>Watches</h3><${Loaded} of=${watched}>${(all) => all.filter((subject) => subject.monitor === uri).map((subject) => html`<${Subject} key=${subject.subject} one=${subject} />`)}<//></section>`}
    ${state?.refused > 0 && html`<section class="stack tight"><h3>Refused</h3><p>${plural(state.refused, "request")} since the start; the last reasons:</p>
      <table><tbody>${state.refusals?.map((refusal) => html`<tr key=${refusal.reason}><td class="nowrap"><${Time} at=${refusal.at} /></td><td>${refusal.reason}</td></tr>`)}</tbody></table></section>`}
    ${one ? html`<section class="stack tight"><h3>Declared</h3><pre class="command">${JSON.stringify(one.settings, null, 2)}</pre></section>` : html`<p class="dim">No active manifest declares this source.</p>`}
    <section class="stack tight"><h3>Newest events</h3>
      <${Loaded} of=${newest}>${(page) => (page.rows.length ? html`<table><tbody>${page.rows.map((row) => html`<tr key=${row.seq}><td class="nowrap"><${Time} at=${row.accepted} /></td><td><a class="mono" href=${href("events", { event: row.seq, range: "all" })}>${row.type}</a></td></tr>`)}</tbody></table>` : html`<p class="dim">None of the ${page.scanned} newest events has this source.</p>`)}<//></section>`;
}

/** One thing that a monitor watches: its value, its thresholds, and the last hour. */
function Subject({ one }) {
  const thresholds = [one.warning && `warning ${one.warning}`, one.critical && `critical ${one.critical}`].filter(Boolean).join(", ");
  return html`
    <div class="delivery">
      <div class="row between"><b class="mono">${one.subject}</b><span class="row"><b>${one.shown ?? "no value"}</b><${State} name=${one.state} /></span></div>
      <p class="dim">${one.state} since <${Time} at=${one.since} />${thresholds && `; ${thresholds}`}${one.flapping && "; the state changes so often that its changes are not reported"}</p>
      ${one.detail && html`<p>${one.detail}</p>`}
      <${Line} values=${one.last_hour} label=${`${one.subject} over the last hour, in ${one.unit || "units"}`} />
    </div>`;
}
