// JSON that producers and functions wrote. It may be nested more deeply than the browser can handle.

/** JSON that is nested deeper than this is written without line breaks: the white space would be many times the text. */
const INDENTED_LEVELS_MAX = 32;

/** The JSON is nested more deeply than the browser can read or write. */
export class TooDeep extends Error {
  constructor() {
    super("the JSON is nested too deeply for this page; the command line shows it");
  }
}

/** Numbers that JavaScript would change keep their text. */
const exact = (_, value, context) => (typeof value === "number" && context?.source !== undefined && JSON.rawJSON && String(value) !== context.source ? JSON.rawJSON(context.source) : value);
export const parseExact = (text) => checked(() => JSON.parse(text, exact));

/** Values as JSON in one line. */
export const line = (value) => checked(() => JSON.stringify(value));

/** Values as JSON to read. */
export const indented = (value) => checked(() => JSON.stringify(value, null, isDeep(value) ? 0 : 2));

/** Browsers recurse, and report the end of their stack as a `RangeError`, Firefox as an `InternalError`. */
function checked(act) {
  try {
    return act();
  } catch (error) {
    throw error instanceof RangeError || error?.name === "InternalError" ? new TooDeep() : error;
  }
}

function isDeep(value) {
  let level = [value];
  for (let depth = 0; depth <= INDENTED_LEVELS_MAX && level.length > 0; depth += 1) {
    level = level.filter((one) => one !== null && typeof one === "object").flatMap((one) => Object.values(one));
  }
  return level.length > 0;
}
