// The live list of events, with filters; one event whole in the drawer.
import { useEffect, useRef, useState } from "../vendor/hooks.js";
import { get } from "../api.js";
import { beat, follow } from "../live.js";
import { range, update } from "../route.js";
import { count, plural } from "../format.js";
import { Command, Drawer, Empty, Outcome, State, Time, html, leafText, rowProps } from "../parts.js";
import { EventPanel } from "./event.js";

/** Rows that the list keeps. Older ones are a click away. */
const ROWS_MAX = 500;
/** Rows of a list that is a sample: it has gaps already, and is drawn anew four times a second. */
const SAMPLED_MAX = 100;
const PAGE = 50;
/** How often the states of unfinished rows are read again. */
const REFRESH_MS = 1500;

const isUnfinished = (row) => !row.damaged && (!row.deliveries || row.deliveries.pending + row.deliveries.retrying > 0);

export function View({ params, Range }) {
  const { type = "", source = "", fn = "", text = "", state = "", event } = params;
  const [rows, setRows] = useState([]);
  const [held, setHeld] = useState([]);
  const [search, setSearch] = useState({ busy: true });
  const [sampled, setSampled] = useState(null);
  /** The newest event when the first page of a search was read. The stream continues after it. */
  const [first, setFirst] = useState({});
  const list = useRef();
  const isReading = useRef(false);
  const at = range();
  // Filters that need the deliveries or the data are applied by the server's search, so such a list is read again.
  const isPlain = !fn && !text && !state;
  const isLive = at.until_ms === undefined;
  const filters = { type, source, function: fn, text, state };
  const key = JSON.stringify([filters, at.name, params.since, params.until]);

  const page = (extra, abort) => get("/api/v1/console/events", { ...filters, since_ms: extra.since_ms ?? at.since_ms, until_ms: at.until_ms, limit: PAGE, before: extra.before }, abort);

  /** Reads pages until there are enough rows; each is bounded in time, and shows as it arrives. */
  const more = async (before, wanted, abort, start = []) => {
    let all = start;
    let scanned = 0;
    try {
      for (;;) {
        setSearch({ busy: true, scanned });
        const found = await page({ before }, abort);
        if (abort.aborted) return;
        scanned += found.scanned;
        all = [...all, ...found.rows];
        // The stream may have brought newer rows and states meanwhile.
        setRows((now) => merge(now, all, Infinity));
        if (before === undefined) setFirst({ key, newest: found.newest });
        before = found.next;
        if (before === undefined || all.length - start.length >= wanted) break;
      }
      setSearch({ next: before, scanned });
    } catch (error) {
      if (abort.aborted) return;
      setSearch({ error, next: before });
      // Without a list, the stream begins with the next event.
      if (before === undefined) setFirst({ key, newest: "" });
    }
  };

  const current = useRef();
  useEffect(() => {
    const abort = new AbortController();
    current.current = abort;
    setRows([]);
    setHeld([]);
    setSampled(null);
    setFirst({});
    more(undefined, PAGE, abort.signal);
    return () => abort.abort();
  }, [key]);

  const after = first.key === key ? first.newest : undefined;
  useEffect(() => {
    if (!isLive || !isPlain || after === undefined) return undefined;
    return follow({ type, source }, after, ({ rows: fresh, skipped }) => {
      setSampled(skipped > 0 ? { skipped, at: Date.now() } : (before) => (before && Date.now() - before.at > 3000 ? null : before));
      const newest = [...fresh].reverse();
      const most = skipped > 0 ? SAMPLED_MAX : ROWS_MAX;
      if (isReading.current) setHeld((all) => [...newest, ...all].slice(0, most));
      else setRows((all) => merge(newest, all, most));
    });
  }, [key, after]);

  // The states of rows that were not finished, or a search that the stream cannot do.
  const shown = useRef(rows);
  shown.current = rows;
  useEffect(() => {
    if (!isLive) return undefined;
    const timer = setInterval(async () => {
      const unfinished = shown.current.slice(0, PAGE).some(isUnfinished);
      if (document.visibilityState !== "visible" || isReading.current === "scrolled" || (isPlain && !unfinished)) return;
      try {
        const found = await page({ before: isPlain ? shown.current[0]?.seq + 1 : undefined }, current.current.signal);
        const states = new Map(found.rows.map((row) => [row.seq, row]));
        setRows((all) => {
          const same = all.map((row) => states.get(row.seq) ?? row);
          return isPlain || isReading.current ? same : merge(found.rows.filter((row) => !all.length || row.seq > all[0].seq), same);
        });
      } catch { /* The next round tries again. */ }
    }, REFRESH_MS);
    return () => clearInterval(timer);
  }, [key, isLive]);

  const release = () => {
    isReading.current = false;
    list.current.scrollTop = 0;
    setRows((all) => merge(held, all));
    setHeld([]);
  };
  const onScroll = (e) => {
    if (e.target.scrollTop > 40) isReading.current = "scrolled";
    else if (isReading.current === "scrolled") isReading.current = false;
  };
  const set = (name) => (e) => update({ [name]: e.target.value.trim() });
  const isEmpty = !rows.length && !search.busy && !search.error;
  const isFirstVisit = isEmpty && beat.value?.status.events === 0;

  return html`
    <div class=${`main ${event ? "open" : ""}`}>
      <main class="view" id="main" tabindex="-1" ref=${list} onScroll=${onScroll}>
        <header>
          <h1>Events</h1>
          <div class="filters" role="search">
            <input class="wide" data-search placeholder="text in data, id, subject" aria-label="Text" value=${text} onChange=${set("text")} />
            <input class="half" placeholder="type, such as order.*" aria-label="Type" value=${type} onChange=${set("type")} list="types" />
            <input class="half" placeholder="source" aria-label="Source" value=${source} onChange=${set("source")} list="sources" />
            <select class="half" aria-label="Function" value=${fn} onChange=${set("fn")}><option value="">any function</option>${beat.value?.status.functions.map((f) => html`<option key=${f.name} value=${f.name}>${f.name}</option>`)}</select>
            <select class="half" aria-label="State" value=${state} onChange=${set("state")}><option value="">any state</option><option value="failed">failed</option><option value="pending">pending</option></select>
            <${Range} />
          </div>
          <datalist id="sources">${beat.value?.status.sources.map((s) => html`<option key=${s.uri} value=${s.uri} />`)}</datalist>
          <datalist id="types">${[...new Set(rows.map((row) => row.type))].map((name) => html`<option key=${name} value=${name} />`)}</datalist>
        </header>
        ${sampled && html`<p class="notice warn" role="status">Events arrive faster than a list can show them: this is a sample of the newest events. The rates above count all events.</p>`}
        <div class="panel" onPointerEnter=${() => { isReading.current ||= "pointer"; }} onPointerLeave=${() => { if (isReading.current === "pointer") { isReading.current = false; if (held.length) release(); } }}>
          ${held.length > 0 && html`<button class="newer" onClick=${release}>${held.length >= ROWS_MAX ? `${ROWS_MAX} or more` : count(held.length)} new</button>`}
          ${search.error && html`<div class="notice bad" role="alert"><span class="grow">${search.error.message}</span><button onClick=${() => more(undefined, PAGE, current.current.signal)}>Try again</button></div>`}
          ${isFirstVisit ? html`<${FirstVisit} />` : isEmpty ? html`<${Empty} title="No events here"><p>${search.scanned ? `None of ${plural(search.scanned, "event")} matches these filters.` : "No event was accepted in this time range."}</p>${at.name !== "all" && html`<button onClick=${() => update({ range: "all", since: "", until: "" })}>Search all time</button>`}<//>` : html`
          <table class="flat">
            <thead><tr><th>Accepted</th><th>Type</th><th>Source</th><th class="num">Number</th><th>Data</th><th>Outcome</th></tr></thead>
            <tbody>${rows.map((row) => drawnRow(row, String(row.seq) === event))}</tbody>
          </table>`}
          ${search.busy && html`<p class="loading" aria-busy="true">${search.scanned ? `Searched ${plural(search.scanned, "event")}…` : "Loading…"}</p>`}
          ${search.next !== undefined && !search.busy && html`<p class="row"><button onClick=${() => more(search.next, PAGE, current.current.signal, rows)}>Show older</button></p>`}
        </div>
      </main>
      ${event && html`<${Drawer} title=${`Event ${event}`} onClose=${() => update({ event: "" })}><${EventPanel} reference=${event} onFilter=${(_, value) => update({ text: leafText(value) })} /><//>`}
    </div>`;
}

/** Rows by number, newest first, each once. */
function merge(fresh, all, most = ROWS_MAX) {
  const seen = new Set(fresh.map((row) => row.seq));
  return [...fresh, ...all.filter((row) => !seen.has(row.seq))].sort((a, b) => b.seq - a.seq).slice(0, most);
}

const open = (seq) => update({ event: seq }, true);

/** The drawn rows, by row. A row that is drawn already is not compared again when others come. */
const drawn = new WeakMap();

function drawnRow(row, isChosen) {
  const known = drawn.get(row);
  if (known?.isChosen === isChosen) return known.node;
  const node = html`
    <tr key=${row.seq} ...${rowProps(() => open(row.seq), isChosen)} data-seq=${row.seq}>
      <td class="nowrap"><${Time} at=${row.accepted} /></td>
      <td class="nowrap"><a class="mono" href=${`#/events?event=${row.seq}`} onClick=${(e) => { e.preventDefault(); open(row.seq); }}>${row.type || "damaged"}</a></td>
      <td class="cut mono" title=${row.source}>${row.source}</td>
      <td class="num dim">${row.seq}</td>
      <td class="preview" title=${row.preview}>${row.damaged ?? row.preview}</td>
      <td class="nowrap">${row.damaged ? html`<${State} name="damaged" />` : html`<${Outcome} of=${row.deliveries} />`}</td>
    </tr>`;
  drawn.set(row, { isChosen, node });
  return node;
}

function FirstVisit() {
  const { status } = beat.value;
  const publicUrl = status.listeners?.find((one) => one.name === "public")?.url;
  return html`
    <${Empty} title="Nothing has happened yet">
      <p>Events appear here as they are accepted. Send the first one from a terminal in the folder of this Evoke:</p>
      <${Command} text=${`evoke emit --type hello --data '{"from":"me"}'`} />
      ${publicUrl && status.sources.some((s) => s.kind === "http") && html`<p>Or send a request to one of the http sources at <span class="mono">${publicUrl}</span>; the view Sources lists their paths.</p>`}
    <//>`;
}
