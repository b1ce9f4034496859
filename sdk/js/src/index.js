// The public API: see index.d.ts.
export { publish } from "./publish.js";
export { state } from "./state.js";
export { config, secret } from "./config.js";
export { log } from "./log.js";
export { Refused, Reject, Retry } from "./failure.js";
export { HttpError } from "./http.js";
