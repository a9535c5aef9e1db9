// Builds dist/ (ESM, IIFE, types) and keeps the service's static copy of the IIFE in step with the source.
// `--check` builds too, but fails instead of writing when the copy is stale or a bundle is over its size.
import { execFileSync } from "node:child_process";
import { copyFileSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build, transformWithEsbuild } from "vite";

const home = resolve(dirname(fileURLToPath(import.meta.url)), "..");
const dist = resolve(home, "dist");
const served = resolve(home, "../../src/clarion/web/static/telemetry.js");
/** Bytes, gzipped. React itself is the application's own. */
const LIMITS = { "index.js": 1500, "telemetry.js": 1500, "react.js": 500 };
const BANNER = "/*! Built from clients/browser: do not edit. Apache-2.0 */";

async function bundle(entry, format, fileName) {
  await build({
    root: home,
    configFile: false,
    logLevel: "warn",
    build: {
      outDir: dist,
      emptyOutDir: false,
      target: "es2022",
      minify: false,
      lib: { entry: resolve(home, entry), formats: [format], name: "ClarionTelemetry", fileName: () => fileName },
      rollupOptions: { external: ["react"], output: { generatedCode: { symbols: false } } },
    },
  });
  // Vite leaves the whitespace of ES libraries in; both kinds are minified the same way here.
  const file = resolve(dist, fileName);
  const { code } = await transformWithEsbuild(readFileSync(file, "utf8"), fileName, {
    minify: true,
    treeShaking: true,
    format: format === "es" ? "esm" : undefined,
    target: "es2022",
    sourcemap: false,
  });
  writeFileSync(file, `${BANNER}\n${code.trim()}\n`);
}

rmSync(dist, { recursive: true, force: true });
await bundle("src/index.ts", "es", "index.js");
await bundle("src/react.ts", "es", "react.js");
await bundle("src/index.ts", "iife", "telemetry.js");
execFileSync(process.execPath, [resolve(home, "node_modules/typescript/bin/tsc"), "-p", "tsconfig.build.json"], {
  cwd: home,
  stdio: "inherit",
});

const faults = [];
for (const [name, limit] of Object.entries(LIMITS)) {
  const size = gzipSync(readFileSync(resolve(dist, name)), { level: 9 }).length;
  console.log(`${name}: ${size} of ${limit} bytes gzipped`);
  if (size > limit) faults.push(`${name} is ${size} bytes gzipped; at most ${limit} are allowed`);
}
const built = resolve(dist, "telemetry.js");
if (!process.argv.includes("--check")) {
  mkdirSync(dirname(served), { recursive: true });
  copyFileSync(built, served);
} else if (!existsSync(served) || !readFileSync(served).equals(readFileSync(built))) {
  faults.push(`${served} is not what the source builds; run \`npm run build\` in clients/browser and commit it`);
}
for (const fault of faults) console.error(fault);
process.exitCode = faults.length ? 1 : 0;
