import bus from "evoke:function/bus@0.1.0";
import { encodeData } from "./event.js";
import { Refused, hostError } from "./failure.js";

// At build time: see `warmUp` in handler.js.
const kept = draftOf("a", { a: "x" }, { subject: "a", extensions: { a: "a" } });

export function publish(type, data, options) {
  const draft = draftOf(type, data, options);
  try {
    return bus.publish(draft);
  } catch (error) {
    throw new Refused(`publish refused: ${hostError(error)}`);
  }
}

// Returns the contract's form of an event to publish: see `draft` in function.wit.
export function draftOf(type, data, { subject, id, datacontenttype, dataschema, extensions } = {}) {
  const encoded = encodeData(data, datacontenttype);
  return {
    type: String(type),
    subject: optional(subject),
    datacontenttype: encoded.datacontenttype,
    dataschema: optional(dataschema),
    extensions: extensions ? Object.entries(extensions).map(([name, value]) => [name, String(value)]) : [],
    data: encoded.data,
    id: optional(id),
  };
}

function optional(value) {
  return value === undefined || value === null ? null : String(value);
}
