// The API of functions in JavaScript and TypeScript:
//
//   import { publish, Reject } from "evoke";
//
//   export default function (event) {
//     const order = event.json();
//     if (order.total <= 0) throw new Reject("the total must be more than 0");
//     publish("payment.taken", { total: order.total }, { subject: order.customer });
//   }
//
// The attempt succeeds when the function returns, or its promise is fulfilled. Only then do the events that it published
// and its state writes take effect, all of them or none. `Reject` and `Retry` choose how it fails; any other error is a
// retry by the function's policy, and its stack is in the logs.
//
// The globals console, crypto, fetch, Headers, Response, setTimeout, TextDecoder, TextEncoder, URL and URLSearchParams exist,
// too. `fetch` reaches the origins that the manifest grants under `allow: http`.

/** The function: the default export of the file. */
export type Handler = (event: Event, delivery: Delivery) => void | Promise<void>;

/** A CloudEvents 1.0 event. Times are RFC 3339. */
export interface Event {
  readonly id: string;
  /** `/APP/SOURCE`, or `/APP/FUNCTION` if a function published the event. */
  readonly source: string;
  readonly type: string;
  readonly subject: string | null;
  readonly time: string | null;
  readonly datacontenttype: string | null;
  readonly dataschema: string | null;
  /** All other attributes, by name. */
  readonly extensions: Readonly<Record<string, string>>;
  /** The payload; empty if the event has no data. */
  readonly bytes: Uint8Array;
  /** The payload by its media type: JSON as a value, `text/…` as a string, else bytes; null without data. */
  readonly data: any;
  /** Parses the payload as JSON. If it is not JSON, the event is rejected. */
  json<T = any>(): T;
  /** Returns the payload as text. If it is not UTF-8, the event is rejected. */
  text(): string;
}

/** Why the function runs: one event owed to it, and the number of the attempt. */
export interface Delivery {
  /** The same on every attempt, so it can be an idempotency key for external systems. */
  readonly id: string;
  /** Counted from 1. */
  readonly attempt: number;
  /** Time limit of this attempt, in milliseconds from its start. */
  readonly deadlineMs: number;
  /** True if this is a stored event that is replayed. */
  readonly replay: boolean;
  /** The trigger (an entry of the function's `on:`) that matched. */
  readonly trigger: string;
}

export interface Attributes {
  /** The thing that the event is about. */
  subject?: string;
  /** The bus drops a second event with the same source and id. Without an id, it is the same on every attempt. */
  id?: string;
  datacontenttype?: string;
  dataschema?: string;
  /** Further attributes; their names have only lower-case letters and digits. */
  extensions?: Record<string, string>;
}

/**
 * Publishes an event when this attempt succeeds, and returns the id that the event will have. The data is JSON, except
 * bytes, and a string with a `datacontenttype` that is not JSON. Throws `Refused` if the event may not be published.
 */
export function publish(type: string, data?: unknown, attributes?: Attributes): string;

/** A later attempt may succeed: retries by the function's retry policy, and not before `afterMs` milliseconds. */
export class Retry extends Error {
  constructor(message: string, options?: { afterMs?: number });
}

/** No attempt can succeed: creates a dead letter with this message as its cause. */
export class Reject extends Error {}

/** An event may not be published: its type is not granted, it is too large, there are too many, or an attribute is not valid. */
export class Refused extends Reject {}

/** `fetch` got no response. */
export class HttpError extends Error {
  /** The name of the error in wasi:http, such as `connection-refused`. */
  readonly code: string;
}

/**
 * A bucket of values by key. An attempt reads its own writes. If another attempt changed a value that this attempt read, this
 * attempt runs again.
 */
export interface State {
  /** Returns the value at `key`, or null. */
  get<T = any>(key: string): T | null;
  set(key: string, value: unknown): void;
  /** Replaces the value at `key` by the result of `change`, which receives null if there is none. Returns the new value. */
  update<T = any>(key: string, change: (value: T | null) => T): T;
  /** Removes `key`. A missing key is not an error. */
  delete(key: string): void;
  has(key: string): boolean;
  /** Adds `delta`, which is not negative, to the number at `key` (0 if there is none), and returns the sum. */
  increment(key: string, delta?: number): number;
  /** Returns all keys. If another attempt adds or removes any key meanwhile, this attempt runs again. */
  keys(): string[];
  /** Returns the bytes at `key`, which need not be JSON, or null. */
  getBytes(key: string): Uint8Array | null;
  setBytes(key: string, value: Uint8Array): void;
}

/** The function's own state: `allow: { state: true }`. */
export const state: State & {
  /** The state shared by the functions of the app: `allow: { state: { shared: true } }`. */
  readonly shared: State;
};

/** Configuration values and secrets that the manifest grants. */
export const config: {
  /** Returns the value of `key`, or null if the manifest does not grant it. */
  get(key: string): string | null;
  /** Returns all keys and values, including secrets. */
  all(): Record<string, string>;
};

/** Returns the secret `key`. Do not write it to logs or events. */
export function secret(key: string): string | null;

/** Log lines of the function; `console` writes them, too. */
export const log: Record<"trace" | "debug" | "info" | "warn" | "error", (...values: unknown[]) => void>;

declare global {
  interface RequestInit {
    /** Limits the waits for the connection, for the head of the response, and for each further part, in milliseconds. */
    timeout?: number;
    /** Limit on the body of the response, in bytes; the default is 8 MiB. */
    maxBody?: number;
    /**
     * The header `Idempotency-Key`. Without this, a request that is not safe has a key that is the same on every attempt;
     * null sends none.
     */
    idempotencyKey?: string | null;
  }
}
