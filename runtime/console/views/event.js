// One event whole: attributes, data, who received it, who did not and why, and what can be done with it.
import { useEffect, useMemo, useState } from "../vendor/hooks.js";
import { get, getExact, post, request, segment } from "../api.js";
import { indented, line } from "../json.js";
import { go, href } from "../route.js";
import { bytes, clock, duration, exact, plural, shell } from "../format.js";
import { DataTree, Dialog, Id, Loaded, State, Time, copy, html, toast, useLoad } from "../parts.js";
import { Act, checkEvent, dialog, edit, run } from "../acts.js";

/** The source of events that are sent from here; sources of apps belong to their sources and functions. */
export const SOURCE = "/console";

/** Sends an event, and returns its number. An event that exists is an error. */
export async function emit(event) {
  const { accepted: [one] } = await post("/api/v1/events", event);
  if (one.duplicate) throw new Error(`event ${one.seq} already has this id and source; nothing was stored`);
  return one.seq;
}

const send = async (event) => `Event ${await emit(event)} was accepted`;

/** An event as it can be sent again: without an id, and from the console. */
export function copyOf(event) {
  const { id, source, time, specversion, ...rest } = event;
  return { specversion: "1.0", source: SOURCE, ...rest };
}

export const dataOf = (event) => (event?.data !== undefined ? event.data : undefined);

/** A pattern that selects the type and this value. */
export function patternFrom(event, steps, value) {
  const nested = steps.reduceRight((inner, step) => ({ [step]: inner }), [value]);
  return JSON.stringify({ type: [event.type], data: nested }, null, 2);
}

export function EventPanel({ reference, onFilter }) {
  const load = useLoad(async (abort) => {
    const node = await getExact(`/api/v1/trace/${segment(reference)}`, {}, abort);
    const explained = await get(`/api/v1/explain/${segment(node.seq)}`, {}, abort).catch((error) => ({ error }));
    return { node, explained };
  }, [reference], 2000);
  return html`<${Loaded} of=${load}>${({ node, explained }) => html`<${Whole} ...${{ node, explained, onFilter, again: load.again }} />`}<//>`;
}

function Whole({ node, explained, onFilter, again }) {
  const { event } = node;
  const [raw, setRaw] = useState(false);
  if (!event) return html`<div class="notice bad">${node.damaged}</div>`;
  const { data, data_base64, ...attributes } = event;
  const received = new Set(node.deliveries.map((delivery) => delivery.function));
  const others = Array.isArray(explained) ? explained.filter((one) => !received.has(one.function)) : [];
  const pick = (what, steps, value) => (what === "pattern" ? go("patterns", { pattern: patternFrom(event, steps, value) }) : onFilter?.(steps, value));
  const again_ = () => run(`Emit ${event.type} again`, () => send(copyOf(event))).then(again);
  const change = () => edit({
    title: "Edit and emit", yes: "Emit",
    text: `The event is stored as a new event with the source ${SOURCE}. Triggers that name another source do not match it.`,
    value: copyOf(event), label: "The event as JSON", check: checkEvent, send,
  });
  const test = () => copy(() => `evoke invoke FUNCTION --manifest MANIFEST --event ${shell(line(event))}`);
  return html`
    <div class="acts">
      <a class="button" href=${href("trace", { event: node.seq })}>Trace</a>
      <${Act} onClick=${again_}>Emit again<//>
      <${Act} onClick=${change} data-act="edit-emit">Edit and emit<//>
      <button onClick=${test} title="Copies a command that runs one function on this event, without a server">Copy as a test</button>
    </div>
    <section class="stack tight">
      <h3>Attributes</h3>
      <dl>
        <dt>accepted</dt><dd><${Time} at=${node.accepted} /> <span class="dim">${exact(node.accepted)}</span></dd>
        ${Object.entries(attributes).map(([name, value]) => html`<dt key=${name}>${name}</dt><dd class="mono">${name === "id" ? html`<${Id} text=${value} max=${40} />` : String(value)}</dd>`)}
        ${node.origin && html`<dt>entered by</dt><dd class="mono">${node.origin}</dd>`}
        ${node.principal && html`<dt>sender</dt><dd class="mono">${node.principal}</dd>`}
        ${node.published_by && html`<dt>published by</dt><dd>delivery ${node.published_by}</dd>`}
        ${node.root && html`<dt>chain</dt><dd><a href=${href("events", { event: node.root })}>event ${node.root}</a>, ${plural(node.hops, "hop")}</dd>`}
      </dl>
    </section>
    <section class="stack tight">
      <div class="row between"><h3>Data</h3><span><button class="plain" aria-pressed=${raw} onClick=${() => setRaw(!raw)}>${raw ? "As a tree" : "Raw"}</button><button class="plain" onClick=${() => copy(() => line(data ?? data_base64 ?? null))}>Copy</button></span></div>
      ${data === undefined && data_base64 === undefined ? html`<p class="dim">The event has no data.</p>`
        : data_base64 !== undefined ? html`<p class="dim">Binary data in base64, ${bytes(data_base64.length * 0.75)}</p><pre>${data_base64.slice(0, 2000)}</pre>`
        : raw || typeof data !== "object" ? html`<pre>${typeof data === "string" ? data : indented(data)}</pre>`
        : html`<div class="tree"><${DataTree} value=${data} onPick=${pick} /></div>`}
    </section>
    <section class="stack tight">
      <h3>Received by</h3>
      ${node.deliveries.length === 0 && html`<p class="dim">No function received this event.</p>`}
      ${node.deliveries.map((delivery) => html`<${Delivery} key=${delivery.id} delivery=${delivery} />`)}
    </section>
    <section class="stack tight">
      <h3>Not received by</h3>
      ${explained.error && html`<p class="state bad">${explained.error.message}</p>`}
      ${others.length === 0 && !explained.error && html`<p class="dim">Every function received it.</p>`}
      ${others.map((one) => html`
        <div class="delivery" key=${one.function + one.trigger}>
          <div class="row between"><a class="mono" href=${href("functions", { function: one.function })}>${one.function}</a><span class="dim mono">${one.trigger}</span></div>
          ${one.matched ? html`<p>It matches now, but did not when the event was accepted; a replay delivers it.</p>` : html`<pre>${one.text}</pre>`}
          ${one.pattern && !one.matched && html`<p class="dim"><${Miss} pattern=${one.pattern} lead="fails at " /></p>`}
        </div>`)}
    </section>`;
}

/** The field that does not match, after a lead: what the pattern wants, and what the event has. */
export function Miss({ pattern: { failed, fields }, lead = "" }) {
  const field = fields.find((one) => one.place === failed);
  if (!field) return "each field matches, but not within the same array element";
  const wants = field.operators.map((operator) => operator.text).join(", ");
  return html`${lead}<code>${failed}</code>: the pattern requires ${wants}; the event has ${field.values.length ? field.values.join(", ") : "no such field"}`;
}

/** A delivery with its attempts. */
export function Delivery({ delivery }) {
  return html`
    <div class="delivery">
      <div class="row between">
        <a class="mono" href=${href("functions", { function: delivery.function })}>${delivery.function}</a>
        <span class="row"><span class="dim">delivery ${delivery.id}</span><${State} name=${delivery.state} /></span>
      </div>
      ${delivery.cause && html`<p class="state bad">${delivery.cause}</p>`}
      ${delivery.due && html`<p class="dim">next attempt <${Time} at=${delivery.due} /></p>`}
      <${Attempts} delivery=${delivery.id} attempts=${delivery.attempts} />
      ${(delivery.state === "dead" || delivery.state === "purged") && html`<a href=${href("dead", { dead: delivery.id })}>Open the dead letter</a>`}
    </div>`;
}

export function Attempts({ delivery, attempts }) {
  if (!attempts.length) return html`<p class="dim">No attempt has ended yet.</p>`;
  return html`<table class="attempts"><thead><tr><th class="num">Attempt</th><th>Started</th><th class="num">Took</th><th>Outcome</th><th><span class="hidden">Test</span></th></tr></thead>
    <tbody>${attempts.map((one) => html`<tr key=${one.attempt}><td class="num" data-label="attempt">${one.attempt}</td><td class="nowrap" title=${exact(one.started)}>${clock(one.started)}</td><td class="num">${duration(one.duration_us / 1000)}</td><td><${State} name=${one.outcome === "done" ? "done" : "dead"} text=${one.outcome} />${one.message && html` <span>${one.message}</span>`}</td><td><${Act} class="plain" onClick=${() => saveAsTest(delivery, one.attempt)} data-act="save-test">Save as a test<//></td></tr>`)}</tbody></table>`;
}

/** Shows the test of a recorded attempt. Without a recording, the response says how to get one. */
async function saveAsTest(delivery, attempt) {
  try {
    const text = await (await request("GET", `/api/v1/recordings/${segment(delivery)}/test`, { params: { attempt } })).text();
    dialog.value = () => html`<${TestFile} name=${`delivery-${delivery}.test.yaml`} text=${text} />`;
  } catch (error) {
    toast(error.message, "bad");
  }
}

function TestFile({ name, text }) {
  const url = useMemo(() => URL.createObjectURL(new Blob([text], { type: "application/yaml" })), [text]);
  useEffect(() => () => URL.revokeObjectURL(url), [url]);
  const close = () => { dialog.value = null; };
  return html`
    <${Dialog} title="The attempt as a test" wide onClose=${close}>
      <p class="dim">Put the file beside the manifest, as <code>MANIFEST.test.yaml</code> or with a line <code>manifest: FILE</code>, and run <code>evoke test</code>. In place of the value of a secret NAME, the file contains the text <code>test-NAME</code>.</p>
      <pre data-test-file>${text}</pre>
      <div class="buttons">
        <button onClick=${close}>Close</button>
        <button onClick=${() => copy(text)}>Copy</button>
        <a class="button" href=${url} download=${name} data-focus>Download</a>
      </div>
    <//>`;
}
