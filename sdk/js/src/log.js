// Log lines, and a console that writes them.

import logging from "wasi:logging/logging@0.1.0-draft";

// One value, as in most calls, is not joined: that is a third of the time of such a call.
const at = (level) => (...values) => logging.log(level, "", values.length === 1 ? format(values[0]) : values.map(format).join(" "));

export const log = {
  trace: at("trace"),
  debug: at("debug"),
  info: at("info"),
  warn: at("warn"),
  error: at("error"),
};

export const console = {
  log: log.info,
  info: log.info,
  debug: log.debug,
  trace: log.trace,
  warn: log.warn,
  error: log.error,
  assert: (condition, ...values) => condition || log.error("assertion failed:", ...values),
};

function format(value) {
  if (typeof value === "string") return value;
  if (value instanceof Error) return `${value.name}: ${value.message}`;
  if (typeof value === "object" && value !== null) {
    try {
      return JSON.stringify(value, plain) ?? String(value);
    } catch {
      // It contains itself.
    }
  }
  return String(value);
}

// Gives values that JSON would lose a readable form.
function plain(_key, value) {
  if (typeof value === "bigint") return `${value}n`;
  if (ArrayBuffer.isView(value)) return [...value];
  if (value instanceof Map) return Object.fromEntries(value);
  if (value instanceof Set) return [...value];
  return value instanceof Error ? `${value.name}: ${value.message}` : value;
}
