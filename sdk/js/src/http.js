// fetch, over wasi:http. The manifest grants the origins, and the host adds the headers of the grant.

import outgoing from "wasi:http/outgoing-handler@0.2.0";
import http from "wasi:http/types@0.2.0";
import { hostError } from "./failure.js";
import { current } from "./handler.js";
import { ready } from "./poll.js";
import { decode, encode } from "./utf8.js";

const BODY_BYTES_MAX = 8 * 1024 * 1024;
const WRITE_BYTES_MAX = 4096;
const READ_BYTES_MAX = 64 * 1024;
const SAFE = ["GET", "HEAD", "OPTIONS", "TRACE"];
const METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
let keys = 0;

export class HttpError extends Error {
  constructor(message, code) {
    super(message);
    this.code = code;
  }
}
Object.defineProperty(HttpError.prototype, "name", { value: "HttpError" });

export class Headers {
  #values = new Map();

  constructor(init = []) {
    for (const [name, value] of typeof init[Symbol.iterator] === "function" ? init : Object.entries(init)) this.append(name, value);
  }

  append(name, value) {
    const key = String(name).toLowerCase();
    const text = String(value).trim();
    this.#values.set(key, this.#values.has(key) ? `${this.#values.get(key)}, ${text}` : text);
  }

  set(name, value) {
    this.#values.set(String(name).toLowerCase(), String(value).trim());
  }

  get(name) {
    return this.#values.get(String(name).toLowerCase()) ?? null;
  }

  has(name) {
    return this.#values.has(String(name).toLowerCase());
  }

  delete(name) {
    this.#values.delete(String(name).toLowerCase());
  }

  entries() {
    return [...this.#values].sort(([a], [b]) => (a < b ? -1 : 1))[Symbol.iterator]();
  }

  keys() {
    return this.entries().map(([name]) => name);
  }

  values() {
    return this.entries().map(([, value]) => value);
  }

  forEach(action) {
    for (const [name, value] of this) action(value, name, this);
  }

  [Symbol.iterator]() {
    return this.entries();
  }
}

export class Response {
  #read;

  constructor(url, status, headers, read) {
    Object.assign(this, { url, status, headers, ok: status >= 200 && status < 300, bodyUsed: false });
    this.#read = read;
  }

  async bytes() {
    if (this.bodyUsed) throw new TypeError("the body was read already");
    this.bodyUsed = true;
    return this.#read();
  }

  async arrayBuffer() {
    return (await this.bytes()).slice().buffer;
  }

  async text() {
    return decode(await this.bytes());
  }

  async json() {
    return JSON.parse(await this.text());
  }
}

export async function fetch(url, options = {}) {
  const { timeout, maxBody = BODY_BYTES_MAX } = options;
  const method = String(options.method ?? "GET").toUpperCase();
  const headers = new Headers(options.headers);
  const body = toBytes(options.body, headers);
  setIdempotencyKey(headers, method, options.idempotencyKey);
  if (!headers.has("content-length") && (body.length > 0 || !["GET", "HEAD"].includes(method))) headers.set("content-length", body.length);

  const future = send(toRequest(String(url), method, headers), toOptions(timeout), body);
  await ready(future.subscribe());
  const outcome = future.get().val;
  dispose(future);
  if (outcome.tag !== "ok") throw toError(outcome.val);
  const response = outcome.val;
  const received = new Headers();
  const fields = response.headers();
  for (const [name, value] of fields.entries()) received.append(name, latin1(value));
  dispose(fields);
  return new Response(String(url), response.status(), received, () => read(response, maxBody));
}

// A resource must be disposed before the one that it came from, so this is not left to the garbage collector.
function dispose(...resources) {
  for (const resource of resources) resource[Symbol.dispose]();
}

function toBytes(body, headers) {
  if (body === undefined || body === null) return new Uint8Array();
  if (body instanceof ArrayBuffer) return new Uint8Array(body);
  if (ArrayBuffer.isView(body)) return new Uint8Array(body.buffer, body.byteOffset, body.byteLength);
  if (!headers.has("content-type")) {
    headers.set("content-type", body.constructor?.name === "URLSearchParams" ? "application/x-www-form-urlencoded;charset=UTF-8" : "text/plain;charset=UTF-8");
  }
  return encode(String(body));
}

// A request that is not safe can arrive again with a later attempt, so it has a key that is the same on every attempt: the
// id of the delivery for the first such request, and `ID-2`, `ID-3` … for the following ones.
function setIdempotencyKey(headers, method, own) {
  if (own) headers.set("idempotency-key", own);
  else if (own === undefined && !SAFE.includes(method) && !headers.has("idempotency-key")) {
    keys += 1;
    headers.set("idempotency-key", keys === 1 ? current.id : `${current.id}-${keys}`);
  }
}

function toRequest(url, method, headers) {
  const [, scheme, authority, path] = /^(https?):\/\/([^/?#]+)([^#]*)/i.exec(url) ?? [];
  if (!scheme) throw new TypeError(`the URL ${url} is not http://HOST… or https://HOST…`);
  try {
    const fields = http.Fields.fromList([...headers].map(([name, value]) => [name, encode(value)]));
    const request = new http.OutgoingRequest(fields);
    request.setMethod(METHODS.includes(method) ? { tag: method.toLowerCase() } : { tag: "other", val: method });
    request.setScheme({ tag: scheme.toLowerCase() === "https" ? "HTTPS" : "HTTP" });
    request.setAuthority(authority);
    request.setPathWithQuery(path.startsWith("/") ? path : `/${path}`);
    return request;
  } catch (error) {
    throw new TypeError(`the method, the URL or a header is not valid: ${method} ${url}`, { cause: error });
  }
}

function toOptions(timeout) {
  const options = new http.RequestOptions();
  if (timeout !== undefined) {
    const nanos = Math.round(timeout * 1e6);
    options.setConnectTimeout(nanos);
    options.setFirstByteTimeout(nanos);
    options.setBetweenBytesTimeout(nanos);
  }
  return options;
}

function send(request, options, bytes) {
  const body = request.body();
  let future;
  try {
    future = outgoing.handle(request, options);
  } catch (error) {
    dispose(body);
    throw toError(hostError(error));
  }
  // The peer may respond before it has read the body, so a failed write is no error: the response has the reason.
  if (write(body, bytes)) http.OutgoingBody.finish(body, null);
  else dispose(body);
  return future;
}

// Returns false if the peer does not take the whole body.
function write(body, bytes) {
  if (bytes.length === 0) return true;
  const stream = body.write();
  try {
    for (let at = 0; at < bytes.length; at += WRITE_BYTES_MAX) stream.blockingWriteAndFlush(bytes.subarray(at, at + WRITE_BYTES_MAX));
    return true;
  } catch {
    return false;
  } finally {
    dispose(stream);
  }
}

async function read(response, maxBody) {
  const body = response.consume();
  const stream = body.stream();
  const parts = [];
  let length = 0;
  try {
    for (let part; (part = await readPart(stream)); parts.push(part)) {
      length += part.length;
      if (length > maxBody) throw new HttpError(`HTTP: the response has more than ${maxBody} bytes`, "body-too-large");
    }
  } finally {
    dispose(stream, body, response);
  }
  const bytes = new Uint8Array(length);
  parts.reduce((at, part) => (bytes.set(part, at), at + part.length), 0);
  return bytes;
}

// Returns the next part of the body; nothing at its end.
async function readPart(stream) {
  await ready(stream.subscribe());
  try {
    return stream.read(READ_BYTES_MAX);
  } catch (error) {
    const { tag, val } = hostError(error);
    if (tag === "closed") return null;
    throw toError(val && http.httpErrorCode(val));
  }
}

function latin1(bytes) {
  return typeof bytes === "string" ? bytes : atob(bytes.toBase64());
}

const MESSAGES = {
  "HTTP-request-denied": "the request is not allowed",
  "destination-IP-prohibited": "the request is not allowed",
  "DNS-timeout": "the name was not resolved in time",
  "DNS-error": "the name has no address",
  "connection-refused": "the connection was refused",
  "connection-timeout": "the connection was not made in time",
  "connection-read-timeout": "the response paused for too long",
  "HTTP-response-timeout": "the response did not arrive in time",
  "HTTP-response-incomplete": "the connection ended before the response",
  "TLS-certificate-error": "the certificate of the server is not trusted",
};

function toError(code) {
  const tag = code?.tag ?? "internal-error";
  return new HttpError(`HTTP: ${MESSAGES[tag] ?? tag}`, tag);
}
