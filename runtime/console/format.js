// Numbers, times and texts as users read them.

const number = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

const compact = new Intl.NumberFormat("en", { notation: "compact" });

/** A number in little room, such as 12K. */
export const brief = (n) => (n < 10_000 ? count(n) : compact.format(n));

export const count = (n) => (n === undefined || n === null ? "–" : number.format(n));

export function rate(perSecond) {
  if (perSecond === undefined || perSecond === null) return "…";
  if (perSecond === 0) return "0";
  if (perSecond < 0.01) return "<0.01";
  if (perSecond < 0.1) return perSecond.toFixed(2);
  return perSecond < 10 ? perSecond.toFixed(1) : count(perSecond);
}

export function bytes(n) {
  if (n === undefined || n === null) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  while (n >= 1024 && at < units.length - 1) {
    n /= 1024;
    at += 1;
  }
  return `${at === 0 || n >= 100 ? n.toFixed(0) : n.toFixed(1)} ${units[at]}`;
}

/** A duration in milliseconds, short. */
export function duration(ms) {
  if (ms === undefined || ms === null || Number.isNaN(ms)) return "–";
  if (ms < 1) return `${Math.round(ms * 1000)} µs`;
  if (ms < 1000) return `${ms < 10 ? ms.toFixed(1) : ms.toFixed(0)} ms`;
  const s = ms / 1000;
  if (s < 60) return `${s < 10 ? s.toFixed(1) : s.toFixed(0)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${Math.floor(s % 60)} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

/** How long ago a time was, such as `3 s ago`. */
export function ago(time, now = Date.now()) {
  const ms = now - Date.parse(time);
  if (Number.isNaN(ms)) return "–";
  const s = Math.abs(ms) / 1000;
  const text = s < 60 ? `${Math.floor(s)} s` : s < 3600 ? `${Math.floor(s / 60)} min` : s < 86400 ? `${Math.floor(s / 3600)} h` : `${Math.floor(s / 86400)} d`;
  return ms >= 0 ? `${text} ago` : `in ${text}`;
}

export function clock(time) {
  const date = new Date(time);
  return Number.isNaN(date.getTime()) ? "–" : date.toLocaleTimeString("en-GB") + "." + String(date.getMilliseconds()).padStart(3, "0");
}

export function exact(time) {
  const date = new Date(time);
  return Number.isNaN(date.getTime()) ? String(time) : `${date.toLocaleDateString("en-CA")} ${clock(time)} (${date.toISOString()})`;
}

/** Cuts an id in its middle. */
export const cut = (text, max = 16) => (text.length <= max ? text : `${text.slice(0, max / 2 - 1)}…${text.slice(1 - max / 2)}`);

export const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;

/** Replaces numbers, ids and quoted values, so that causes that differ only in these are one group. */
export const causeKey = (cause) => (cause ?? "unknown").replace(/[0-9a-f]{8}-[0-9a-f-]{27}/gi, "…").replace(/"[^"]*"/g, '"…"').replace(/\d+(\.\d+)?/g, "#");

/** An attribute of a shell word. */
export const shell = (text) => `'${text.replaceAll("'", `'\\''`)}'`;
