// State, replays, logs and health.
import { useEffect, useRef, useState } from "../vendor/hooks.js";
import { del, get, lines, post, postLines, put, segment } from "../api.js";
import { beat } from "../live.js";
import { update } from "../route.js";
import { ago, bytes, count, exact, plural } from "../format.js";
import { Command, DataTree, Drawer, Empty, Loaded, State, Time, html, rowProps, useLoad } from "../parts.js";
import { Act, ViewerNotice, confirm, run } from "../acts.js";
import { LogLine } from "./trace.js";

const KEYS_MAX = 500;

export function StateView({ params }) {
  const { bucket, prefix = "", entry } = params;
  const buckets = useLoad((abort) => lines("/api/v1/state", {}, abort), [], 5000);
  const keys = useLoad((abort, onPart) => (bucket ? lines(`/api/v1/state/${segment(bucket)}`, { prefix, limit: KEYS_MAX }, abort, onPart) : Promise.resolve([])), [bucket, prefix], 5000);
  const after = () => { keys.again(); buckets.again(); };
  return html`
    <div class=${`main ${entry !== undefined && bucket ? "open" : ""}`}>
      <main class="view" id="main" tabindex="-1">
        <header><h1>State</h1>${bucket && html`<button data-close onClick=${() => update({ bucket: "", prefix: "", entry: "" })}>All buckets</button><b class="mono">${bucket}</b>
          <div class="filters"><input data-search placeholder="start of the key" aria-label="Start of the key" value=${prefix} onChange=${(e) => update({ prefix: e.target.value })} /></div>`}</header>
        ${bucket ? html`<${Loaded} of=${keys}>${(all) => html`
          <div class="panel scroll">${all.length === 0 ? html`<${Empty} title="No keys"><p>No key ${prefix ? "starts with this text" : "is stored here"}.</p><//>` : html`<table class="flat">
            <thead><tr><th>Key</th><th>Value</th><th class="num">Bytes</th><th class="num">Version</th></tr></thead>
            <tbody>${all.map((one) => html`<tr key=${one.key} ...${rowProps(() => update({ entry: one.key }, true), one.key === entry)}><td class="mono"><button class="text mono" onClick=${() => update({ entry: one.key }, true)}>${one.key}</button></td><td class="preview">${one.value ?? (one.value_base64 ? "binary" : "long")}</td><td class="num">${count(one.bytes)}</td><td class="num">${one.version}</td></tr>`)}</tbody></table>`}</div>
          ${all.length >= KEYS_MAX && html`<p class="dim">These are the first ${KEYS_MAX} keys; give the start of a key to see others.</p>`}`}<//>`
        : html`<${Loaded} of=${buckets}>${(all) => html`<div class="panel scroll">${all.length === 0 ? html`<${Empty} title="No state"><p>A function with <code>allow: { state: true }</code> keeps values by key; each function has a bucket of its own.</p><//>` : html`<table class="flat"><thead><tr><th>Bucket</th><th class="num">Keys</th><th class="num">Size</th></tr></thead><tbody>${all.map((one) => html`<tr key=${one.bucket} ...${rowProps(() => update({ bucket: one.bucket }, true))}><td><button class="text mono" onClick=${() => update({ bucket: one.bucket }, true)}>${one.bucket}</button></td><td class="num" data-label="keys">${count(one.keys)}</td><td class="num">${bytes(one.bytes)}</td></tr>`)}</tbody></table>`}</div>`}<//>`}
      </main>
      ${bucket && entry && html`<${Drawer} title=${entry} onClose=${() => update({ entry: "" })}><${Entry} key=${bucket + entry} ...${{ bucket, name: entry, after }} /><//>`}
    </div>`;
}

function Entry({ bucket, name, after }) {
  const path = `/api/v1/state/${segment(bucket)}/${segment(name)}`;
  const load = useLoad((abort) => get(path, {}, abort), [path]);
  const [text, setText] = useState();
  return html`<${Loaded} of=${load}>${(one) => {
    const value = text ?? one.value ?? "";
    let parsed;
    try { parsed = JSON.parse(one.value); } catch { /* Not JSON. */ }
    return html`
      <dl><dt>bucket</dt><dd class="mono">${bucket}</dd><dt>version</dt><dd>${one.version}</dd><dt>size</dt><dd>${plural(one.bytes, "byte")}</dd></dl>
      ${one.value_base64 !== undefined ? html`<pre>${one.value_base64}</pre>` : html`<label class="field">Value<textarea rows="8" spellcheck=${false} value=${value} onInput=${(e) => setText(e.target.value)}></textarea></label>`}
      ${parsed !== null && typeof parsed === "object" && html`<div class="tree"><${DataTree} value=${parsed} /></div>`}
      <div class="acts">
        <${Act} class="primary" disabled=${text === undefined || text === one.value} why="The value is unchanged" onClick=${() => confirm({ title: `Set ${name} of ${bucket}`, yes: "Set", danger: false, text: "The function reads the new value from now on; the old value is lost.", act: async () => { await put(path, { value: text }); setText(undefined); load.again(); after(); return `Set ${name} of ${bucket}`; } })}>Set<//>
        <${Act} class="danger" onClick=${() => confirm({ title: `Delete ${name} of ${bucket}`, yes: "Delete", text: "The value is lost. This cannot be undone.", act: async () => { await del(path); update({ entry: "" }); after(); return `Deleted ${name} of ${bucket}`; } })}>Delete<//>
      </div>`;
  }}<//>`;
}

export function Replays() {
  const load = useLoad((abort) => lines("/api/v1/replays", {}, abort), [], 2000);
  const control = (one, action) => run(`${action} replay ${one.id}`, async () => { await post(`/api/v1/replays/${one.id}/${action}`, {}); load.again(); return `Replay ${one.id}: ${action}`; });
  return html`
    <div class="main"><main class="view" id="main" tabindex="-1">
      <header><h1>Replays</h1></header>
      <${ViewerNotice} />
      <${NewReplay} after=${load.again} />
      <${Loaded} of=${load}>${(all) => html`<div class="panel scroll">${all.length === 0 ? html`<${Empty} title="No replays"><p>A replay delivers stored events again, to the functions that match them now. Live events have priority.</p><//>` : html`
        <table class="flat"><thead><tr><th class="num">Replay</th><th>State</th><th>Events</th><th>Created</th><th>Progress</th><th class="num">Done</th><th class="num">Dead</th><th></th></tr></thead>
        <tbody>${[...all].reverse().map((one) => html`<tr key=${one.id}><td class="num">${one.id}</td><td><${State} name=${one.state} />${one.reason && html` ${one.reason}`}</td><td class="mono full">${JSON.stringify(one.filter)}</td><td class="nowrap"><${Time} at=${one.created} /></td>
          <td><progress max=${Math.max(1, one.until)} value=${one.position} aria-label="Progress"></progress><span class="dim">${plural(one.events, "event")}</span></td><td class="num" data-label="done">${count(one.done)}</td><td class="num" data-label="dead">${count(one.dead)}</td>
          <td><span class="row">${one.state === "running" && html`<${Act} onClick=${() => control(one, "pause")}>Pause<//>`}${one.state === "paused" && html`<${Act} onClick=${() => control(one, "resume")}>Resume<//>`}${["running", "paused"].includes(one.state) && html`<${Act} class="danger" onClick=${() => control(one, "cancel")}>Cancel<//>`}</span></td></tr>`)}</tbody></table>`}</div>`}<//>
    </main></div>`;
}

function NewReplay({ after }) {
  const [filter, setFilter] = useState({});
  const [plan, setPlan] = useState();
  const counting = useRef();
  const stop = () => counting.current?.abort();
  useEffect(() => stop, []);
  const set = (name) => (e) => { stop(); setFilter({ ...filter, [name]: e.target.value.trim() || undefined }); setPlan(undefined); };
  const body = () => {
    const { rate, ...rest } = filter;
    return { ...rest, ...(rate ? { rate: Number(rate) } : {}) };
  };
  const dryRun = async (e) => {
    e.preventDefault();
    stop();
    const { signal } = (counting.current = new AbortController());
    const show = (all) => { if (!signal.aborted) setPlan({ result: all.at(-1) }); };
    try { show(await postLines("/api/v1/replays/plan?progress=true", body(), signal, show)); } catch (error) { if (!signal.aborted) setPlan({ error }); }
  };
  return html`
    <form class="panel pad stack tight" onSubmit=${dryRun}>
      <h2>New replay</h2>
      <div class="filters"><select class="half" aria-label="Function" onChange=${set("function")}><option value="">all functions</option>${beat.value?.status.functions.filter((f) => f.in_force).map((f) => html`<option key=${f.name}>${f.name}</option>`)}</select>
        <input class="half" placeholder="type" aria-label="Type" onChange=${set("type")} /><input class="half" placeholder="source" aria-label="Source" onChange=${set("source")} />
        <input class="half" placeholder="since, such as 2026-01-31T12:00:00Z" aria-label="Since" onChange=${set("since")} /><input class="half" placeholder="until" aria-label="Until" onChange=${set("until")} /><button>Dry run</button></div>
      ${plan?.error && html`<div class="notice bad" role="alert">${plan.error.message}</div>`}
      ${plan?.result && html`<div class="notice ok"><div class="grow"><p><b>${plural(plan.result.events, "event")}, ${plural(plan.result.deliveries, "delivery", "deliveries")}</b>${!plan.result.complete && " so far; counting…"}</p><p>${Object.entries(plan.result.functions ?? {}).map(([name, n]) => html`<span key=${name}><span class="mono">${name}</span> ${count(n)} </span>`)}</p></div>
        <${Act} class="primary" onClick=${() => run("Start a replay", async () => { const started = await post("/api/v1/replays", body()); setPlan(undefined); after(); return `Replay ${started.id} was started`; })}>Start it<//></div>`}
    </form>`;
}

export function Logs({ params }) {
  const { fn = "", delivery = "", level = "", text = "" } = params;
  const load = useLoad((abort) => lines("/api/v1/logs", { function: fn, delivery, limit: 500 }, abort), [fn, delivery], 2000);
  const set = (name) => (e) => update({ [name]: e.target.value.trim() });
  const wanted = (line) => (!level || line.level === level) && (!text || line.text.toLowerCase().includes(text.toLowerCase()));
  return html`
    <div class="main"><main class="view" id="main" tabindex="-1">
      <header><h1>Logs</h1><div class="filters" role="search"><input class="wide" data-search placeholder="text" aria-label="Text" value=${text} onInput=${set("text")} />
        <select class="half" aria-label="Function" value=${fn} onChange=${set("fn")}><option value="">all functions</option>${beat.value?.status.functions.map((f) => html`<option key=${f.name} value=${f.name}>${f.name}</option>`)}</select>
        <input class="half" placeholder="delivery" aria-label="Delivery" value=${delivery} onChange=${set("delivery")} />
        <select class="half" aria-label="Level" value=${level} onChange=${set("level")}><option value="">any level</option>${["trace", "debug", "info", "warn", "error"].map((name) => html`<option key=${name}>${name}</option>`)}</select></div></header>
      <${Loaded} of=${load}>${(all) => {
        const shown = all.filter(wanted).reverse();
        return html`<div class="panel pad lines" role="log" aria-label="Log lines, newest first">${shown.length === 0 ? html`<${Empty} title="No log lines"><p>Everything that functions write to their log, to standard output and to standard error appears here.</p><//>` : shown.map((line, at) => html`<${LogLine} key=${line.at + at} line=${line} />`)}</div>`;
      }}<//>
    </main></div>`;
}

export function Health() {
  const now = beat.value;
  if (!now) return html`<div class="main"><main class="view" id="main"><p class="loading">Loading…</p></main></div>`;
  const { status, space, refused } = now;
  const exit = status.unclean_exit;
  return html`
    <div class="main"><main class="view" id="main" tabindex="-1"><header><h1>Health</h1></header>
      <div class="stack">
        ${refused && html`<div class="notice bad" role="alert">The store accepts no writes: ${refused}</div>`}
        ${exit && html`<div class="notice warn"><span>The previous process of Evoke ended without a clean stop${exit.deliveries.length + exit.requests.length + exit.loads.length > 0 && `; it was running ${[...exit.deliveries.map((one) => `delivery ${one.id} of ${one.function}`), ...exit.requests.map((name) => `requests of ${name}`), ...exit.loads.map((name) => `the compilation or load of ${name}`)].join(", ")}`}.</span></div>`}
        <div class="cards">
          <div class="card"><span>version</span><b>${status.version}</b></div>
          <div class="card"><span>up since</span><b>${ago(new Date(Date.parse(now.at) - status.uptime_ms).toISOString(), Date.parse(now.at)).replace(" ago", "")}</b></div>
          <div class="card"><span>events accepted</span><b>${count(status.events)}</b></div>
          <div class="card"><span>removed by retention</span><b>${count(status.removed.events)}</b></div>
          <div class="card"><span>store</span><b>${bytes(space.store)}</b></div>
          <div class="card"><span>disk free</span><b>${bytes(space.free)}</b><span>of ${bytes(space.total)}</span></div>
        </div>
        <section class="stack tight"><h3>Data folder</h3><p class="mono">${status.data}</p></section>
        <section class="stack tight"><h3>Listeners</h3><div class="panel scroll"><table><tbody>${status.listeners?.map((one) => html`<tr key=${one.name}><td>${one.name}</td><td class="mono">${one.url}</td><td><${State} name=${one.state} />${one.trouble && ` ${one.trouble}`}</td><td class="dim">${one.certificate_expires && `certificate until ${exact(one.certificate_expires)}`}</td></tr>`)}</tbody></table></div></section>
        <section class="stack tight"><h3>Check every row of the store</h3><${Command} text=${`evoke check --data ${status.data}`} /></section>
        <section class="stack tight"><h3>Metrics</h3><p class="dim">Prometheus reads <code>/metrics</code> of this address with a viewer's token: <code>evoke token create prometheus</code></p></section>
      </div>
    </main></div>`;
}
