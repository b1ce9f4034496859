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
    publish("c.state", { count, text: state.get("text"), has: state.has("gone"), keys: state.keys().sort(), before: state.get("before") });
  },
  config: () => publish("c.config", { set: config.get("SET"), unset: config.get("UNSET"), secret: secret("SECRET") }),
  big: () => publish("c.big", "ü".repeat(300_000)),
  log: () => { log.info("grün 😀"); log.warn("careful"); log.error("wrong"); },
  delivery: (_, { id, attempt, replay, trigger }) => publish("c.delivery", { id, attempt, replay, trigger }),
};

export default function (event, delivery) {
  actions[event.extensions.how ?? event.json().how](event, delivery);
}
