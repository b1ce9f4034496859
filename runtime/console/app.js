// The frame of the console: health strip, navigation, the current view, and what lies above it.
import { render } from "./vendor/preact.js";
import { useEffect, useRef, useState } from "./vendor/hooks.js";
import { effect, signal } from "./vendor/signals.js";
import { enter, leave, refused, session, useCode } from "./api.js";
import { beat, link, start, stop } from "./live.js";
import { href, route, update } from "./route.js";
import { ago, brief, bytes, count, exact, rate } from "./format.js";
import { Boundary, Command, Dialog, html, second, toasts } from "./parts.js";
import { dialog, done } from "./acts.js";
import { KEYS, help } from "./keys.js";

/** The views by name: title, module, and the component that it exports. */
const VIEWS = {
  events: ["Events", "events"],
  trace: ["Trace", "trace"],
  functions: ["Functions", "functions"],
  dead: ["Dead letters", "dead"],
  pending: ["Pending", "pending"],
  flow: ["Flow", "flow"],
  patterns: ["Patterns", "patterns"],
  sources: ["Sources", "sources"],
  state: ["State", "more", "StateView"],
  replays: ["Replays", "more", "Replays"],
  logs: ["Logs", "more", "Logs"],
  health: ["Health", "more", "Health"],
};
const GROUPS = [["events", "trace", "functions", "dead", "pending"], ["flow", "patterns", "sources"], ["state", "replays", "logs", "health"]];

/** The components that were loaded, by module. */
const loaded = signal({});
const broken = signal({});

async function load(name) {
  if (loaded.value[name]) return;
  try {
    const module = await import(`/console/views/${name}.js`);
    loaded.value = { ...loaded.value, [name]: module };
    broken.value = { ...broken.value, [name]: undefined };
  } catch (error) {
    broken.value = { ...broken.value, [name]: error.message };
  }
}

const total = (status, of) => status.functions.reduce((sum, f) => sum + of(f), 0);

function Vital({ label, value, to, kind, title }) {
  return html`<a class=${`vital ${kind ?? ""}`} href=${to} title=${title}><span>${label}</span><b>${value}</b></a>`;
}

function Strip() {
  const now = beat.value;
  const status = now?.status;
  const dead = status ? total(status, (f) => f.dead) : undefined;
  const failing = status?.functions.filter((f) => f.failing || f.circuit) ?? [];
  const paused = status?.functions.filter((f) => f.paused) ?? [];
  const troubled = status?.sources.filter((s) => s.state !== "ok") ?? [];
  const space = now?.space ?? {};
  const low = space.free !== undefined && space.free < space.total * 0.05;
  const { state, reason } = link.value;
  return html`
    <header class="strip" aria-label="Health">
      <a class="brand" href=${href("events")}><img src="/console/icon.svg" alt="" />Evoke</a>
      <${Vital} label="accepted/s" value=${rate(now?.rates?.accepted)} to=${href("events")} />
      <${Vital} label="done/s" value=${rate(now?.rates?.done)} to=${href("functions")} />
      <${Vital} label="pending" value=${count(status?.pending)} to=${href("pending")} />
      <${Vital} label="oldest pending" value=${now ? (now.oldest_pending ? ago(now.oldest_pending, Math.max(second.value, Date.parse(now.at))).replace(" ago", "") : "none") : "…"} title=${now?.oldest_pending && exact(now.oldest_pending)} to=${href("pending")} kind=${now?.oldest_pending && Date.parse(now.at) - Date.parse(now.oldest_pending) > 60_000 ? "warn" : ""} />
      <${Vital} label="dead letters" value=${count(dead)} to=${href("dead")} kind=${dead ? "bad" : ""} />
      <${Vital} label="failing" value=${status ? (failing.length === 1 ? failing[0].name : failing.length) : "…"} to=${href("functions", failing.length === 1 ? { function: failing[0].name } : {})} kind=${failing.length ? "bad" : ""} title=${failing.map((f) => `${f.name}: ${f.failing ?? f.circuit}`).join("\n")} />
      ${paused.length > 0 && html`<${Vital} label="paused" value=${paused.length === 1 ? paused[0].name : paused.length} to=${href("functions", paused.length === 1 ? { function: paused[0].name } : {})} kind="warn" />`}
      <${Vital} label="sources" value=${status ? (troubled.length ? `${troubled.length} degraded` : `${status.sources.length} ok`) : "…"} to=${href("sources")} kind=${troubled.length ? "bad" : ""} title=${troubled.map((s) => `${s.uri}: ${s.trouble}`).join("\n")} />
      <${Vital} label="store" value=${now?.refused ? "refuses writes" : bytes(space.store)} to=${href("health")} kind=${now?.refused ? "bad" : ""} title=${now?.refused} />
      <${Vital} label="disk free" value=${bytes(space.free)} to=${href("health")} kind=${low ? "bad" : ""} />
      <div class="link" role="status"><span class=${`state ${state === "live" ? "ok" : state === "lost" ? "bad" : "wait"}`} title=${reason}>${state === "live" ? "live" : state === "lost" ? "connection lost; trying again" : "connecting"}</span>${now && html`<span>up ${ago(new Date(Date.parse(now.at) - status.uptime_ms).toISOString(), Date.parse(now.at)).replace(" ago", "")}</span>`}</div>
    </header>`;
}

function Side() {
  const { view } = route.value;
  const nav = useRef();
  // On a phone, the views are a row that scrolls.
  useEffect(() => nav.current.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" }), [view]);
  const status = beat.value?.status;
  const tags = {
    dead: status && total(status, (f) => f.dead) > 0 && ["bad", total(status, (f) => f.dead)],
    pending: status?.pending > 0 && ["", status.pending],
    functions: status && status.functions.some((f) => f.failing || f.circuit) && ["bad", status.functions.filter((f) => f.failing || f.circuit).length],
    sources: status && status.sources.some((s) => s.state !== "ok") && ["bad", status.sources.filter((s) => s.state !== "ok").length],
  };
  return html`
    <nav class="side" aria-label="Views" ref=${nav}>
      ${GROUPS.map((names, at) => html`${at > 0 && html`<hr />`}${names.map((name) => html`
        <a key=${name} href=${href(name)} aria-current=${name === view ? "page" : undefined}>${VIEWS[name][0]}${tags[name] && html`<span class=${`tag ${tags[name][0]}`} title=${count(tags[name][1])}>${brief(tags[name][1])}</span>`}</a>`)}`)}
      <div class="foot">
        <span>${session.value.name}, ${session.value.role}</span>
        <span>evoke ${session.value.version}</span>
        <button class="plain" onClick=${() => { help.value = true; }}>Keys <kbd>?</kbd></button>
        ${done.value.length > 0 && html`<button class="plain" onClick=${() => { dialog.value = History; }}>Actions (${done.value.length})</button>`}
        <button class="plain" onClick=${leave}>Log out</button>
      </div>
    </nav>`;
}

function History() {
  return html`<${Dialog} title="Actions in this page" onClose=${() => { dialog.value = null; }}>
    <table><tbody>${done.value.map((one) => html`<tr key=${one.at}><td class="nowrap dim">${exact(one.at).slice(11, 19)}</td><td>${one.what}</td><td><span class=${`state ${one.ok ? "ok" : "bad"}`}>${one.ok ? "done" : "failed"}</span></td></tr>`)}</tbody></table>
    <p class="dim">The log of the process (EVOKE_LOG=info) lists each change with the name of the token that made it.</p>
    <div class="buttons"><button onClick=${() => { dialog.value = null; }} data-focus>Close</button></div>
  <//>`;
}

function Keys() {
  return html`<${Dialog} title="Keys" onClose=${() => { help.value = false; }}>
    <div class="keys">${KEYS.map(([key, what]) => html`<span><kbd>${key}</kbd></span><span>${what}</span>`)}</div>
    <div class="buttons"><button onClick=${() => { help.value = false; }} data-focus>Close</button></div>
  <//>`;
}

function Login() {
  const [code, setCode] = useState("");
  const open = (e) => {
    e.preventDefault();
    useCode(code.trim().replace(/^.*#code=/, ""));
  };
  return html`
    <main class="login panel">
      <h1>Evoke</h1>
      ${refused.value && html`<div class="notice bad" role="alert">${refused.value}</div>`}
      <p>This browser has no session. Run this command in the folder of the running Evoke, and open the link that it prints:</p>
      <${Command} text="evoke console" />
      <p class="dim">The link is valid once, for two minutes. The session has the rights of your token and lasts 12 hours.</p>
      <form class="row" onSubmit=${open}><input class="grow" value=${code} onInput=${(e) => setCode(e.target.value)} placeholder="or paste the link or its code" aria-label="Link or code" autocomplete="off" /><button class="primary" disabled=${!code.trim()}>Open</button></form>
    </main>`;
}

/** The time range that all views share. */
export function RangePicker() {
  const { range = "1h", since = "", until = "" } = route.value.params;
  const change = (e) => {
    const own = e.target.value === "own";
    const iso = (ms) => new Date(ms).toISOString().slice(0, 19) + "Z";
    update({ range: e.target.value, since: own ? iso(Date.now() - 3600_000) : "", until: own ? iso(Date.now()) : "" });
  };
  return html`
    <select class="half" aria-label="Time range" value=${range} onChange=${change}>
      <option value="15m">last 15 minutes</option><option value="1h">last hour</option><option value="1d">last day</option><option value="all">all time</option><option value="own">own range</option>
    </select>
    ${range === "own" && html`<input aria-label="Since" value=${since} onChange=${(e) => update({ since: e.target.value })} /><input aria-label="Until" value=${until} onChange=${(e) => update({ until: e.target.value })} />`}`;
}

function View() {
  const { view, params } = route.value;
  const [title, module, name = "View"] = VIEWS[view] ?? VIEWS.events;
  useEffect(() => {
    document.title = `${title} · Evoke`;
    load(module);
  }, [view]);
  if (broken.value[module]) return html`<div class="view"><div class="notice bad" role="alert"><span class="grow">This view cannot be loaded: ${broken.value[module]}</span><button onClick=${() => load(module)}>Try again</button></div></div>`;
  const Component = loaded.value[module]?.[name];
  return Component ? html`<${Boundary} at=${route.value}><${Component} key=${view} params=${params} Range=${RangePicker} /><//>` : html`<div class="view"><p class="loading" aria-busy="true">Loading…</p></div>`;
}

function App() {
  if (session.value === undefined) return html`<p class="loading" aria-busy="true">Loading…</p>`;
  if (session.value === null) return html`<${Login} />`;
  return html`
    <a class="skip" href="#main" onClick=${(e) => { e.preventDefault(); document.getElementById("main")?.focus(); }}>Skip to the list</a>
    <div class="frame"><${Strip} /><${Side} /><${View} /></div>
    ${dialog.value && html`<${Boundary} at=${dialog.value} onClose=${() => { dialog.value = null; }}><${dialog.value} /><//>`}
    ${help.value && html`<${Keys} />`}
    <div class="toasts" role="status" aria-live="polite">${toasts.value.map((one) => html`<div class=${`notice ${one.kind}`}>${one.text}</div>`)}</div>`;
}

effect(() => (session.value ? start() : stop()));
render(html`<${App} />`, document.getElementById("app"));
// A link that is opened in a tab of the console changes only the fragment.
addEventListener("hashchange", () => { if (location.hash.startsWith("#code=")) enter(); });
load((VIEWS[route.value.view] ?? VIEWS.events)[1]);
enter();
