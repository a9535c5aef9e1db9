import type { BrowserEvents } from "./events.js";
import type { Catalogue, Options, Telemetry } from "./types.js";

/** Most events in one request, and the longest an event waits for company (ms). */
const BATCH = 20;
const WAIT = 2500;
/** Most events held at once; the oldest that waits is dropped for a new one. 200 events stay under the relay's 64 KiB. */
const HELD = 200;
/** Repeats of one request, the first pause (ms, doubled each time, full jitter), the longest pause a relay may ask for. */
const RETRIES = 3;
const BACKOFF = 1000;
const LONGEST = 3_600_000;
/** Requests given up in a row after which the page stays quiet: the relay is gone or does not want us. */
const QUIET = 3;

/** What one request came to: `ok`, `no` (a 4xx: repeating it cannot help), or try again, at the earliest in so many ms. */
type Answer = "ok" | "no" | number;

/** A random (version 4) id. `randomUUID` exists on https and localhost only, and installations are often neither. */
const newId = (): string =>
  crypto.randomUUID?.() ??
  "10000000-1000-4000-8000-100000000000".replace(/[018]/g, (c) =>
    (+c ^ (crypto.getRandomValues(new Uint8Array(1))[0]! & (15 >> (+c / 4)))).toString(16),
  );

const now = (): string => new Date().toISOString();

/** The browser's own signals against tracking, asked each time: the user may turn them on while the page is open. */
const objects = (): boolean =>
  !!(navigator as { globalPrivacyControl?: boolean }).globalPrivacyControl || navigator.doNotTrack === "1";

/** Milliseconds a Retry-After header asks for, given as seconds or as a date; 0 when absent or unreadable. */
const retryAfter = (header: string | null): number =>
  Math.min(Math.max((header ? (isNaN(+header) ? Date.parse(header) - Date.now() : +header * 1000) : 0) || 0, 0), LONGEST);

/**
 * A telemetry client. Making one does nothing yet (no listener, no timer, no request): the first `track` does.
 * Throws a TypeError if `endpoint` is of another origin and `crossOrigin` does not allow it.
 */
export function createTelemetry<Events extends Catalogue<Events> = BrowserEvents>(options: Options = {}): Telemetry<Events> {
  const { endpoint = "/analytics", crossOrigin } = options;
  let consent = options.consent;
  /** Events that wait, oldest first. */
  let queue: string[] = [];
  /** The events of the request under way, or of the one that awaits its next try. */
  let batch: string[] = [];
  let underWay = false;
  let tries = 0;
  let givenUp = 0;
  let dropped = 0;
  /** How many of these the relay knows of: they were told, or it refused them itself. */
  let told = 0;
  /** Not before this time (epoch ms): the relay said so. */
  let notBefore = 0;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let listening = false;

  if (!crossOrigin && globalThis.location && new URL(endpoint, location.href).origin !== location.origin)
    throw new TypeError(`endpoint ${endpoint} is not of this page's origin; set crossOrigin to allow it`);

  const quiet = () => givenUp >= QUIET;
  const unwanted = () => consent === false || objects();
  const maySend = () => consent && navigator.onLine !== false && Date.now() >= notBefore;

  const stop = () => {
    clearTimeout(timer);
    timer = undefined;
  };

  const discard = () => {
    stop();
    listen(false);
    queue = [];
    batch = [];
    tries = 0;
  };

  const schedule = (ms: number) => {
    timer ??= setTimeout(send, ms);
  };

  /** Events are kept as the JSON they leave as: id and properties cannot change between two tries. */
  const body = (events: string[]): string => `{"events":[${events}],"dropped":${dropped - told},"sent_at":"${now()}"}`;

  const post = async (events: string[], keepalive: boolean): Promise<Answer> => {
    const telling = dropped;
    try {
      const { ok, status, headers } = await fetch(endpoint, {
        method: "POST",
        body: body(events),
        headers: { "Content-Type": "application/json" },
        credentials: "same-origin",
        mode: crossOrigin ? "cors" : "same-origin",
        keepalive,
      });
      if (ok) told = telling;
      return ok ? "ok" : status === 429 || status > 499 ? retryAfter(headers.get("Retry-After")) : "no";
    } catch {
      return 0;
    }
  };

  const settle = (answer: Answer) => {
    if (typeof answer === "number") {
      notBefore = Date.now() + answer;
      if (tries < RETRIES) return schedule(answer + Math.random() * BACKOFF * 2 ** tries++);
    }
    givenUp = answer === "ok" ? 0 : givenUp + 1;
    if (answer !== "ok") dropped += batch.length;
    if (answer === "no") told += batch.length;
    batch = [];
    tries = 0;
    if (quiet()) {
      dropped += queue.length;
      discard();
    } else if (queue.length) schedule(queue.length < BATCH ? WAIT : 0);
  };

  const send = async () => {
    stop();
    if (unwanted()) return discard();
    if (Date.now() < notBefore) return schedule(notBefore - Date.now());
    if (underWay || !maySend()) return;
    if (!batch.length) batch = queue.splice(0, BATCH);
    if (!batch.length) return;
    underWay = true;
    // A first try survives the page; later ones must not fail for the browser's 64 KiB of keepalive bodies.
    const answer = await post(batch, !tries);
    underWay = false;
    if (unwanted()) return discard();
    settle(answer);
  };

  /** Hands events to `sendBeacon`, halving what its quota refuses; returns what even then found no room. */
  const beacon = (events: string[]): string[] => {
    if (!events.length) return [];
    if (navigator.sendBeacon?.(endpoint, body(events))) {
      told = dropped;
      return [];
    }
    const half = events.length >> 1;
    const refused = half ? beacon(events.slice(0, half)) : events;
    return refused.length < half ? refused.concat(beacon(events.slice(half))) : events;
  };

  const rescue = async (events: string[]) => {
    let answer = await post(events, true);
    if (answer === 0) answer = await post(events, false);
    if (answer !== "ok") dropped += events.length;
  };

  const flush = () => {
    if (unwanted()) return discard();
    if (!maySend()) return;
    stop();
    if (!underWay) {
      queue.unshift(...batch);
      batch = [];
      tries = 0;
    }
    while (queue.length) {
      const refused = beacon(queue.splice(0, BATCH));
      if (refused.length) void rescue(refused);
    }
  };

  const hidden = () => {
    if (document.visibilityState === "hidden") flush();
  };

  /** Never `unload` or `beforeunload`: they keep a page out of the back/forward cache. */
  const listen = (on: boolean) => {
    if (on === listening) return;
    listening = on;
    const change = on ? addEventListener : removeEventListener;
    change("visibilitychange", hidden, true);
    change("pagehide", flush);
    change("online", send);
  };

  const close = () => {
    flush();
    discard();
  };

  return {
    track(event, props) {
      if (unwanted()) return discard();
      if (quiet()) return void dropped++;
      try {
        queue.push(JSON.stringify({ id: newId(), event, properties: props, occurred_at: now() }));
      } catch {
        return void dropped++; // not JSON (a cycle, a BigInt): only untyped callers get here
      }
      listen(true);
      if (queue.length + batch.length > HELD) {
        queue.shift();
        dropped++;
      }
      if (underWay) return; // its answer sends the rest
      if (queue.length >= BATCH && !tries) void send();
      else schedule(WAIT);
    },
    consent(given) {
      consent = given;
      void send();
    },
    flush,
    close,
    get dropped() {
      return dropped;
    },
  };
}
