// The guest of the suite in JavaScript: `how` in the data says what to do.
import { config, log, publish, Reject, Retry, secret, state } from "evoke";

function lookUp(table) {
  return table.missing.key;
}

const actions = {
  echo: (event) => publish("c.echo", event.data, { subject: event.subject, extensions: event.extensions }),
  bytes: (event) => publish("c.bytes", event.bytes, { datacontenttype: "application/octet-stream" }),
  order: () => [0, 1, 2, 3, 4].forEach((n) => publish("c.order", n)),
  reject: () => { throw new Reject("not today: grün 😀"); },
  retry: () => { throw new Retry("later", { afterMs: 1500 }); },
  throw: () => lookUp({}),
  undo: () => { publish("c.undo", 1); state.set("undo", 1); throw new Retry("undone"); },
  refused: () => publish("other.type", 1),
  spin: () => { for (;;); },
  state: () => {
    state.set("text", "grün 😀");
    state.setBytes("raw", new Uint8Array([0, 255]));
    const count = state.increment("count", 3);
    state.update("list", (list) => [...(list ?? []), 1]);
    state.delete("gone");
    const [keys, raw] = [state.keys().sort(), [...state.getBytes("raw")]];
    publish("c.state", { count, text: state.get("text"), has: state.has("gone"), keys, before: state.get("before"), raw });
  },
  shared: () => publish("c.shared", state.shared.increment("seen")),
  config: () => publish("c.config", { set: config.get("SET"), unset: config.get("UNSET"), secret: secret("SECRET") }),
  http: async () => {
    const url = config.get("URL");
    const headers = { "content-type": "application/json" };
    const sent = await fetch(`${url}/echo?n=1`, { method: "POST", headers, body: JSON.stringify({ text: "grün 😀" }) });
    const second = await (await fetch(`${url}/echo`, { method: "PUT", body: "x".repeat(10_000) })).json();
    const missing = await fetch(`${url}/missing`);
    publish("c.http", [await sent.json(), second.size, second.key, missing.status]);
  },
  "http status": async (event) => {
    const { ok, status } = await fetch(config.get("URL") + event.json().path);
    const message = `HTTP: the response has status ${status}`;
    if (!ok) throw status < 500 ? new Reject(message) : new Retry(message, { afterMs: 7000 });
  },
  outside: () => {
    const [first, second] = [Math.random(), crypto.randomUUID()];
    publish("c.outside", { wall: Date.now(), random: [first, second] });
  },
  race: async (event) => {
    const url = config.get("URL");
    const order = [];
    const ask = async (path) => order.push([path, (await (await fetch(url + path)).text()).length]);
    const sleep = (ms) => new Promise((resolve) => setTimeout(() => resolve(order.push(["sleep", ms])), ms));
    await Promise.all([...event.json().paths.map(ask), sleep(1), sleep(5)]);
    publish("c.race", order);
  },
  "http origin": () => fetch("http://elsewhere.example/"),
  big: () => publish("c.big", "ü".repeat(300_000)),
  log: () => { log.info("grün 😀"); log.warn("careful"); log.error("wrong"); },
  delivery: (_, { id, attempt, replay, trigger }) => publish("c.delivery", { id, attempt, replay, trigger }),
};

export default function (event, delivery) {
  return actions[event.extensions.how ?? event.json().how](event, delivery);
}
