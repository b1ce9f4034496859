// Stored state, as JSON values by key.

import atomics from "wasi:keyvalue/atomics@0.2.0-draft";
import store from "wasi:keyvalue/store@0.2.0-draft";
import { Reject, hostError } from "./failure.js";
import { decode, encode } from "./utf8.js";

class State {
  #name;
  #bucket;

  constructor(name) {
    this.#name = name;
  }

  // Opened on first use: at build time, when this module is loaded, there is no state.
  #open() {
    this.#bucket ??= call(() => store.open(this.#name));
    return this.#bucket;
  }

  get(key) {
    const bytes = this.getBytes(key);
    if (bytes === null) return null;
    try {
      return JSON.parse(decode(bytes));
    } catch (error) {
      throw new Reject(`the value at ${key} is not JSON: ${error.message}`);
    }
  }

  set(key, value) {
    const json = JSON.stringify(value);
    if (json === undefined) throw new TypeError(`the value at ${key} has no JSON form`);
    this.setBytes(key, encode(json));
  }

  update(key, change) {
    const value = change(this.get(key));
    this.set(key, value);
    return value;
  }

  delete(key) {
    call(() => this.#open().delete(key));
  }

  has(key) {
    return call(() => this.#open().exists(key));
  }

  increment(key, delta = 1) {
    return call(() => atomics.increment(this.#open(), key, delta));
  }

  keys() {
    const keys = [];
    let cursor = null;
    do {
      const page = call(() => this.#open().listKeys(cursor));
      keys.push(...page.keys);
      cursor = page.cursor;
    } while (cursor !== null);
    return keys;
  }

  getBytes(key) {
    return call(() => this.#open().get(key));
  }

  setBytes(key, value) {
    call(() => this.#open().set(key, value));
  }
}

export const state = Object.assign(new State(""), { shared: new State("app") });

// Calls the host, and converts its errors.
function call(operation) {
  try {
    return operation();
  } catch (error) {
    const { tag, val } = hostError(error);
    switch (tag) {
      case "other":
        throw new Error(`state: ${val}`);
      case "access-denied":
      case "no-such-store":
        throw new Reject("this state is not granted (allow: { state: true }, or { state: { shared: true } } for state.shared)");
      default:
        throw error;
    }
  }
}
