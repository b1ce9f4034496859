// Sends events with the official JavaScript client of CloudEvents in all modes.
//
// Arguments: the URL of an http source, and a file with cases. Prints one line of JSON for each request: the case, the
// mode, the id and time of the event as they were sent, and the response. The status is 0 if the client refused the
// event.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

// The client is installed in another folder, which is the working folder.
const { CloudEvent, HTTP } = createRequire(join(process.cwd(), "package.json"))("cloudevents");

function message(mode, event) {
  if (mode === "binary") {
    const sent = HTTP.binary(event);
    return { ...sent, time: sent.headers["ce-time"] };
  }
  const sent = HTTP.structured(event);
  const { time } = JSON.parse(sent.body);
  if (mode === "structured") return { ...sent, time };
  return { headers: { "content-type": "application/cloudevents-batch+json" }, body: `[${sent.body}]`, time };
}

async function send(url, mode, { name, attributes, json, text, base64 }) {
  const id = `javascript-${mode}-${name}`;
  const sent = { case: name, mode, id };
  const data = base64 === undefined ? (text ?? json) : Uint8Array.from(Buffer.from(base64, "base64"));
  let request;
  try {
    const event = new CloudEvent({ type: "client.sent", source: "/clients", ...attributes, id, data });
    const { headers, body, time } = message(mode, event);
    sent.time = time;
    request = new Request(url, { method: "POST", headers, body });
  } catch (error) {
    return { ...sent, status: 0, detail: String(error) };
  }
  const response = await fetch(request);
  return { ...sent, status: response.status, detail: await response.text() };
}

const [url, file] = process.argv.slice(2);
for (const item of JSON.parse(readFileSync(file, "utf8"))) {
  for (const mode of ["structured", "binary", "batched"]) {
    console.log(JSON.stringify(await send(url, mode, item)));
  }
}
