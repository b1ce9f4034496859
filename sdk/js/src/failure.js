// Failures that a function throws to choose its outcome. Any other error is a retry by the function's policy.

export class Retry extends Error {
  constructor(message, { afterMs } = {}) {
    super(message);
    this.afterMs = afterMs;
  }
}

export class Reject extends Error {}

export class Refused extends Reject {}

for (const [type, name] of [[Retry, "Retry"], [Reject, "Reject"], [Refused, "Refused"]]) {
  Object.defineProperty(type.prototype, "name", { value: name });
}

// Returns the contract's error of a host call that failed; QuickJS wraps it into an Error.
export function hostError(error) {
  return error?.payload ?? error;
}
