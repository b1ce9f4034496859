#!/usr/bin/env node
// build.mjs SOURCE [-o COMPONENT]: builds a component from a function in JavaScript or TypeScript. The first build in a
// folder installs the packages of its package.json.
//
// The files become one, in which QuickJS runs: async functions become generators (see src/jobs.js), types are removed, and
// the source map is kept for stacks. The component imports only the interfaces that the code uses.

import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, cpSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { basename, dirname, join, relative, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const sdk = dirname(fileURLToPath(import.meta.url));
const wit = [join(sdk, "wit"), join(sdk, "../wit")].find((folder) => existsSync(folder));

function fail(message) {
  console.error(`build: ${message}`);
  process.exit(1);
}

// Loads a package of the function's folder.
async function load(name) {
  const require = createRequire(join(process.cwd(), "package.json"));
  try {
    return await import(pathToFileURL(require.resolve(name)));
  } catch (error) {
    if (error.code !== "MODULE_NOT_FOUND") throw error;
    fail(`the package ${name} is missing; run: npm install --save-dev ${name}`);
  }
}

function installPackages() {
  if (existsSync("node_modules") || !existsSync("package.json")) return;
  console.error("build: installing packages, once");
  const { status } = spawnSync("npm", ["install", "--no-audit", "--no-fund", "--loglevel=error"], { stdio: ["ignore", 2, 2] });
  if (status !== 0) fail("npm install failed; the messages are above");
}

async function bundle(source) {
  const esbuild = await load("esbuild");
  const entry = `import { makeHandler } from "evoke/handler"; import handle from ${JSON.stringify(`./${basename(source)}`)};
    export const handler = makeHandler(handle);`;
  const unavailable = ["async-await", "async-generator", "for-await", "top-level-await"];
  const result = await esbuild.build({
    stdin: { contents: entry, resolveDir: dirname(resolve(source)), sourcefile: "entry.js" },
    alias: { evoke: join(sdk, "src/index.js"), "evoke/handler": join(sdk, "src/handler.js") },
    inject: [join(sdk, "src/globals.js")],
    define: { "Math.random": "__evokeRandom" },
    external: ["evoke:*", "wasi:*"],
    bundle: true, write: false, metafile: true, format: "esm", target: "es2024",
    supported: Object.fromEntries(unavailable.map((feature) => [feature, false])),
    sourcemap: "external", sourcesContent: false, outfile: "function.js", logLevel: "warning", logOverride: { "unsupported-dynamic-import": "error" },
  }).catch(() => process.exit(1));
  const [mapFile, codeFile] = ["map", "js"].map((kind) => result.outputFiles.find((file) => file.path.endsWith(kind)));
  return {
    code: `${codeFile.text}\n__evokeSourceMap(${JSON.stringify(sourceMap(JSON.parse(mapFile.text)))});\n`,
    imports: Object.values(result.metafile.outputs).flatMap((output) => output.imports).map((entry) => entry.path),
    inputs: Object.keys(result.metafile.inputs).filter((file) => file !== "<stdin>" && existsSync(file)),
  };
}

// Returns the sources, and for each line of the built file a list of its parts: column, source, row and column there, all
// from 0. The SDK's own files are left out, and so do not appear in stacks.
function sourceMap({ sources, mappings }) {
  const isOwn = (file) => file === "entry.js" || !relative(sdk, resolve(file)).startsWith("..");
  const position = [0, 0, 0];
  const lines = mappings.split(";").map((line) => {
    let column = 0;
    return line.split(",").flatMap((segment) => {
      const [step, ...steps] = decodeVlq(segment);
      if (steps.length < 3) return [];
      column += step;
      for (const index of [0, 1, 2]) position[index] += steps[index];
      return isOwn(sources[position[0]]) ? [] : [[column, ...position]];
    });
  });
  return { sources, lines };
}

// Decodes the base64 VLQ numbers of a segment: see https://tc39.es/ecma426.
function decodeVlq(segment) {
  const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  const numbers = [];
  let value = 0, shift = 0;
  for (const digit of [...segment].map((character) => digits.indexOf(character))) {
    value |= (digit & 31) << shift;
    shift += 5;
    if (digit < 32) {
      numbers.push(value & 1 ? -(value >> 1) : value >> 1);
      value = shift = 0;
    }
  }
  return numbers;
}

// While componentize-qjs runs the code to make its snapshot, it provides wasi:io, but not wasi:http, whose types refer to it.
// With other names for all of them, it provides none. The names have the same length, so they are replaced in the component.
const RENAMED = ["io", "clocks", "http", "random"];
const REAL = /\bwasi:(io|clocks|http|random)\b/g;
const DURING_BUILD = "wasj:$1";

function restoreNames(component) {
  for (const name of RENAMED) {
    const [during, real] = [Buffer.from(`wasj:${name}/`), Buffer.from(`wasi:${name}/`)];
    for (let at = component.indexOf(during); at >= 0; at = component.indexOf(during, at)) real.copy(component, at);
  }
  return component;
}

// Copies the contract, and adds a world with the imported interfaces.
function makeWorld(folder, imports) {
  cpSync(wit, folder, { recursive: true });
  for (const name of RENAMED) {
    const file = join(folder, `deps/wasi-${name}/package.wit`);
    writeFileSync(file, readFileSync(file, "utf8").replace(REAL, DURING_BUILD));
  }
  // Within their own package, interfaces have no package name.
  const lines = imports.map((name) => `  import ${name.replace(/^evoke:function\/(.*)@.*$/, "$1").replace(REAL, DURING_BUILD)};`);
  writeFileSync(join(folder, "built.wit"), `package evoke:function@0.1.0;\n\nworld built {\n${lines.join("\n")}\n  export handler;\n}\n`);
}

async function main() {
  const [source, flag, given] = process.argv.slice(2);
  if (!source || (flag !== undefined && (flag !== "-o" || !given))) fail("usage: build.mjs SOURCE [-o COMPONENT]");
  if (!existsSync(source)) fail(`there is no file ${source}`);
  const component = resolve(given ?? source.replace(/\.[a-z]+$/, ".wasm"));
  installPackages();
  const { code, imports, inputs } = await bundle(source);
  const { componentize } = await load("componentize-qjs");
  const folder = mkdtempSync(join(tmpdir(), "evoke-js-"));
  try {
    makeWorld(join(folder, "wit"), [...new Set(imports)]);
    const options = { witPath: join(folder, "wit"), world: "built", jsSource: code.replace(REAL, DURING_BUILD), sync: true };
    const { component: bytes } = await componentize(options).catch((error) => fail(error.message));
    mkdirSync(dirname(component), { recursive: true });
    const dependencies = [...inputs, "package.json", "package-lock.json"].filter((file) => existsSync(file) && !file.includes("node_modules/"));
    const escaped = dependencies.map((file) => resolve(file).replace(/ /g, "\\ "));
    writeFileSync(component.replace(/\.wasm$/, ".d"), `${component.replace(/ /g, "\\ ")}: ${escaped.join(" ")}\n`);
    // Renamed at the end, so that no reader sees half a component.
    writeFileSync(`${component}.new`, restoreNames(bytes));
    renameSync(`${component}.new`, component);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

await main();
