// Deliveries that are not finished: what each waits for, and how to cancel it.
import { useState } from "../vendor/hooks.js";
import { lines, post } from "../api.js";
import { beat } from "../live.js";
import { href, update } from "../route.js";
import { count, plural } from "../format.js";
import { Empty, Loaded, State, Time, html, rowProps, useLoad } from "../parts.js";
import { Act, ViewerNotice, confirm } from "../acts.js";
import { go } from "../route.js";

const LIMIT = 500;
const REFRESH_MS = 3000;

function reason({ delivery }, paused) {
  const last = delivery.attempts.at(-1);
  if (paused.has(delivery.function)) return "its function is paused";
  if (delivery.state === "blocked") return html`waits for an earlier delivery with the key <code>${delivery.order_key}</code>; <a href=${href("dead", { fn: delivery.function })}>perhaps a dead letter</a>`;
  if (delivery.state === "retrying") return `${last?.outcome ?? "failed"}${last?.message ? `: ${last.message}` : ""}`;
  return "waits for a free place, or runs now";
}

export function View({ params }) {
  const { fn = "", state = "" } = params;
  const [selected, setSelected] = useState(new Set());
  const load = useLoad((abort) => lines("/api/v1/pending", { function: fn, limit: LIMIT }, abort), [fn], REFRESH_MS);
  const status = beat.value?.status;
  const paused = new Set(status?.functions.filter((f) => f.paused || !f.in_force).map((f) => f.name));
  const total = fn ? status?.functions.filter((f) => f.name === fn).reduce((sum, f) => sum + f.ready + f.retrying + f.blocked, 0) : status?.pending;
  const toggle = (id) => {
    const next = new Set(selected);
    if (!next.delete(id)) next.add(id);
    setSelected(next);
  };
  const rows = load.data?.filter((one) => !state || one.delivery.state === state) ?? [];
  const chosen = rows.filter((one) => selected.has(one.delivery.id));
  const cancel = (ids, what) => confirm({
    title: `Cancel ${what}`, yes: "Cancel them",
    text: "They become dead letters with the cause `cancelled`, so a redrive undoes it. Attempts that run now are discarded.",
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
    text: "They become dead letters with the cause `cancelled`, so a redrive undoes it. Attempts that run now are discarded.",
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
        <${Act} disabled=${!chosen.length} why="Select deliveries first" onClick=${() => cancel(chosen.map((one) => one.delivery.id), plural(chosen.length, "delivery", "deliveries"))}>Cancel selected (${chosen.length})<//>
        ${fn && total > 0 && html`<${Act} class="danger" onClick=${cancelAll}>Cancel all ${count(total)}<//>`}
      </header>
      <${ViewerNotice} />
      <${Loaded} of=${load}>${() => html`
        <div class="panel scroll">${rows.length === 0 ? html`<${Empty} title="Nothing is pending"><p>Deliveries that wait, retry or run are listed here, each with what it waits for.</p><//>` : html`
        <table class="flat">
          <thead><tr><th><span class="hidden">Select</span></th><th class="num">Delivery</th><th>State</th><th>Function</th><th>Event</th><th>Accepted</th><th class="num">Attempts</th><th>Next</th><th>Why it waits</th></tr></thead>
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
              <td class="full">${reason(one, paused)}</td>
            </tr>`)}</tbody>
        </table>`}</div>
        ${total > load.data.length && html`<p class="dim">The oldest ${count(load.data.length)} of ${count(total)}.</p>`}`}<//>
    </main></div>`;
}
