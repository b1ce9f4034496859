// Events: received ones, and the data of published ones.

import { Reject } from "./failure.js";
import { decode, encode } from "./utf8.js";

export class Event {
  // One by one, because QuickJS takes ten times as long for `Object.assign`.
  constructor(received) {
    this.id = received.id;
    this.source = received.source;
    this.type = received.type;
    this.subject = received.subject;
    this.time = received.time;
    this.datacontenttype = received.datacontenttype;
    this.dataschema = received.dataschema;
    this.extensions = received.extensions.length === 0 ? {} : Object.fromEntries(received.extensions);
    this.bytes = received.data;
  }

  get data() {
    if (this.bytes.length === 0) return null;
    if (isJson(this.datacontenttype)) return this.json();
    return /^text\//i.test(this.datacontenttype) ? this.text() : this.bytes;
  }

  json() {
    const text = this.text();
    try {
      return JSON.parse(text);
    } catch (error) {
      throw new Reject(`JSON: ${error.message}`);
    }
  }

  text() {
    try {
      return decode(this.bytes);
    } catch {
      throw new Reject("the data is not UTF-8");
    }
  }
}

// Returns true for `application/json` and types that end with `+json`, with or without parameters.
function isJson(type) {
  return type === "application/json" || /^[^;]*[/+]json\s*(;|$)/i.test(type ?? "");
}

// Returns the bytes of the data to publish, and its media type.
export function encodeData(data, type) {
  if (data === undefined) return { data: new Uint8Array(), datacontenttype: type ?? null };
  if (data instanceof ArrayBuffer) data = new Uint8Array(data);
  if (ArrayBuffer.isView(data)) {
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    return { data: bytes, datacontenttype: type ?? "application/octet-stream" };
  }
  if (typeof data === "string" && type && !isJson(type)) return { data: encode(data), datacontenttype: type };
  const json = JSON.stringify(data);
  if (json === undefined) throw new TypeError(`the data of an event is JSON or bytes, not a ${typeof data}`);
  return { data: encode(json), datacontenttype: type ?? "application/json" };
}
