import { type Event, log, publish, Reject } from "evoke";

type Guest = { name?: string };

export default function (event: Event) {
  const guest = event.json<Guest>();
  if (!guest.name) throw new Reject("the guest has no name");
  log.info(`greeting ${guest.name}`);
  publish("guest.greeted", { text: `Hello, ${guest.name}!` }, { subject: guest.name });
}
