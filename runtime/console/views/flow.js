// The graph: sources, functions and the types between them, with the rates of the newest events. Drawn from the manifests.
import { useEffect, useMemo, useState } from "../vendor/hooks.js";
import { get, post } from "../api.js";
import { beat } from "../live.js";
import { href, update } from "../route.js";
import { count, plural, rate } from "../format.js";
import { Drawer, Empty, Loaded, State, html, useLoad } from "../parts.js";
import { Miss } from "./event.js";

const REFRESH_MS = 4000;
const [NODE_HEIGHT, CHAR] = [44, 7.4];

/** Whether a glob of types matches a type or another glob; `*` stands for any characters. */
export function globMatches(glob, type) {
  const [first, ...rest] = glob.split("*");
  const last = rest.pop();
  if (last === undefined) return glob === type;
  if (!type.startsWith(first)) return false;
  // Each part is taken at its first place. A regular expression would try all places for each `*`.
  let at = first.length;
  for (const part of rest) {
    const found = type.indexOf(part, at);
    if (found < 0) return false;
    at = found + part.length;
  }
  return type.length - last.length >= at && type.endsWith(last);
}

/** Makes nodes and edges of what is declared. A type with one consumer is the label of an edge; others are nodes. */
export function graphOf({ sources, functions, edges: ways, window_ms }, status) {
  const nodes = new Map();
  const edges = new Map();
  const node = (id, kind, label, extra = {}) => nodes.get(id) ?? nodes.set(id, { id, kind, label, ...extra }).get(id);
  const edge = (from, to, extra) => {
    const key = `${from}\n${to}\n${extra.type ?? ""}`;
    const one = edges.get(key) ?? { key, from, to, count: 0, failed: 0, pending: 0, newest: [], triggers: [], ...extra };
    if (extra.trigger) one.triggers.push(extra.trigger);
    edges.set(key, one);
    return one;
  };
  const states = new Map(status?.functions.map((f) => [f.name, f]));
  for (const source of sources) node(source.uri, "source", source.uri, { sub: source.kind, source, trouble: status?.sources.find((s) => s.uri === source.uri)?.trouble });
  for (const f of functions) node(f.name, "function", f.name, { f, state: states.get(f.name) });
  // Who makes which types: by the manifest, and by what was seen.
  const producers = [];
  for (const source of sources) for (const type of source.types) producers.push({ from: source.uri, type });
  for (const f of functions) for (const type of f.publishes) producers.push({ from: f.name, type });
  const consumers = new Map();
  for (const f of functions) {
    for (const trigger of f.triggers) {
      const named = { ...trigger, function: f.name, file: f.file };
      if (trigger.source) {
        edge(trigger.source, f.name, { type: trigger.types?.join(", ") ?? "", trigger: named });
        continue;
      }
      for (const type of trigger.types ?? ["any type"]) {
        const makers = producers.filter((one) => one.from !== undefined && (trigger.types ? globMatches(one.type, type) : true));
        consumers.set(type, [...(consumers.get(type) ?? []), { f, named, makers }]);
      }
    }
  }
  for (const [type, takers] of consumers) {
    const makers = [...new Set(takers.flatMap((one) => one.makers.map((maker) => maker.from)))];
    if (makers.length === 0) {
      // Only events from outside, such as those of `evoke emit`, can have the type.
      node(`?${type}`, "type", type, { sub: type.startsWith("evoke.") ? "made by Evoke" : "sent by `evoke emit` only" });
      for (const one of takers) edge(`?${type}`, one.f.name, { type, trigger: one.named });
    } else if (takers.length > 1) {
      node(`?${type}`, "type", type, { sub: plural(takers.length, "function") });
      for (const maker of makers) edge(maker, `?${type}`, { type });
      for (const one of takers) edge(`?${type}`, one.f.name, { type, trigger: one.named });
    } else {
      for (const maker of makers) edge(maker, takers[0].f.name, { type, trigger: takers[0].named });
    }
  }
  // Dead ends: types that a function may publish and no trigger takes.
  for (const f of functions) {
    for (const glob of f.publishes) {
      const isTaken = [...consumers.keys()].some((type) => type === "any type" || globMatches(glob, type));
      if (isTaken) continue;
      node(`!${glob}`, "type", glob, { sub: "no function receives it", isEnd: true });
      edge(f.name, `!${glob}`, { type: glob });
    }
  }
  for (const way of ways) {
    const from = nodes.has(way.from) ? way.from : way.from.replace(/^\//, "");
    const add = (one) => {
      if (!one) return;
      one.count += way.count;
      one.failed += way.failed;
      one.pending += way.pending;
      one.newest.push(...way.newest);
    };
    const all = [...edges.values()];
    const fits = (one) => !one.type || one.type.split(", ").some((type) => type === "any type" || globMatches(type, way.type));
    if (way.to) {
      add(all.find((one) => one.from === from && one.to === way.to && fits(one)));
      if (!all.some((one) => one.from === from && one.to === way.to && fits(one))) {
        add(all.find((one) => one.to === way.to && one.from.startsWith("?") && fits(one)));
        add(all.find((one) => one.from === from && one.to.startsWith("?") && fits(one)));
      }
    } else {
      add(all.find((one) => one.from === from && one.to.startsWith("!") && globMatches(one.type, way.type)));
    }
  }
  const list = [...edges.values()].filter((one) => nodes.has(one.from) && nodes.has(one.to));
  markCircles(list);
  return { nodes: [...nodes.values()], edges: list, seconds: window_ms / 1000 };
}

/** Marks the edges from which their start can be reached again. */
function markCircles(edges) {
  const next = new Map();
  for (const one of edges) next.set(one.from, [...(next.get(one.from) ?? []), one.to]);
  for (const one of edges) {
    const seen = new Set();
    const queue = [one.to];
    while (queue.length && !seen.has(one.from)) {
      const at = queue.pop();
      if (seen.has(at)) continue;
      seen.add(at);
      queue.push(...(next.get(at) ?? []));
    }
    one.isCircle = seen.has(one.from);
  }
}

export function View({ params }) {
  const load = useLoad((abort) => get("/api/v1/console/flow", {}, abort), [], REFRESH_MS);
  const [dagre, setDagre] = useState();
  useEffect(() => { import("../vendor/dagre.js").then((module) => setDagre(module.default)); }, []);
  const { edge, app = "" } = params;
  const apps = [...new Set(load.data?.functions.map((f) => f.app))];
  const only = app && load.data ? { ...load.data, sources: load.data.sources.filter((s) => s.app === app), functions: load.data.functions.filter((f) => f.app === app) } : load.data;
  const graph = only && graphOf(only, beat.value?.status);
  const chosen = edge && graph?.edges.find((one) => one.key === edge);
  return html`
    <div class=${`main ${chosen ? "open" : ""}`}>
      <main class="view" id="main" tabindex="-1">
        <header><h1>Flow</h1>
          ${apps.length > 1 && html`<select aria-label="App" value=${app} onChange=${(e) => update({ app: e.target.value, edge: "" })}><option value="">all apps</option>${apps.map((name) => html`<option key=${name}>${name}</option>`)}</select>`}
          ${load.data && html`<span class="dim">rates from the newest ${plural(load.data.events, "event")}, over ${Math.round(load.data.window_ms / 1000)} s; select an edge to see its pattern</span>`}
        </header>
        <${Loaded} of=${load}>${() => (graph.nodes.length === 0
          ? html`<div class="panel"><${Empty} title="Nothing is declared"><p>The sources and functions of the active manifests are drawn here.</p><//></div>`
          : dagre ? html`<${Drawing} ...${{ dagre, graph, chosen }} />` : html`<p class="loading">Loading…</p>`)}<//>
        ${graph && html`<${Legend} graph=${graph} />`}
      </main>
      ${chosen && html`<${Drawer} title=${`${chosen.from} → ${chosen.to}`} onClose=${() => update({ edge: "" })}><${Explained} key=${chosen.key} edge=${chosen} seconds=${graph.seconds} /><//>`}
    </div>`;
}

function Legend({ graph }) {
  const ends = graph.nodes.filter((one) => one.isEnd);
  const circles = graph.edges.filter((one) => one.isCircle);
  return html`<p class="row dim">
    ${circles.length > 0 && html`<${State} name="retrying" text=${`dashed: ${plural(circles.length, "edge")} of a cycle`} />`}
    ${ends.length > 0 && html`<${State} name="nobody" text=${`${plural(ends.length, "type")} that no function receives`} />`}</p>`;
}

function Drawing({ dagre, graph, chosen }) {
  const shape = JSON.stringify([graph.nodes.map((one) => [one.id, widthOf(one)]), graph.edges.map((one) => one.key)]);
  const layout = useMemo(() => {
    const g = new dagre.graphlib.Graph({ multigraph: true });
    g.setGraph({ rankdir: "LR", nodesep: 24, ranksep: 120, marginx: 16, marginy: 16 });
    g.setDefaultEdgeLabel(() => ({}));
    for (const one of graph.nodes) g.setNode(one.id, { width: widthOf(one), height: NODE_HEIGHT });
    for (const one of graph.edges) g.setEdge(one.from, one.to, { width: Math.min(180, (one.type?.length ?? 0) * 6.4), height: 36, labelpos: "c" }, one.key);
    dagre.layout(g);
    return g;
  }, [dagre, shape]);
  const { width = 0, height = 0 } = layout.graph();
  const max = Math.max(1, ...graph.edges.map((one) => one.count));
  return html`
    <div class="graph panel"><svg width=${width} height=${height} viewBox=${`0 0 ${width} ${height}`} role="group" aria-label="Sources, functions and types">
      <defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" markerUnits="userSpaceOnUse" orient="auto"><path d="M0 0 8 4 0 8z" fill="currentColor" opacity=".6" /></marker></defs>
      ${graph.edges.map((one) => html`<${EdgeLine} key=${one.key} ...${{ one, line: layout.edge(one.from, one.to, one.key), share: one.count / max, seconds: graph.seconds, isOn: chosen?.key === one.key }} />`)}
      ${graph.nodes.map((one) => html`<${NodeBox} key=${one.id} ...${{ one, box: layout.node(one.id) }} />`)}
    </svg></div>`;
}

/** The second line of a node: the state of a function. */
function subOf({ kind, sub, state: f }) {
  if (kind !== "function") return sub ?? "";
  const backlog = f ? f.ready + f.retrying + f.blocked : 0;
  const parts = [f?.paused && "paused", f?.compiling && "being compiled", f?.failing && "failing", backlog > 0 && `${count(backlog)} waiting`, f?.dead > 0 && `${count(f.dead)} dead`].filter(Boolean);
  return parts.join(", ") || (f?.running ? `${f.running} running` : "idle");
}

/** The width of a node, in steps: the graph keeps its place while a number in it grows. */
const widthOf = (one) => Math.max(120, one.label.length * CHAR + 28, Math.ceil((subOf(one).length * 6) / 40) * 40 + 28);

function NodeBox({ one, box }) {
  const f = one.state;
  const kind = one.trouble || f?.failing || f?.circuit ? "bad" : f?.paused || one.isEnd ? "warn" : "";
  const sub = subOf(one);
  const to = one.kind === "function" ? href("functions", { function: one.label }) : one.kind === "source" ? href("sources", { source: one.label }) : href("events", { type: one.label });
  return html`
    <a href=${to} class=${`node ${one.kind} ${kind}`} aria-label=${`${one.kind} ${one.label}, ${sub}`}>
      <g transform=${`translate(${box.x - box.width / 2},${box.y - box.height / 2})`}>
        <rect width=${box.width} height=${box.height} rx=${one.kind === "source" ? 22 : 6} />
        <text x=${box.width / 2} y="18" text-anchor="middle">${one.label}</text>
        <text class="sub" x=${box.width / 2} y="34" text-anchor="middle">${sub}</text>
      </g>
    </a>`;
}

function EdgeLine({ one, line, share, seconds, isOn }) {
  const points = line.points;
  const path = points.map((p, at) => (at === 0 ? `M${p.x} ${p.y}` : at % 2 === 1 && points[at + 1] ? `Q${p.x} ${p.y} ${points[at + 1].x} ${points[at + 1].y}` : at % 2 === 0 ? "" : `L${p.x} ${p.y}`)).join("");
  const middle = { x: line.x ?? points[Math.floor(points.length / 2)].x, y: line.y ?? points[Math.floor(points.length / 2)].y };
  const kind = one.failed ? "bad" : one.count ? "live" : "";
  const open = () => update({ edge: one.key }, true);
  const type = one.type && one.type.length > 28 ? `${one.type.slice(0, 27)}…` : one.type;
  const figures = [one.count > 0 && `${rate(one.count / seconds)}/s`, one.failed > 0 && `${one.failed} failed`, one.pending > 0 && `${one.pending} waiting`].filter(Boolean).join(", ");
  return html`
    <g class=${`edge ${kind} ${one.isCircle ? "circle" : ""} ${isOn ? "on" : ""}`} role="button" tabindex="0" aria-label=${`from ${one.from} to ${one.to}, ${one.type || "every event"}, ${figures || "no recent events"}`} onClick=${open} onKeyDown=${(e) => e.key === "Enter" && open()}>
      <path class="hit" d=${path} /><path class="line" d=${path} stroke-width=${1.5 + share * 5} marker-end="url(#arrow)" />
      ${!one.from.startsWith("?") && html`<text x=${middle.x} y=${middle.y - 8} text-anchor="middle">${type}</text>`}
      ${figures && html`<text x=${middle.x} y=${middle.y + 17} text-anchor="middle">${figures}</text>`}
    </g>`;
}

/** Why an edge exists: the lines of the manifest, the events that took it, and those that nearly did. */
function Explained({ edge, seconds }) {
  const trigger = edge.triggers[0];
  const near = useLoad(async (abort) => (trigger?.pattern ? post("/api/v1/console/pattern", { pattern: JSON.stringify(trigger.pattern), limit: 5 }, abort) : null), [edge.key]);
  return html`
    <p class="row">${edge.count > 0 ? html`<b>${rate(edge.count / seconds)}/s</b>` : html`<span class="dim">No recent event took this edge.</span>`} ${edge.failed > 0 && html`<${State} name="dead" text=${`${edge.failed} failed`} />`} ${edge.pending > 0 && html`<${State} name="pending" text=${`${edge.pending} waiting`} />`} ${edge.isCircle && html`<${State} name="retrying" text="part of a cycle" />`}</p>
    ${edge.triggers.length === 0 && html`<p class="dim">The function may publish <code>${edge.type}</code> by its grant <code>allow.publish</code>.</p>`}
    ${edge.triggers.map((one) => html`<section class="stack tight" key=${one.name}><h3>${one.function} ${one.name}</h3><p class="dim mono">${one.file}:${one.line}</p><pre class="command">${one.text}</pre>
      ${one.pattern ? html`<a href=${href("patterns", { pattern: JSON.stringify(one.pattern, null, 2) })}>Try the pattern</a>` : html`<p class="dim">Matches every event of ${one.source}.</p>`}</section>`)}
    <section class="stack tight"><h3>Last events</h3>${edge.newest.length ? edge.newest.slice(0, 10).map((seq) => html`<a key=${seq} href=${href("events", { event: seq, range: "all" })}>event ${seq}</a>`) : html`<p class="dim">None of the newest events.</p>`}</section>
    ${trigger?.pattern && html`<section class="stack tight"><h3>Near misses</h3><${Loaded} of=${near}>${(found) => (found?.near.length ? found.near.slice(0, 5).map((one) => html`<div class="delivery" key=${one.row.seq}><a class="mono" href=${href("events", { event: one.row.seq, range: "all" })}>${one.row.type}, event ${one.row.seq}</a><span><${Miss} pattern=${one.pattern} /></span></div>`) : html`<p class="dim">No stored event misses by one field.</p>`)}<//></section>`}`;
}
