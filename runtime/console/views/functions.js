// The functions: rates, errors, percentiles and backlog; one of them whole in the drawer.
import { get, lines, post } from "../api.js";
import { beat } from "../live.js";
import { href, range, update } from "../route.js";
import { causeKey, count, duration, plural, rate } from "../format.js";
import { Drawer, Empty, Loaded, Spark, State, Time, html, rowProps, useLoad } from "../parts.js";
import { Act, ViewerNotice, confirm, run } from "../acts.js";
import { LogLine } from "./trace.js";

const REFRESH_MS = 5000;
const ms = (seconds) => (seconds === undefined ? "–" : duration(seconds * 1000));
const stateOf = (f) => (!f.in_force ? ["off", "in no manifest"] : f.paused ? ["paused", "paused"] : f.compiling ? ["ready", "being compiled"] : f.failing ? ["failing", "failing"] : f.circuit ? ["failing", "circuit open"] : ["ok", f.running ? "running" : "ok"]);

export async function setPaused(name, isPaused) {
  await post(isPaused ? "/api/v1/resume" : "/api/v1/pause", { name });
  return isPaused ? `${name} runs again` : `${name} is paused; its deliveries stay pending`;
}

export function View({ params, Range }) {
  const { function: chosen, text = "" } = params;
  const { seconds = 86400 } = range();
  const rates = useLoad((abort) => get("/api/v1/console/rates", { range: seconds }, abort), [seconds], REFRESH_MS);
  const of = new Map(rates.data?.functions.map((f) => [f.name, f]));
  const functions = beat.value?.status.functions.filter((f) => f.name.includes(text));
  const perSecond = (n) => (rates.data ? rate((n ?? 0) / rates.data.seconds) : "…");
  return html`
    <div class=${`main ${chosen ? "open" : ""}`}>
      <main class="view" id="main" tabindex="-1">
        <header><h1>Functions</h1><div class="filters"><input data-search class="half" placeholder="name" aria-label="Name" value=${text} onInput=${(e) => update({ text: e.target.value })} /><${Range} /></div></header>
        ${rates.error && html`<div class="notice bad" role="alert">${rates.error.message}</div>`}
        ${!functions ? html`<p class="loading">Loading…</p>` : functions.length === 0 ? html`<div class="panel"><${Empty} title="No functions"><p>The active manifests declare no function${text && ` whose name contains ${text}`}.</p><//></div>` : html`
        <div class="panel scroll"><table class="flat">
          <thead><tr><th>Function</th><th>State</th><th class="num">Attempts/s</th><th class="num">Errors</th><th class="num">p50</th><th class="num">p95</th><th class="num">p99</th><th class="num">Running</th><th class="num">Backlog</th><th class="num">Dead</th></tr></thead>
          <tbody>${functions.map((f) => {
            const r = of.get(f.name);
            const errors = r && r.attempts ? (r.retried + r.dead) / r.attempts : 0;
            return html`
            <tr key=${f.name} ...${rowProps(() => update({ function: f.name }, true), f.name === chosen)}>
              <td class="full"><a class="mono" href=${href("functions", { function: f.name })} onClick=${(e) => { e.preventDefault(); update({ function: f.name }, true); }}>${f.name}</a></td>
              <td><${State} name=${stateOf(f)[0]} text=${stateOf(f)[1]} /></td>
              <td class="num" data-label="attempts/s">${perSecond(r?.attempts)}</td>
              <td class="num" data-label="errors">${errors > 0 ? html`<span class="state bad">${(errors * 100).toFixed(errors < 0.1 ? 1 : 0)} %</span>` : "0"}</td>
              <td class="num" data-label="p50">${ms(r?.p50_s)}</td><td class="num" data-label="p95">${ms(r?.p95_s)}</td><td class="num" data-label="p99">${ms(r?.p99_s)}</td>
              <td class="num" data-label="running">${f.in_force ? `${f.running} of ${f.concurrency}` : "–"}</td>
              <td class="num" data-label="backlog">${f.ready + f.retrying + f.blocked ? html`<a href=${href("pending", { fn: f.name })}>${count(f.ready + f.retrying + f.blocked)}</a>` : "0"}</td>
              <td class="num" data-label="dead">${f.dead ? html`<a class="state bad" href=${href("dead", { fn: f.name })}>${count(f.dead)}</a>` : "0"}</td>
            </tr>`;
          })}</tbody>
        </table></div>`}
      </main>
      ${chosen && html`<${Drawer} title=${chosen} onClose=${() => update({ function: "" })}><${Whole} key=${chosen} name=${chosen} seconds=${seconds} /><//>`}
    </div>`;
}

function Whole({ name, seconds }) {
  const f = beat.value?.status.functions.find((one) => one.name === name);
  const rates = useLoad((abort) => get("/api/v1/console/rates", { range: seconds, function: name }, abort), [name, seconds], REFRESH_MS);
  const declared = useLoad(async (abort) => (await get("/api/v1/console/flow", {}, abort)).functions.find((one) => one.name === name) ?? null, [name]);
  const dead = useLoad((abort) => lines("/api/v1/dead", { function: name, limit: 200 }, abort), [name], REFRESH_MS);
  const pending = useLoad((abort) => lines("/api/v1/pending", { function: name, limit: 20 }, abort), [name], REFRESH_MS);
  const logs = useLoad((abort) => lines("/api/v1/logs", { function: name, limit: 50 }, abort), [name], REFRESH_MS);
  if (!f) return html`<p class="dim">${beat.value ? `There is no function ${name}.` : "Loading…"}</p>`;
  const r = rates.data?.functions.find((one) => one.name === name);
  const backlog = f.ready + f.retrying + f.blocked;
  const isPaused = !!f.paused;
  return html`
    <div class="acts">
      <${Act} disabled=${!f.in_force} why="The function is in no manifest" data-act="pause" onClick=${() => run(isPaused ? `Resume ${name}` : `Pause ${name}`, () => setPaused(name, isPaused))}>${isPaused ? "Resume" : "Pause"}<//>
      <a class="button" href=${href("dead", { fn: name })}>Dead letters (${count(f.dead)})</a>
      <a class="button" href=${href("pending", { fn: name })}>Pending (${count(backlog)})</a>
      <a class="button" href=${href("events", { fn: name })}>Events</a>
    </div>
    ${f.compiling && html`<div class="notice">The component is still being compiled; events and requests of this function wait.</div>`}
    ${isPaused && html`<div class="notice warn">Paused since <${Time} at=${f.paused} />${f.paused_reason && `, because ${f.paused_reason}`}; ${plural(backlog, "delivery waits", "deliveries wait")}.</div>`}
    ${f.failing && html`<div class="notice bad">Failing: ${f.failing}</div>`}
    ${f.circuit && html`<div class="notice bad">The circuit of ${f.endpoint} is open ${f.circuit}</div>`}
    <div class="cards">
      <div class="card"><span>attempts/s</span><b>${rates.data ? rate((r?.attempts ?? 0) / rates.data.seconds) : "…"}</b></div>
      <div class="card"><span>errors</span><b>${r?.attempts ? `${(((r.retried + r.dead) / r.attempts) * 100).toFixed(1)} %` : "–"}</b></div>
      <div class="card"><span>p50 / p95 / p99</span><b>${ms(r?.p50_s)}</b><span>${ms(r?.p95_s)} / ${ms(r?.p99_s)}</span></div>
      <div class="card"><span>running</span><b>${f.in_force ? `${f.running} of ${f.concurrency}` : "–"}</b></div>
      <div class="card"><span>ready, retrying, blocked</span><b>${count(f.ready)}, ${count(f.retrying)}, ${count(f.blocked)}</b></div>
      <div class="card"><span>done since the first start</span><b>${count(f.done)}</b></div>
    </div>
    <${Loaded} of=${rates}>${(data) => html`<div class="panel pad"><${Spark} label=${`Ended attempts of ${name} over time`} steps=${data.steps.map((step) => ({ at: step.at, good: step.done, bad: step.failed }))} /><p class="dim">done and failed attempts; each bar stands for ${data.step_s} s</p></div>`}<//>
    <section class="stack tight"><h3>Last errors</h3>
      <${Loaded} of=${dead}>${(letters) => html`<${Errors} ...${{ letters, waiting: pending.data ?? [], name }} />`}<//></section>
    ${pending.data?.length > 0 && html`<section class="stack tight"><h3>Pending deliveries</h3>
      <table><tbody>${pending.data.slice(0, 10).map((one) => html`<tr key=${one.delivery.id}><td><${State} name=${one.delivery.state} /></td><td><a href=${href("trace", { event: one.event.seq })}>${one.event.event?.type ?? "damaged"}</a></td><td class="nowrap dim">accepted <${Time} at=${one.event.accepted} /></td></tr>`)}</tbody></table></section>`}
    <section class="stack tight"><h3>Declared</h3>
      <${Loaded} of=${declared}>${(one) => (one ? html`<${Declared} one=${one} />` : html`<p class="dim">No active manifest declares this function; its deliveries stay pending.</p>`)}<//></section>
    <section class="stack tight"><div class="row between"><h3>Log</h3><a href=${href("logs", { fn: name })}>All</a></div>
      <${Loaded} of=${logs}>${(all) => (all.length ? html`<div class="lines">${all.slice(-50).reverse().map((line) => html`<${LogLine} line=${line} short />`)}</div>` : html`<p class="dim">The function has written no log lines.</p>`)}<//></section>`;
}

function Errors({ letters, waiting, name }) {
  const groups = new Map();
  for (const { delivery } of [...letters, ...waiting]) {
    const last = delivery.attempts.at(-1);
    const text = delivery.cause ?? (last && last.outcome !== "done" ? `${last.outcome}${last.message ? `: ${last.message}` : ""}` : undefined);
    if (!text) continue;
    const group = groups.get(causeKey(text)) ?? { text, count: 0, at: "" };
    group.count += 1;
    if (last && last.started > group.at) group.at = last.started;
    groups.set(causeKey(text), group);
  }
  const all = [...groups.values()].sort((a, b) => (a.at < b.at ? 1 : -1)).slice(0, 8);
  if (!all.length) return html`<p class="dim">No delivery is dead or retrying.</p>`;
  return html`<table><tbody>${all.map((one) => html`<tr><td>${one.text}</td><td class="num">${count(one.count)}</td><td class="nowrap dim">${one.at && html`<${Time} at=${one.at} />`}</td></tr>`)}</tbody></table>`;
}

function Declared({ one }) {
  const { settings } = one;
  const { allow = {}, retry = {} } = settings;
  return html`
    <dl>
      <dt>manifest</dt><dd class="mono">${one.file}:${one.line}</dd>
      <dt>${settings.deliver ? "delivers to" : "component"}</dt><dd class="mono">${settings.deliver ? settings.deliver.url ?? JSON.stringify(settings.deliver) : settings.component?.path ?? settings.component}</dd>
      <dt>timeout</dt><dd>${settings.timeout}</dd>
      <dt>memory</dt><dd>${settings.memory}</dd>
      <dt>concurrency</dt><dd>${settings.concurrency}${settings.order_by && html`, in order of <code>${settings.order_by}</code>`}</dd>
      <dt>retry</dt><dd>${plural(retry.attempts, "attempt")}, ${retry.backoff} to ${retry.max_backoff}, for ${retry.max_age}</dd>
      <dt>may publish</dt><dd class="mono">${one.publishes.join(", ") || "nothing"}</dd>
      <dt>may use</dt><dd>${[allow.state && "state", ...(allow.http ?? []).map((grant) => grant.url ?? grant), ...Object.keys(allow.config ?? {}).map((key) => `setting ${key}`), ...Object.keys(allow.secrets ?? {}).map((key) => `secret ${key}`)].filter(Boolean).join(", ") || "nothing else"}</dd>
    </dl>
    ${one.triggers.map((trigger) => html`<div key=${trigger.name}><p class="dim"><span class="mono">${trigger.name}</span>, line ${trigger.line}</p><pre class="command">${trigger.text}</pre></div>`)}`;
}
