// Dead letters, grouped by function and cause; one of them whole in the drawer, and what can be done about it.
import { useEffect, useRef, useState } from "../vendor/hooks.js";
import { getExact, lines, post, segment } from "../api.js";
import { beat } from "../live.js";
import { href, update } from "../route.js";
import { causeKey, count, plural } from "../format.js";
import { Command, DataTree, Drawer, Empty, Loaded, State, Time, html, rowProps, useLoad } from "../parts.js";
import { Act, ViewerNotice, bulk, confirm, edit, run } from "../acts.js";
import { Attempts } from "./event.js";

const LIMIT = 10_000;
const REFRESH_MS = 5000;
const BARS = 24;

const lastOf = (letter) => letter.delivery.attempts.at(-1)?.started ?? letter.event.accepted;

function groupsOf(letters) {
  const groups = new Map();
  for (const letter of letters) {
    const cause = letter.delivery.cause ?? "unknown";
    const key = `${letter.delivery.function}\n${causeKey(cause)}`;
    const group = groups.get(key) ?? { key, function: letter.delivery.function, cause, letters: [], types: new Set() };
    group.letters.push(letter);
    group.types.add(letter.event.event?.type ?? "damaged");
    groups.set(key, group);
  }
  const all = [...groups.values()];
  for (const group of all) {
    group.times = group.letters.map((letter) => Date.parse(lastOf(letter))).sort((a, b) => a - b);
    group.letters.sort((a, b) => b.delivery.id - a.delivery.id);
  }
  return all.sort((a, b) => b.times.at(-1) - a.times.at(-1));
}

const redrive = (id) => post("/api/v1/dead/redrive", { delivery: Number(id) });
const purge = (id) => post("/api/v1/dead/purge", { delivery: Number(id) });

/** Loads the list again when the number of dead letters changes: not more often than the list can be read. */
function useRefresh(again, total) {
  const last = useRef({ total, at: Date.now() });
  useEffect(() => {
    if (total === undefined || total === last.current.total) return undefined;
    if (last.current.total === undefined) {
      last.current.total = total;
      return undefined;
    }
    const timer = setTimeout(() => {
      last.current = { total, at: Date.now() };
      again();
    }, Math.max(0, last.current.at + REFRESH_MS - Date.now()));
    return () => clearTimeout(timer);
  }, [total]);
}

export function View({ params }) {
  const { fn = "", cause = "", dead } = params;
  const [selected, setSelected] = useState(new Set());
  const total = beat.value?.status.functions.reduce((sum, f) => sum + f.dead, 0);
  const load = useLoad((abort, onPart) => lines("/api/v1/dead", { function: fn, limit: LIMIT }, abort, onPart), [fn]);
  useRefresh(load.again, total);
  const groups = load.data && groupsOf(load.data);
  const group = groups?.find((one) => one.key === cause);
  const after = () => { setSelected(new Set()); load.again(); };
  return html`
    <div class=${`main ${dead ? "open" : ""}`}>
      <main class="view" id="main" tabindex="-1">
        <header><h1>Dead letters</h1>
          <div class="filters"><select aria-label="Function" value=${fn} onChange=${(e) => update({ fn: e.target.value, cause: "" })}><option value="">all functions</option>${beat.value?.status.functions.filter((f) => f.dead || f.name === fn).map((f) => html`<option key=${f.name} value=${f.name}>${f.name} (${f.dead})</option>`)}</select></div>
          ${cause && html`<button onClick=${() => update({ cause: "" })} data-close>All groups</button>`}
        </header>
        <${ViewerNotice} />
        <${Loaded} of=${load}>${() => html`
          ${load.data.length >= LIMIT && html`<p class="notice warn">Only the newest ${count(LIMIT)} of ${count(total)} dead letters are shown; redrive or purge some to see the others.</p>`}
          ${groups.length === 0 && html`<div class="panel"><${Empty} title="No dead letters"><p>A delivery that its function rejects, or that fails as often as its retry policy allows, is listed here with its cause. Nothing is lost: you can redrive it.</p><//></div>`}
          ${group ? html`<${Letters} ...${{ group, dead, selected, setSelected, after }} />` : groups.length > 0 && html`
          <div class="panel scroll"><table class="flat">
            <thead><tr><th>Function</th><th>Cause</th><th class="num">Letters</th><th>First</th><th>Last</th><th>When</th><th></th></tr></thead>
            <tbody>${groups.map((one) => html`
              <tr key=${one.key} ...${rowProps(() => update({ cause: one.key }, true))}>
                <td class="nowrap"><a class="mono" href=${href("functions", { function: one.function })}>${one.function || "unknown"}</a></td>
                <td class="full"><button class="text" onClick=${() => update({ cause: one.key }, true)}>${one.cause}</button><br /><span class="dim mono">${[...one.types].slice(0, 3).join(", ")}</span></td>
                <td class="num" data-label="letters"><b>${count(one.letters.length)}</b></td>
                <td class="nowrap" data-label="first"><${Time} at=${new Date(one.times[0]).toISOString()} /></td>
                <td class="nowrap" data-label="last"><${Time} at=${new Date(one.times.at(-1)).toISOString()} /></td>
                <td><${Histogram} times=${one.times} /></td>
                <td class="nowrap"><${GroupActs} ...${{ group: one, after }} /></td>
              </tr>`)}</tbody>
          </table></div>`}`}<//>
      </main>
      ${dead && html`<${Drawer} title=${`Dead letter ${dead}`} onClose=${() => update({ dead: "" })}><${Letter} key=${dead} id=${dead} after=${after} /><//>`}
    </div>`;
}

function Histogram({ times }) {
  const [first, last] = [times[0], Math.max(times.at(-1), times[0] + 1)];
  const bars = new Array(BARS).fill(0);
  for (const time of times) bars[Math.min(BARS - 1, Math.floor(((time - first) / (last - first)) * BARS))] += 1;
  const max = Math.max(...bars);
  return html`<svg width="96" height="20" viewBox="0 0 96 20" role="img" aria-label=${`${times.length} between the first and the last`}>${bars.map((n, at) => html`<rect x=${at * 4} y=${20 - (n / max) * 18} width="3" height=${n ? Math.max(2, (n / max) * 18) : 0.5} fill="currentColor" />`)}</svg>`;
}

function GroupActs({ group, after, letters = group.letters }) {
  const what = `${plural(letters.length, "dead letter")} of ${group.function}`;
  const ids = [...letters].reverse().map((letter) => letter.delivery.id);
  return html`<span class="row">
    <${Act} data-key="r" onClick=${() => bulk({ title: `Redrive ${what}`, items: ids, step: redrive, verb: "redriven", after })}>Redrive ${letters.length > 1 ? `all ${letters.length}` : ""}<//>
    <${Act} class="danger" onClick=${() => confirm({
      title: `Purge ${what}`, yes: `Purge ${count(letters.length)}`,
      text: `${group.function} will never handle these events again. The purged deliveries stay in the history, and deliveries that wait for them can run. This cannot be undone.`,
      act: async () => { for (const id of ids) await purge(id); after(); return `Purged ${what}`; },
    })}>Purge<//>
  </span>`;
}

function Letters({ group, dead, selected, setSelected, after }) {
  const toggle = (id) => {
    const next = new Set(selected);
    if (!next.delete(id)) next.add(id);
    setSelected(next);
  };
  const chosen = group.letters.filter((letter) => selected.has(letter.delivery.id));
  const shown = group.letters.slice(0, 200);
  return html`
    <div class="stack">
      <div class="panel pad stack tight">
        <div class="row between"><span><b class="mono">${group.function}</b> ${plural(group.letters.length, "dead letter")}</span>
          <${GroupActs} ...${{ group, after, letters: chosen.length ? chosen : group.letters }} /></div>
        <p>${group.cause}</p>
        ${chosen.length > 0 && html`<p class="dim">${plural(chosen.length, "dead letter")} selected</p>`}
      </div>
      <div class="panel scroll"><table class="flat">
        <thead><tr><th><span class="hidden">Select</span></th><th class="num">Delivery</th><th>Type</th><th>Key</th><th>Last attempt</th><th class="num">Attempts</th><th>Cause</th></tr></thead>
        <tbody>${shown.map((letter) => html`
          <tr key=${letter.delivery.id} ...${rowProps(() => update({ dead: letter.delivery.id }, true), String(letter.delivery.id) === dead)}>
            <td><input type="checkbox" aria-label=${`Select ${letter.delivery.id}`} checked=${selected.has(letter.delivery.id)} onChange=${() => toggle(letter.delivery.id)} /></td>
            <td class="num"><a href=${href("dead", { dead: letter.delivery.id })} onClick=${(e) => { e.preventDefault(); update({ dead: letter.delivery.id }, true); }}>${letter.delivery.id}</a></td>
            <td class="nowrap mono">${letter.event.event?.type ?? "damaged"}</td>
            <td class="cut mono">${letter.delivery.order_key ?? ""}</td>
            <td class="nowrap"><${Time} at=${lastOf(letter)} /></td>
            <td class="num" data-label="attempts">${letter.delivery.attempts.length}</td>
            <td class="full">${letter.delivery.cause}</td>
          </tr>`)}</tbody>
      </table></div>
      ${shown.length < group.letters.length && html`<p class="dim">${count(group.letters.length - shown.length)} older dead letters are not shown. Without a selection, the buttons above apply to them, too.</p>`}
    </div>`;
}

function Letter({ id, after }) {
  const load = useLoad((abort) => getExact(`/api/v1/dead/${segment(id)}`, {}, abort), [id]);
  const [isRedriven, setRedriven] = useState(false);
  const [corrected, setCorrected] = useState();
  return html`<${Loaded} of=${load}>${({ delivery, event }) => {
    const refresh = () => { load.again(); after(); };
    const isDead = delivery.state === "dead" && !isRedriven;
    const why = isRedriven ? "The delivery runs again" : `The delivery is ${delivery.state}`;
    const isBinary = event.event?.data_base64 !== undefined;
    const fix = () => edit({
      title: `Edit and redrive ${id}`, yes: "Redrive with these data", label: "The data as JSON",
      text: `A new event with these data replaces the dead letter. Only ${delivery.function} receives it; event ${event.seq} stays as it is.`,
      value: event.event.data ?? null,
      send: async (data) => {
        const { seq } = await post(`/api/v1/dead/${segment(id)}/edit`, { data });
        setCorrected(seq);
        refresh();
        return `Event ${seq} with the corrected data goes to ${delivery.function}; dead letter ${id} was purged`;
      },
    });
    return html`
      ${corrected && html`<div class="notice ok"><span class="grow">Event ${corrected} has the corrected data.</span><a href=${href("trace", { event: corrected, root: "false" })}>See the result</a></div>`}
      ${isRedriven && html`<div class="notice ok"><span class="grow">Delivery ${id} runs again.</span><a href=${href("trace", { event: event.seq })}>See the result</a></div>`}
      <div class="acts">
        <${Act} class="primary" data-key="r" data-act="redrive" disabled=${!isDead} why=${why} onClick=${() => run(`Redrive ${id}`, async () => { await redrive(id); setRedriven(true); after(); return `Delivery ${id} runs again`; })}>Redrive<//>
        <${Act} data-act="edit" disabled=${!isDead || !event.event || isBinary} why=${isDead ? "The data are not JSON" : why} onClick=${fix}>Edit and redrive<//>
        <${Act} class="danger" data-act="purge" disabled=${!isDead} why=${why} onClick=${() => confirm({ title: `Purge dead letter ${id}`, yes: "Purge", text: `${delivery.function} will never handle this event again. This cannot be undone.`, act: async () => { await purge(id); refresh(); return `Dead letter ${id} was purged`; } })}>Purge<//>
        <a class="button" href=${href("trace", { event: event.seq })}>Trace</a>
        <a class="button" href=${href("logs", { delivery: id })}>Logs</a>
      </div>
      <dl>
        <dt>state</dt><dd><${State} name=${isRedriven ? "ready" : delivery.state} text=${isRedriven ? "redriven" : undefined} /></dd>
        <dt>function</dt><dd><a class="mono" href=${href("functions", { function: delivery.function })}>${delivery.function}</a> <span class="dim">${delivery.trigger}</span></dd>
        <dt>cause</dt><dd>${delivery.cause}</dd>
        <dt>event</dt><dd><a href=${href("events", { event: event.seq })}>${event.event?.type ?? "damaged"}, ${event.seq}</a>, accepted <${Time} at=${event.accepted} /></dd>
        ${delivery.order_key && html`<dt>order key</dt><dd class="mono">${delivery.order_key} ${isDead && html`<span class="dim">(later deliveries with this key wait)</span>`}</dd>`}
      </dl>
      <section class="stack tight"><h3>Attempts</h3><${Attempts} delivery=${delivery.id} attempts=${delivery.attempts} /></section>
      <section class="stack tight"><h3>Data</h3>${event.damaged ? html`<p class="state bad">${event.damaged}</p>` : html`<div class="tree"><${DataTree} value=${event.event.data ?? event.event.data_base64 ?? null} /></div>`}</section>`;
  }}<//>`;
}
