import { log, publish, Reject } from "evoke";

/** @type {import("evoke").Handler} */
export default function (event) {
  const guest = event.json();
  if (!guest.name) throw new Reject("the guest has no name");
  log.info(`greeting ${guest.name}`);
  publish("guest.greeted", { text: `Hello, ${guest.name}!` }, { subject: guest.name });
}
