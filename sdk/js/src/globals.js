// Globals that QuickJS does not have. The build includes those that the function uses.

export { __evokeRandom, crypto } from "./crypto.js";
export { console } from "./log.js";
export { fetch, Headers, Response } from "./http.js";
export { clearTimeout, setTimeout } from "./timers.js";
export { TextDecoder, TextEncoder } from "./utf8.js";
export { URL, URLSearchParams } from "./url.js";
