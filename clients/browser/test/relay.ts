import { vi } from "vitest";

export interface Sent {
  via: "fetch" | "keepalive" | "beacon";
  url: string;
  type: string | undefined;
  events: { id: string; event: string; properties: Record<string, unknown>; occurred_at: string }[];
  dropped: number;
  sent_at: string;
}

export type Reply = number | "network error" | Promise<number> | [status: number, retryAfter: string];

/** A reply that is still to come, and the means to give it. */
export function pending() {
  let resolve!: (status: number) => void;
  const promise = new Promise<number>((settle) => (resolve = settle));
  return { promise, resolve };
}

/**
 * Stands in for the browser's two ways out, and notes what leaves by which. `replies` are given to fetches in turn
 * (then 200); `room` is how many bytes `sendBeacon` still takes.
 */
export function relay(replies: Reply[] = [], room = Infinity) {
  const sent: Sent[] = [];
  const refusedBeacons: number[] = [];
  const modes: string[] = [];
  const note = (via: Sent["via"], url: string, type: string | undefined, body: string) =>
    sent.push({ via, url, type, ...(JSON.parse(body) as Pick<Sent, "events" | "dropped" | "sent_at">) });

  vi.stubGlobal("fetch", async (url: string, init: RequestInit & { headers: Record<string, string> }) => {
    note(init.keepalive ? "keepalive" : "fetch", url, init.headers["Content-Type"], init.body as string);
    modes.push(`${init.mode}, ${init.credentials}`);
    const reply = await (replies.shift() ?? 200);
    if (reply === "network error") throw new TypeError("Failed to fetch");
    const [status, after] = Array.isArray(reply) ? reply : [reply, undefined];
    return new Response(null, { status, headers: after === undefined ? {} : { "Retry-After": after } });
  });

  navigator.sendBeacon = (url, data) => {
    const body = data as string;
    if (typeof body !== "string") throw new Error("a beacon must be a string, which the browser sends as text/plain");
    if (body.length > room) {
      refusedBeacons.push(body.length);
      return false;
    }
    room -= body.length;
    note("beacon", String(url), "text/plain", body);
    return true;
  };

  return {
    sent,
    refusedBeacons,
    modes,
    events: () => sent.flatMap((request) => request.events),
    ids: () => sent.map((request) => request.events.map((event) => event.id)),
  };
}

/** What the browser says of itself: set for one test, taken away after it. */
export function browserSays(traits: { onLine?: boolean; doNotTrack?: string; globalPrivacyControl?: boolean }) {
  for (const [name, value] of Object.entries(traits)) Object.defineProperty(navigator, name, { value, configurable: true });
}

export function browserSaysNothing() {
  for (const name of ["onLine", "doNotTrack", "globalPrivacyControl", "sendBeacon"]) Reflect.deleteProperty(navigator, name);
}

export function pageBecomes(state: "hidden" | "visible") {
  Object.defineProperty(document, "visibilityState", { value: state, configurable: true });
  document.dispatchEvent(new Event("visibilitychange", { bubbles: true }));
}
