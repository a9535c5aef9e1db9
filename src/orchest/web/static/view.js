// Tells which view was loaded, and nothing else of it. The page loads this only while telemetry is on; what the
// browser's own settings say against it (Do Not Track, Global Privacy Control), the client obeys.
"use strict";
const { view } = document.currentScript.dataset;
if (globalThis.ClarionTelemetry) {
  globalThis.ClarionTelemetry.createTelemetry({ consent: true }).track("view:loaded", { name: view });
}
