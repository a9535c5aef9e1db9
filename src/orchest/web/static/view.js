// Tells which view was loaded and which alert or question is on it, and nothing else of it. The page loads this only while
// telemetry is on; what the browser's own settings say against it (Do Not Track, Global Privacy Control), the client obeys.
"use strict";
const { view } = document.currentScript.dataset;
if (globalThis.ClarionTelemetry) {
  const telemetry = globalThis.ClarionTelemetry.createTelemetry({ consent: true });
  telemetry.track("view:loaded", { name: view });
  for (const { dataset } of document.querySelectorAll("[data-alert]")) {
    telemetry.track("alert:shown", { dialog: dataset.alert });
  }
  for (const { dataset } of document.querySelectorAll("[data-confirm]")) {
    telemetry.track("confirm:shown", { dialog: dataset.confirm });
  }
}
