import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { createTelemetry, type Options, type Telemetry } from "../src/index";
import { browserSays, browserSaysNothing, pageBecomes, pending, relay, type Reply } from "./relay";

const START = new Date("2026-03-01T10:00:00.000Z");
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

let client: Telemetry;

function start(options: Options = { consent: true }, replies: Reply[] = [], room = Infinity) {
  const out = relay(replies, room);
  client = createTelemetry(options);
  return out;
}

const view = (times = 1) => {
  for (let i = 0; i < times; i++) client.track("view:loaded", { name: "projects" });
};
const pass = (ms: number) => vi.advanceTimersByTimeAsync(ms);
/** Lets answers that are already there be handled, without time passing. */
const soon = () => pass(0);

beforeEach(() => {
  vi.useFakeTimers({ now: START });
  vi.spyOn(Math, "random").mockReturnValue(1);
});

afterEach(() => {
  relay();
  client?.consent(false);
  browserSaysNothing();
  pageBecomes("visible");
  vi.useRealTimers();
});

describe("what leaves", () => {
  it("is one request of the agreed shape", async () => {
    const { sent } = start();
    client.track("confirm:shown", { dialog: "delete-job" });
    await pass(2500);
    expect(sent).toEqual([
      {
        via: "keepalive",
        url: "/analytics",
        type: "application/json",
        events: [
          {
            id: expect.stringMatching(UUID),
            event: "confirm:shown",
            properties: { dialog: "delete-job" },
            occurred_at: "2026-03-01T10:00:00.000Z",
          },
        ],
        dropped: 0,
        sent_at: "2026-03-01T10:00:02.500Z",
      },
    ]);
  });

  it("has the browser's random uuids", async () => {
    const uuid = "11111111-2222-4333-8444-555555555555";
    vi.spyOn(crypto, "randomUUID").mockReturnValue(uuid);
    const { ids } = start();
    view();
    await pass(2500);
    expect(ids()).toEqual([[uuid]]);
  });

  it("goes to no other origin, not even by a redirect, and takes no cookies to one that was allowed", async () => {
    const { modes } = start();
    view();
    await pass(2500);
    client = createTelemetry({ consent: true, endpoint: "https://elsewhere.example/analytics", crossOrigin: true });
    view();
    await pass(2500);
    expect(modes).toEqual(["same-origin, same-origin", "cors, same-origin"]);
  });

  it("has ids of its own where randomUUID is missing (plain http)", async () => {
    vi.stubGlobal("crypto", { getRandomValues: crypto.getRandomValues.bind(crypto) });
    const { events } = start();
    view(50);
    await pass(5000);
    const ids = events().map((event) => event.id);
    for (const id of ids) expect(id).toMatch(UUID);
    expect(new Set(ids).size).toBe(50);
  });

  it("is what was there at the time, whatever becomes of the object later", async () => {
    const { events } = start();
    const props: { name: "projects" | "jobs" } = { name: "projects" };
    client.track("view:loaded", props);
    props.name = "jobs";
    await pass(2500);
    expect(events()[0]!.properties).toEqual({ name: "projects" });
  });

  it("does not include what is not JSON, and track does not throw for it", async () => {
    const { events } = start();
    const cycle: Record<string, unknown> = {};
    cycle.itself = cycle;
    client.track("alert:shown", cycle as unknown as { dialog: "other" });
    view();
    await pass(2500);
    expect(events()).toHaveLength(1);
    expect(client.dropped).toBe(1);
  });
});

describe("batches", () => {
  it("wait 2.5 seconds for company", async () => {
    const { sent } = start();
    view(3);
    await pass(2499);
    expect(sent).toHaveLength(0);
    await pass(1);
    expect(sent.map((request) => request.events.length)).toEqual([3]);
  });

  it("leave at once when 20 are there, one request at a time", async () => {
    const { sent } = start();
    view(45);
    expect(sent.map((request) => request.events.length)).toEqual([20]);
    await soon();
    expect(sent.map((request) => request.events.length)).toEqual([20, 20]);
    await pass(2500);
    expect(sent.map((request) => request.events.length)).toEqual([20, 20, 5]);
  });

  it("hold 200 at most: the oldest goes, and is counted", async () => {
    const { events } = start({});
    for (let i = 0; i < 230; i++) client.track("confirm:shown", { dialog: i < 30 ? "delete-job" : "stop-session" });
    expect(client.dropped).toBe(30);
    client.consent(true);
    await pass(30_000);
    expect(events()).toHaveLength(200);
    expect(events().every((event) => event.properties.dialog === "stop-session")).toBe(true);
  });

  it("count the request under way among the 200", async () => {
    const { sent } = start({ consent: true }, [pending().promise]);
    view(20 + 180 + 7);
    await soon();
    expect(sent).toHaveLength(1);
    expect(client.dropped).toBe(7);
  });
});

describe("losses", () => {
  it("are told once, with the next batch that is taken", async () => {
    const { sent } = start({ consent: true }, [200, 500, 500, 500, 500, 503, 200]);
    view();
    await pass(2500);
    view(2);
    await pass(60_000); // given up
    expect(client.dropped).toBe(2);
    view();
    await pass(60_000);
    view();
    await pass(2500);
    expect(sent.map((request) => request.dropped)).toEqual([0, 0, 0, 0, 0, 2, 2, 0]);
  });

  it("are told by a beacon, too", async () => {
    const { sent } = start({ consent: true }, [500, 500, 500, 500]);
    view(3);
    await pass(60_000);
    for (let i = 0; i < 2; i++) {
      view();
      client.flush();
    }
    expect(sent.slice(-2).map((request) => [request.via, request.dropped])).toEqual([
      ["beacon", 3],
      ["beacon", 0],
    ]);
  });

  it("are not told of what the relay refused: it knows", async () => {
    const { sent } = start({ consent: true }, [422]);
    view(2);
    await pass(60_000);
    expect(client.dropped).toBe(2);
    view();
    await pass(2500);
    expect(sent.map((request) => request.dropped)).toEqual([0, 0]);
  });
});

describe("retries", () => {
  it.each<Reply>(["network error", 429, 500, 503])("repeat %s with the same ids, then go on", async (reply) => {
    const { sent, ids } = start({ consent: true }, [reply, reply, reply]);
    view(2);
    await pass(2500);
    await pass(1000);
    await pass(2000);
    await pass(4000);
    expect(sent).toHaveLength(4);
    expect(new Set(ids().map(String)).size).toBe(1);
    expect(sent[0]!.sent_at).not.toBe(sent[3]!.sent_at);
    expect(client.dropped).toBe(0);
    await pass(3_600_000);
    expect(sent).toHaveLength(4);
  });

  it("stop after three, and the batch is counted as lost", async () => {
    const { sent } = start({ consent: true }, [500, 500, 500, 500]);
    view(2);
    await pass(60_000);
    expect(sent).toHaveLength(4);
    expect(client.dropped).toBe(2);
    view();
    await pass(2500);
    expect(sent).toHaveLength(5);
  });

  it.each([400, 401, 403, 404, 408, 413, 415, 422])("do not happen for %i", async (status) => {
    const { sent } = start({ consent: true }, [status]);
    view(2);
    await pass(60_000);
    expect(sent).toHaveLength(1);
    expect(client.dropped).toBe(2);
  });

  it("are spread by chance, twice as wide each time", async () => {
    vi.mocked(Math.random).mockReturnValueOnce(0.25).mockReturnValueOnce(0.5);
    const { sent } = start({ consent: true }, [500, 500]);
    view();
    await pass(2500);
    await pass(249);
    expect(sent).toHaveLength(1);
    await pass(1);
    expect(sent).toHaveLength(2);
    await pass(999);
    expect(sent).toHaveLength(2);
    await pass(1);
    expect(sent).toHaveLength(3);
  });

  it("are not hurried by new events, which join no batch that was tried already", async () => {
    const { sent, ids } = start({ consent: true }, [500]);
    view();
    await pass(2500);
    view(40);
    expect(sent).toHaveLength(1);
    await pass(1000);
    expect(ids()[1]).toEqual(ids()[0]);
    await pass(10);
    expect(sent.map((request) => request.events.length)).toEqual([1, 1, 20, 20]);
  });

  it("fall back from keepalive, whose bodies may have no room", async () => {
    const { sent } = start({ consent: true }, ["network error"]);
    view();
    await pass(10_000);
    expect(sent.map((request) => request.via)).toEqual(["keepalive", "fetch"]);
  });

  it("wait as long as Retry-After says, in seconds", async () => {
    vi.mocked(Math.random).mockReturnValue(0);
    const { sent } = start({ consent: true }, [[429, "30"]]);
    view();
    await pass(2500);
    await pass(29_999);
    expect(sent).toHaveLength(1);
    await pass(1);
    expect(sent).toHaveLength(2);
  });

  it("wait as long as Retry-After says, as a date", async () => {
    vi.mocked(Math.random).mockReturnValue(0);
    const { sent } = start({ consent: true }, [[503, "Sun, 01 Mar 2026 10:01:00 GMT"]]);
    view();
    await pass(59_999);
    expect(sent).toHaveLength(1);
    await pass(1);
    expect(sent).toHaveLength(2);
  });

  it("do not all come at the moment Retry-After names", async () => {
    vi.mocked(Math.random).mockReturnValue(0.5);
    const { sent } = start({ consent: true }, [[429, "30"]]);
    view();
    await pass(2500);
    await pass(30_499);
    expect(sent).toHaveLength(1);
    await pass(1);
    expect(sent).toHaveLength(2);
  });

  it("keep their time whatever was tracked while the request was under way", async () => {
    const answer = pending();
    const { sent } = start({ consent: true }, [answer.promise]);
    view();
    await pass(2500);
    view();
    answer.resolve(500);
    await pass(999);
    expect(sent).toHaveLength(1);
    await pass(1);
    expect(sent).toHaveLength(2);
  });

  it("are three for each batch, whatever became of the one before", async () => {
    const { sent } = start({ consent: true }, [500, 500, 200, 500, 500, 500, 200]);
    view();
    await pass(60_000);
    view();
    await pass(60_000);
    expect(sent).toHaveLength(7);
    expect(client.dropped).toBe(0);
  });

  it("are three again after a flush or a refusal took the batch away", async () => {
    for (const takeAway of [() => client.flush(), () => (client.consent(false), client.consent(true))]) {
      const { sent } = start({ consent: true }, [500, 500, 500, 500, 500, 500, 200]);
      view();
      await pass(2500 + 1000 + 2000);
      takeAway();
      view();
      await pass(60_000);
      expect(sent.filter((request) => request.via !== "beacon")).toHaveLength(7);
      expect(client.dropped).toBe(0);
    }
  });

  it("do not double a request under way when the browser comes online or consent is repeated", async () => {
    const { sent } = start({ consent: true }, [pending().promise]);
    view();
    await pass(2500);
    window.dispatchEvent(new Event("online"));
    client.consent(true);
    await pass(60_000);
    expect(sent).toHaveLength(1);
  });

  it.each(["soon", "-5", "", "Sun, 01 Mar 2020 10:00:00 GMT"])("ignore the Retry-After %j", async (header) => {
    const { sent } = start({ consent: true }, [[503, header]]);
    view();
    await pass(3500);
    expect(sent).toHaveLength(2);
  });

  it("wait an hour at most", async () => {
    vi.mocked(Math.random).mockReturnValue(0);
    const { sent } = start({ consent: true }, [[503, "99999999"]]);
    view();
    await pass(2500 + 3_600_000);
    expect(sent).toHaveLength(2);
  });

  it("keep to Retry-After when the page is hidden or comes back online meanwhile", async () => {
    const { sent } = start({ consent: true }, [[429, "30"]]);
    view();
    await pass(2500);
    pageBecomes("hidden");
    window.dispatchEvent(new Event("online"));
    client.flush();
    await pass(20_000);
    expect(sent).toHaveLength(1);
    await pass(20_000);
    expect(sent).toHaveLength(2);
  });

  it("end for good after three lost batches in a row: the page goes quiet", async () => {
    const { sent } = start({ consent: true }, [404, 404, 404]);
    for (let i = 0; i < 3; i++) {
      view();
      await pass(2500);
    }
    view(25);
    pageBecomes("hidden");
    await pass(60_000);
    expect(sent).toHaveLength(3);
    expect(client.dropped).toBe(28);
    expect(vi.getTimerCount()).toBe(0);
  });

  it("count what waited as lost too, when the page goes quiet", async () => {
    const answer = pending();
    start({ consent: true }, [404, 404, answer.promise]);
    for (let i = 0; i < 3; i++) {
      view();
      await pass(2500);
    }
    view(5);
    answer.resolve(404);
    await soon();
    expect(client.dropped).toBe(8);
  });

  it("start counting anew after a success", async () => {
    const { sent } = start({ consent: true }, [404, 404, 200, 404, 404, 200]);
    for (let i = 0; i < 6; i++) {
      view();
      await pass(2500);
    }
    expect(sent).toHaveLength(6);
  });
});

describe("a page that is left", () => {
  it.each([
    ["visibilitychange", () => pageBecomes("hidden")],
    ["pagehide", () => void window.dispatchEvent(new Event("pagehide"))],
  ])("hands over by beacon on %s, as text/plain", (_, leave) => {
    const { sent } = start();
    view(3);
    leave();
    expect(sent).toMatchObject([{ via: "beacon", url: "/analytics", type: "text/plain", sent_at: START.toISOString() }]);
    expect(sent[0]!.events).toHaveLength(3);
  });

  it("hands over once, whichever signals come, and nothing when it shows again", async () => {
    const { sent } = start();
    view();
    pageBecomes("hidden");
    window.dispatchEvent(new Event("pagehide"));
    pageBecomes("visible");
    await pass(60_000);
    expect(sent).toHaveLength(1);
  });

  it("is not one that comes into view", () => {
    const { sent } = start();
    view();
    pageBecomes("visible");
    expect(sent).toHaveLength(0);
  });

  it("hands over what waits for its retry, with the same id, and not what is under way", async () => {
    const { ids } = start({ consent: true }, ["network error", pending().promise]);
    view();
    await pass(2500);
    pageBecomes("hidden");
    expect(ids()[1]).toEqual(ids()[0]);
    view();
    await pass(2500);
    pageBecomes("hidden");
    expect(ids()).toHaveLength(3);
  });

  it("keeps to 20 a beacon", () => {
    const { sent } = start({ consent: true }, [pending().promise]);
    view(20 + 50);
    pageBecomes("hidden");
    expect(sent.map((request) => [request.via, request.events.length])).toEqual([
      ["keepalive", 20],
      ["beacon", 20],
      ["beacon", 20],
      ["beacon", 10],
    ]);
  });

  it("goes on after it returns from the back/forward cache", async () => {
    const { sent } = start();
    view();
    window.dispatchEvent(new Event("pagehide"));
    window.dispatchEvent(new Event("pageshow"));
    view();
    await pass(2500);
    expect(sent.map((request) => request.via)).toEqual(["beacon", "keepalive"]);
  });

  it("never listens for unload or beforeunload", () => {
    const listen = vi.spyOn(window, "addEventListener");
    start();
    view();
    expect(listen.mock.calls.map(([type]) => type).sort()).toEqual(["online", "pagehide", "visibilitychange"]);
  });
});

describe("a beacon that is refused", () => {
  const oneEvent = JSON.stringify({ id: "x".repeat(36), event: "view:loaded", properties: { name: "projects" }, occurred_at: START }).length;

  it("is halved until it fits; the rest goes by fetch, all of it exactly once", async () => {
    const { sent, events, refusedBeacons } = start({ consent: true }, [], oneEvent * 8);
    view(16);
    pageBecomes("hidden");
    await soon();
    expect(refusedBeacons.length).toBeGreaterThan(1);
    expect(sent.filter((request) => request.via === "beacon").length).toBeGreaterThan(0);
    expect(sent.filter((request) => request.via === "keepalive")).toHaveLength(1);
    expect(new Set(events().map((event) => event.id)).size).toBe(16);
    expect(events()).toHaveLength(16);
    expect(client.dropped).toBe(0);
  });

  it("goes by fetch with keepalive, then without", async () => {
    const { sent } = start({ consent: true }, ["network error"], 0);
    view(16);
    pageBecomes("hidden");
    await soon();
    expect(sent.map((request) => [request.via, request.events.length])).toEqual([
      ["keepalive", 16],
      ["fetch", 16],
    ]);
    expect(client.dropped).toBe(0);
  });

  it("is counted as lost when nothing takes it", async () => {
    start({ consent: true }, ["network error", "network error"], 0);
    view(4);
    pageBecomes("hidden");
    await soon();
    expect(client.dropped).toBe(4);
  });

  it("does without sendBeacon altogether", async () => {
    const { sent } = start();
    Object.defineProperty(navigator, "sendBeacon", { value: undefined, configurable: true });
    view(2);
    pageBecomes("hidden");
    await soon();
    expect(sent.map((request) => [request.via, request.events.length])).toEqual([["keepalive", 2]]);
  });
});

describe("offline", () => {
  it("asks for nothing, and sends when back", async () => {
    const { sent } = start();
    browserSays({ onLine: false });
    view(30);
    await pass(60_000);
    pageBecomes("hidden");
    expect(sent).toHaveLength(0);
    browserSays({ onLine: true });
    window.dispatchEvent(new Event("online"));
    await pass(2500);
    expect(sent.map((request) => request.events.length)).toEqual([20, 10]);
  });

  it("uses up no retries, and keeps the id", async () => {
    const { sent, ids } = start({ consent: true }, ["network error"]);
    view();
    await pass(2500);
    browserSays({ onLine: false });
    await pass(600_000);
    expect(sent).toHaveLength(1);
    browserSays({ onLine: true });
    window.dispatchEvent(new Event("online"));
    await soon();
    expect(ids()[1]).toEqual(ids()[0]);
  });
});

describe("the user's word", () => {
  it("is waited for: nothing leaves, by any way", async () => {
    const { sent } = start({});
    view(25);
    await pass(60_000);
    pageBecomes("hidden");
    client.flush();
    expect(sent).toHaveLength(0);
  });

  it("yes: what waited is sent, with the time it happened", async () => {
    const { events } = start({});
    view(2);
    await pass(60_000);
    client.consent(true);
    expect(events()).toHaveLength(2);
    expect(events()[0]!.occurred_at).toBe(START.toISOString());
  });

  it("no: what waited is discarded for ever", async () => {
    const { sent } = start({});
    view(2);
    client.consent(false);
    view(2);
    await pass(60_000);
    pageBecomes("hidden");
    client.consent(true);
    await pass(60_000);
    expect(sent).toHaveLength(0);
    expect(client.dropped).toBe(0);
    expect(vi.getTimerCount()).toBe(0);
  });

  it("taken back: a failed request is not repeated", async () => {
    const { sent } = start({ consent: true }, ["network error"]);
    view();
    await pass(2500);
    client.consent(false);
    await pass(60_000);
    expect(sent).toHaveLength(1);
  });

  it("taken back while a request is under way: it is not repeated, even if given again", async () => {
    for (const again of [false, true]) {
      const answer = pending();
      const { sent } = start({ consent: true }, [answer.promise]);
      view();
      await pass(2500);
      client.consent(false);
      if (again) client.consent(true);
      answer.resolve(500);
      await soon();
      if (!again) expect(vi.getTimerCount()).toBe(0);
      await pass(60_000);
      expect(sent).toHaveLength(1);
    }
  });

  it("taken back and given again: recording goes on", async () => {
    const { events } = start();
    client.consent(false);
    view();
    client.consent(true);
    view();
    await pass(2500);
    expect(events()).toHaveLength(1);
  });

  it.each([{ globalPrivacyControl: true }, { doNotTrack: "1" }])("%j outweighs consent", async (signal) => {
    const { sent } = start();
    browserSays(signal);
    view(25);
    pageBecomes("hidden");
    await pass(60_000);
    expect(sent).toHaveLength(0);
    expect(vi.getTimerCount()).toBe(0);
  });

  it("may be given by such a signal at any time: what waits is discarded", async () => {
    const { sent } = start();
    view(3);
    browserSays({ globalPrivacyControl: true });
    await pass(60_000);
    browserSays({ globalPrivacyControl: false });
    await pass(60_000);
    expect(sent).toHaveLength(0);
  });

  it.each([{ globalPrivacyControl: false }, { doNotTrack: "0" }, { doNotTrack: "unspecified" }])("%j is no objection", async (signal) => {
    const { sent } = start();
    browserSays(signal);
    view();
    await pass(2500);
    expect(sent).toHaveLength(1);
  });
});

describe("the client itself", () => {
  it("does nothing until something is tracked", () => {
    const listen = vi.spyOn(window, "addEventListener");
    start();
    expect(listen).not.toHaveBeenCalled();
    expect(vi.getTimerCount()).toBe(0);
  });

  it("leaves no cookie and nothing in storage", async () => {
    start();
    view(25);
    pageBecomes("hidden");
    await pass(60_000);
    expect([document.cookie, localStorage.length, sessionStorage.length]).toEqual(["", 0, 0]);
  });

  it("hands over and lets go when closed; a later track starts again", async () => {
    const added = vi.spyOn(window, "addEventListener");
    const removed = vi.spyOn(window, "removeEventListener");
    const { sent } = start();
    view();
    client.close();
    expect(removed.mock.calls).toEqual(added.mock.calls);
    expect(removed).toHaveBeenCalledTimes(3);
    expect(sent.map((request) => request.via)).toEqual(["beacon"]);
    expect(vi.getTimerCount()).toBe(0);
    window.dispatchEvent(new Event("pagehide"));
    view();
    window.dispatchEvent(new Event("pagehide"));
    expect(sent).toHaveLength(2);
  });

  it("refuses an endpoint of another origin, unless told", () => {
    const make = (options: Options) => () => createTelemetry(options);
    expect(make({ endpoint: "https://elsewhere.example/analytics" })).toThrow(/not of this page's origin/);
    expect(make({ endpoint: "//elsewhere.example/analytics" })).toThrow(TypeError);
    expect(make({ endpoint: "https://elsewhere.example/analytics", crossOrigin: true })).not.toThrow();
    expect(make({ endpoint: `${location.origin}/usage` })).not.toThrow();
  });

  it("sends where it was told", async () => {
    const { sent } = start({ consent: true, endpoint: "/usage" });
    view();
    await pass(2500);
    expect(sent[0]!.url).toBe("/usage");
  });
});
