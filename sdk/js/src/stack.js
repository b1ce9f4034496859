// Stacks of errors in the lines of the source files. The build puts all files into one, and appends a call with its source
// map: see build.mjs.

const FRAME = /^\s*at (?:(.*) )?\(?(.*?):(\d+):(\d+)\)?$/;
let map = { sources: [], lines: [] };

globalThis.__evokeSourceMap = (sourceMap) => (map = sourceMap);

// Returns the frames of the error's stack, innermost first, without those of the SDK: `handle (hello.js:12:5)`.
export function frames(error) {
  const lines = typeof error?.stack === "string" ? error.stack.split("\n") : [];
  return lines.flatMap((line) => {
    const [, name, , row, column] = FRAME.exec(line) ?? [];
    const place = row && locate(Number(row) - 1, Number(column) - 1);
    if (!place) return [];
    // The bundler names the default export after its file.
    return [!name || name === "<anonymous>" || name.endsWith("_default") ? place : `${name} (${place})`];
  });
}

// Returns the place in the sources of a position in the built file; nothing for files of the SDK.
function locate(row, column) {
  const parts = map.lines[row] ?? [];
  const [, source, sourceRow, sourceColumn] = parts.findLast(([start]) => start <= column) ?? parts[0] ?? [];
  return source === undefined ? null : `${map.sources[source]}:${sourceRow + 1}:${sourceColumn + 1}`;
}
