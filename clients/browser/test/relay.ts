import { vi } from "vitest";

export interface Sent {
  via: "fetch" | "keepalive" | "beacon";
  url: string;
  type: string | undefined;
  events: { id: string; event: string; properties: Record<string, unknown>; occurred_at: string }[];
  sent_at: string;
}

export type Reply = number | "network error" | "never" | [status: number, retryAfter: string];

/**
 * Stands in for the browser's two ways out, and notes what leaves by which. `replies` are given to fetches in turn
 * (then 200); `room` is how many bytes `sendBeacon` still takes.
 */
export function relay(replies: Reply[] = [], room = Infinity) {
  const sent: Sent[] = [];
  const refusedBeacons: number[] = [];
  const note = (via: Sent["via"], url: string, type: string | undefined, body: string) =>
    sent.push({ via, url, type, ...(JSON.parse(body) as Pick<Sent, "events" | "sent_at">) });

  vi.stubGlobal("fetch", async (url: string, init: RequestInit & { headers: Record<string, string> }) => {
    note(init.keepalive ? "keepalive" : "fetch", url, init.headers["Content-Type"], init.body as string);
    const reply = replies.shift() ?? 200;
    if (reply === "network error") throw new TypeError("Failed to fetch");
    if (reply === "never") return new Promise(() => {});
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
