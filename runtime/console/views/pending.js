// Deliveries that are not finished: what each waits for, and how to retry or cancel it.
import { useState } from "../vendor/hooks.js";
import { lines, post } from "../api.js";
import { beat } from "../live.js";
import { go, href, update } from "../route.js";
import { count, plural } from "../format.js";
import { Empty, Loaded, State, Time, html, rowProps, useLoad } from "../parts.js";
import { Act, ViewerNotice, confirm, run } from "../acts.js";

const LIMIT = 500;
const REFRESH_MS = 3000;

const HELD = { paused: "its function is paused", compiling: "its component is being compiled", inactive: "no active manifest declares its function" };

function Reason({ one: { delivery, running_since, held, blocked_by } }) {
  const last = delivery.attempts.at(-1);
  if (running_since) return html`runs since <${Time} at=${running_since} />`;
  if (blocked_by) {
    const isDead = blocked_by.state === "dead";
    const to = isDead ? href("dead", { dead: blocked_by.delivery }) : href("pending", { fn: delivery.function });
    return html`waits for <a href=${to}>${isDead ? "the dead letter" : "delivery"} ${blocked_by.delivery}</a> of the key <code>${delivery.order_key}</code>`;
  }
  if (held) return HELD[held] ?? held;
  if (delivery.state === "retrying") return `${last?.outcome ?? "failed"}${last?.message ? `: ${last.message}` : ""}`;
  return "waits for a free slot";
}

export function View({ params }) {
  const { fn = "", state = "" } = params;
  const [selected, setSelected] = useState(new Set());
  const load = useLoad((abort, onPart) => lines("/api/v1/pending", { function: fn, state, limit: LIMIT }, abort, onPart), [fn, state], REFRESH_MS);
  const status = beat.value?.status;
  const counted = status?.functions.filter((f) => !fn || f.name === fn) ?? [];
  const sum = (of) => counted.reduce((all, f) => all + of(f), 0);
  const total = sum((f) => f.ready + f.retrying + f.blocked);
  const listed = state ? sum((f) => f[state]) : total;
  const retrying = sum((f) => f.retrying);
  const toggle = (id) => {
    const next = new Set(selected);
    if (!next.delete(id)) next.add(id);
    setSelected(next);
  };
  const rows = load.data ?? [];
  const chosen = rows.filter((one) => selected.has(one.delivery.id));
  const waiting = chosen.filter((one) => one.delivery.state === "retrying");
  const retry = (what, selections) => run(`Retry ${what}`, async () => {
    let done = 0;
    for (const selection of selections) done += (await post("/api/v1/pending/retry", selection)).count;
    setSelected(new Set());
    load.again();
    return `${plural(done, "delivery", "deliveries")} retried now`;
  });
  const cancel = (ids, what) => confirm({
    title: `Cancel ${what}`, yes: "Cancel them",
    text: "They become dead letters with the cause `cancelled`; a redrive undoes this. The results of running attempts are discarded.",
    act: async () => {
      let done = 0;
      for (const id of ids) done += (await post("/api/v1/pending/cancel", { delivery: id })).count;
      setSelected(new Set());
      load.again();
      return `Cancelled ${plural(done, "delivery", "deliveries")}`;
    },
  });
  const cancelAll = () => confirm({
    title: `Cancel all ${count(total)} pending deliveries of ${fn}`, yes: `Cancel ${count(total)}`,
    text: "They become dead letters with the cause `cancelled`; a redrive undoes this. The results of running attempts are discarded.",
    act: async () => { const { count: done } = await post("/api/v1/pending/cancel", { function: fn }); load.again(); return `Cancelled ${plural(done, "delivery", "deliveries")}`; },
  });
  const set = (name) => (e) => update({ [name]: e.target.value });
  return html`
    <div class="main"><main class="view" id="main" tabindex="-1">
      <header><h1>Pending</h1>
        <div class="filters">
          <select class="half" aria-label="Function" value=${fn} onChange=${set("fn")}><option value="">all functions</option>${status?.functions.map((f) => html`<option key=${f.name} value=${f.name}>${f.name} (${f.ready + f.retrying + f.blocked})</option>`)}</select>
          <select class="half" aria-label="State" value=${state} onChange=${set("state")}><option value="">any state</option>${["ready", "retrying", "blocked"].map((name) => html`<option value=${name}>${name}</option>`)}</select>
        </div>
        <${Act} disabled=${!waiting.length} why="Select retrying deliveries first" onClick=${() => retry(plural(waiting.length, "delivery", "deliveries"), waiting.map((one) => ({ delivery: one.delivery.id })))}>Retry selected (${waiting.length})<//>
        ${fn && retrying > 0 && html`<${Act} onClick=${() => retry(`all retrying deliveries of ${fn}`, [{ function: fn }])}>Retry all ${count(retrying)} now<//>`}
        <${Act} disabled=${!chosen.length} why="Select deliveries first" onClick=${() => cancel(chosen.map((one) => one.delivery.id), plural(chosen.length, "delivery", "deliveries"))}>Cancel selected (${chosen.length})<//>
        ${fn && total > 0 && html`<${Act} class="danger" onClick=${cancelAll}>Cancel all ${count(total)}<//>`}
      </header>
      <${ViewerNotice} />
      <${Loaded} of=${load}>${() => html`
        <div class="panel scroll">${rows.length === 0 ? html`<${Empty} title="Nothing is pending"><p>Deliveries that wait, retry or run are listed here, each with the reason why it waits.</p><//>` : html`
        <table class="flat">
          <thead><tr><th><span class="hidden">Select</span></th><th class="num">Delivery</th><th>State</th><th>Function</th><th>Event</th><th>Accepted</th><th class="num">Attempts</th><th>Next</th><th>Why it waits</th><th><span class="hidden">Act</span></th></tr></thead>
          <tbody>${rows.map((one) => html`
            <tr key=${one.delivery.id} ...${rowProps(() => go("trace", { event: one.event.seq }))}>
              <td><input type="checkbox" aria-label=${`Select ${one.delivery.id}`} checked=${selected.has(one.delivery.id)} onChange=${() => toggle(one.delivery.id)} /></td>
              <td class="num">${one.delivery.id}</td>
              <td><${State} name=${one.delivery.state} /></td>
              <td class="nowrap"><a class="mono" href=${href("functions", { function: one.delivery.function })}>${one.delivery.function}</a></td>
              <td class="nowrap"><a class="mono" href=${href("trace", { event: one.event.seq })}>${one.event.event?.type ?? "damaged"}</a></td>
              <td class="nowrap"><${Time} at=${one.event.accepted} /></td>
              <td class="num" data-label="attempts">${one.delivery.attempts.length}</td>
              <td class="nowrap">${one.delivery.due ? html`<${Time} at=${one.delivery.due} />` : ""}</td>
              <td class="full"><${Reason} one=${one} /></td>
              <td>${one.delivery.state === "retrying" && html`<${Act} data-key="r" onClick=${() => retry(`delivery ${one.delivery.id}`, [{ delivery: one.delivery.id }])}>Retry now<//>`}</td>
            </tr>`)}</tbody>
        </table>`}</div>
        ${listed > load.data.length && load.data.length >= LIMIT && html`<p class="dim">Only the oldest ${count(load.data.length)} of ${count(listed)} deliveries are shown.</p>`}`}<//>
    </main></div>`;
}
