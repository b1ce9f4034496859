// Promises whose jobs run in jobs.js: see there. They follow ECMA-262, section 27.2.

import { enqueue } from "./jobs.js";

export class Promise {
  #state = "pending";
  #value;
  #reactions = [];

  constructor(executor) {
    if (typeof executor !== "function") throw new TypeError("a promise needs a function");
    const { resolve, reject } = this.#resolvers();
    try {
      executor(resolve, reject);
    } catch (error) {
      reject(error);
    }
  }

  #resolvers() {
    let called = false;
    const once = (action) => (value) => {
      if (called) return;
      called = true;
      action(value);
    };
    return { resolve: once((value) => this.#resolve(value)), reject: once((error) => this.#settle("rejected", error)) };
  }

  #resolve(value) {
    if (value === this) return this.#settle("rejected", new TypeError("a promise cannot resolve to itself"));
    if ((typeof value !== "object" || value === null) && typeof value !== "function") return this.#settle("fulfilled", value);
    let then;
    try {
      then = value.then;
    } catch (error) {
      return this.#settle("rejected", error);
    }
    if (typeof then !== "function") return this.#settle("fulfilled", value);
    enqueue(() => {
      const { resolve, reject } = this.#resolvers();
      try {
        then.call(value, resolve, reject);
      } catch (error) {
        reject(error);
      }
    });
  }

  #settle(state, value) {
    this.#state = state;
    this.#value = value;
    for (const react of this.#reactions) enqueue(react);
    this.#reactions = [];
  }

  then(onFulfilled, onRejected) {
    const { promise, resolve, reject } = this.constructor.withResolvers();
    const react = () => {
      const isFulfilled = this.#state === "fulfilled";
      const handler = isFulfilled ? onFulfilled : onRejected;
      if (typeof handler !== "function") return isFulfilled ? resolve(this.#value) : reject(this.#value);
      try {
        resolve(handler(this.#value));
      } catch (error) {
        reject(error);
      }
    };
    if (this.#state === "pending") this.#reactions.push(react);
    else enqueue(react);
    return promise;
  }

  catch(onRejected) {
    return this.then(undefined, onRejected);
  }

  finally(action) {
    if (typeof action !== "function") return this.then(action, action);
    const type = this.constructor;
    return this.then(
      (value) => type.resolve(action()).then(() => value),
      (error) => type.resolve(action()).then(() => { throw error; }),
    );
  }

  get [Symbol.toStringTag]() {
    return "Promise";
  }

  static withResolvers() {
    let resolve, reject;
    const promise = new this((...functions) => ([resolve, reject] = functions));
    return { promise, resolve, reject };
  }

  static resolve(value) {
    return value instanceof Promise && value.constructor === this ? value : new this((resolve) => resolve(value));
  }

  static reject(error) {
    return new this((_, reject) => reject(error));
  }

  static try(action, ...values) {
    return new this((resolve) => resolve(action(...values)));
  }

  static all(values) {
    return collect(this, values, (promise, store, reject) => promise.then(store, reject));
  }

  static allSettled(values) {
    const fulfilled = (value) => ({ status: "fulfilled", value });
    const rejected = (reason) => ({ status: "rejected", reason });
    return collect(this, values, (promise, store) =>
      promise.then((value) => store(fulfilled(value)), (error) => store(rejected(error))));
  }

  static any(values) {
    return new this((resolve, reject) => {
      const fail = (errors) => reject(new AggregateError(errors, "all promises were rejected"));
      collect(this, values, (promise, store) => promise.then(resolve, store)).then(fail, reject);
    });
  }

  static race(values) {
    return new this((resolve, reject) => {
      for (const value of values) this.resolve(value).then(resolve, reject);
    });
  }
}

// Returns a promise for the list of the values that `observe` stores for each promise.
function collect(type, values, observe) {
  return new type((resolve, reject) => {
    const results = [];
    let open = 1;
    const close = () => --open === 0 && resolve(results);
    for (const value of values) {
      const index = results.push(undefined) - 1;
      open++;
      observe(type.resolve(value), (result) => { results[index] = result; close(); }, reject);
    }
    close();
  });
}
