export { createTelemetry } from "./telemetry.js";
export type { BrowserEvents } from "./events.js";
export type * from "./events.js";
export type { Catalogue, Options, Telemetry, Track, Value } from "./types.js";
