import bus from "evoke:function/bus@0.1.0";
import { encodeData } from "./event.js";
import { Refused, hostError } from "./failure.js";

export function publish(type, data, { subject, id, datacontenttype, dataschema, extensions = {} } = {}) {
  const draft = {
    type: String(type),
    subject: optional(subject),
    dataschema: optional(dataschema),
    extensions: Object.entries(extensions).map(([name, value]) => [name, String(value)]),
    id: optional(id),
    ...encodeData(data, datacontenttype),
  };
  try {
    return bus.publish(draft);
  } catch (error) {
    throw new Refused(`publish refused: ${hostError(error)}`);
  }
}

function optional(value) {
  return value === undefined || value === null ? null : String(value);
}
