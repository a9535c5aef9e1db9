// What jsdom cannot show: the built script in a real browser, with its beacons, quotas, signals and caches.
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { chromium, type Browser, type BrowserContext, type Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { Telemetry } from "../../src/index";
import { Site } from "./site";

declare const window: Window & { client: Telemetry };

const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
const script = fileURLToPath(new URL("../../dist/telemetry.js", import.meta.url));

describe.skipIf(!existsSync(executablePath))(`in ${executablePath}`, () => {
  let browser: Browser;
  let site: Site;
  let context: BrowserContext;
  let page: Page;
  const requests: string[] = [];
  const complaints: string[] = [];

  beforeAll(async () => {
    browser = await chromium.launch({
      executablePath,
      args: ["--no-sandbox", "--disable-dev-shm-usage"],
      ignoreDefaultArgs: ["--disable-back-forward-cache"],
    });
  });
  afterAll(() => browser?.close());

  beforeEach(async () => {
    site = await Site.open(script);
    context = await browser.newContext();
    page = await context.newPage();
    requests.length = complaints.length = 0;
    page.on("request", (request) => requests.push(request.url()));
    // Notes each way out at the moment it is taken, in the one place that outlives a page: the driver hears of it late.
    await page.addInitScript(() => {
      const { fetch } = window;
      const { sendBeacon } = navigator;
      const note = (way: string) => (sessionStorage.waysOut = (sessionStorage.waysOut ?? "") + way);
      window.fetch = (...args) => (note("fetch "), fetch(...args));
      Navigator.prototype.sendBeacon = (...args) => (note("beacon "), sendBeacon.apply(navigator, args));
    });
    page.on("pageerror", (error) => complaints.push(String(error)));
    page.on("console", (message) => message.text().includes("Content Security Policy") && complaints.push(message.text()));
  });
  afterEach(async () => {
    await context.close();
    await site.close();
    expect(complaints).toEqual([]);
  });

  const open = (options: object = { consent: true }) => page.goto(`${site.url}/?options=${JSON.stringify(options)}`);
  const track = (times = 1) =>
    page.evaluate((n) => {
      for (let i = 0; i < n; i++) window.client.track("view:loaded", { name: "projects" });
    }, times);
  /** Leaves for another page of the site, which has no client at work. */
  const leave = () => page.goto(`${site.url}/elsewhere?options={}`);
  const waysOut = () => page.evaluate(() => (sessionStorage.waysOut ?? "").trim() as string);

  it("sends a full batch by fetch, under a strict Content-Security-Policy", async () => {
    await open();
    await track(20);
    await site.received(20);
    expect(site.posted).toHaveLength(1);
    expect(site.posted[0]!.type).toBe("application/json");
    expect(new Set(site.events().map((event) => event.id)).size).toBe(20);
    expect(site.posted[0]!.headers["sec-fetch-site"]).toBe("same-origin");
  });

  it("sends a small batch after a while", async () => {
    await open();
    await track(2);
    await site.received(2);
    expect(site.posted[0]!.type).toBe("application/json");
    expect(Date.parse(site.posted[0]!.sent_at) - Date.parse(site.events()[0]!.occurred_at)).toBeGreaterThanOrEqual(2400);
  });

  it("hands over by beacon when the page is left, exactly once", async () => {
    await open();
    await track(3);
    await leave();
    await site.received(3);
    expect(site.posted.map((request) => [request.type, request.events.length])).toEqual([["text/plain;charset=UTF-8", 3]]);
    expect(await waysOut()).toBe("beacon");
    expect(site.posted[0]!.headers.origin).toBe(site.url);
  });

  it("hands over by beacon when the page is closed", async () => {
    await open();
    await track(3);
    await page.close({ runBeforeUnload: true });
    await site.received(3);
    expect(site.events()).toHaveLength(3);
  });

  it("splits what the beacon quota has no room for, and loses nothing", async () => {
    await open();
    await page.evaluate(() => {
      for (let i = 0; i < 16; i++) window.client.track("view:loaded", { name: "x".repeat(9_000) as "projects" });
      window.client.flush();
    });
    await site.received(16);
    expect(new Set(site.events().map((event) => event.id)).size).toBe(16);
    expect(site.events()).toHaveLength(16);
    const beacons = site.posted.filter((request) => request.type.startsWith("text/plain"));
    expect(beacons.length).toBeGreaterThan(0);
    for (const beacon of beacons) expect(beacon.bytes).toBeLessThan(65_536);
    expect(site.posted.length).toBeGreaterThan(beacons.length);
    expect(await page.evaluate(() => window.client.dropped)).toBe(0);
  });

  it("asks for nothing while offline, and sends when back online", async () => {
    await open();
    await context.setOffline(true);
    await track(20);
    expect(await page.evaluate(() => navigator.onLine)).toBe(false);
    expect(await waysOut()).toBe("");
    await context.setOffline(false);
    await site.received(20);
    expect(await waysOut()).toBe("fetch");
  });

  it("repeats with the same id after a 503", async () => {
    site.answers = [503];
    await open();
    await track();
    await site.received(2);
    expect(site.posted).toHaveLength(2);
    expect(site.events()[0]).toEqual(site.events()[1]);
  });

  it("does not repeat after a 422", async () => {
    site.answers = [422];
    await open();
    await track(20);
    await page.waitForFunction(() => window.client.dropped === 20);
    await track(20);
    await site.received(40);
    expect(new Set(site.events().map((event) => event.id)).size).toBe(40);
  });

  it.each(["globalPrivacyControl", "doNotTrack"])("sends nothing when the browser says %s", async (signal) => {
    await page.addInitScript((name) => {
      Object.defineProperty(Navigator.prototype, name, { get: () => (name === "doNotTrack" ? "1" : true) });
    }, signal);
    await open();
    await track(25);
    await leave();
    expect(await waysOut()).toBe("");
    expect(site.posted).toEqual([]);
  });

  it("sends nothing before the user's word, not even when the page is left", async () => {
    await open({});
    await track(25);
    await leave();
    expect(await waysOut()).toBe("");
    await open({});
    await track(25);
    await page.evaluate(() => window.client.consent(true));
    await site.received(25);
    expect(site.events()).toHaveLength(25);
  });

  it("keeps the page in the back/forward cache, and goes on after it", async () => {
    // The page tells by itself: the driver cannot talk to a page that comes out of that cache.
    await page.addInitScript(() => {
      addEventListener("pageshow", (event) => {
        if (event.persisted) for (let i = 0; i < 20; i++) window.client.track("confirm:shown", { dialog: "delete-job" });
      });
    });
    await open();
    await track();
    await leave();
    await site.received(1);
    await page.evaluate(() => history.back());
    await site.received(21);
    expect(site.posted.map((request) => request.type)).toEqual(["text/plain;charset=UTF-8", "application/json"]);
    expect(new Set(site.events().map((event) => event.id)).size).toBe(21);
  });

  it("works where there is no secure context, hence no crypto.randomUUID", async () => {
    await page.addInitScript(() => Reflect.deleteProperty(Crypto.prototype, "randomUUID"));
    await open();
    await track(20);
    await site.received(20);
    for (const { id } of site.events()) expect(id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  });

  it("leaves no cookie, no storage, and asks no other host", async () => {
    await open();
    await track(25);
    await leave();
    await site.received(25);
    expect(await context.cookies()).toEqual([]);
    const stored = await page.evaluate(async () => [
      localStorage.length,
      Object.keys(sessionStorage).filter((key) => key !== "waysOut").length,
      (await indexedDB.databases()).length,
      Object.keys(window).filter((key) => key.includes("larion")).length,
    ]);
    expect(stored).toEqual([0, 0, 0, 1]);
    for (const url of requests) expect(new URL(url).origin).toBe(site.url);
  });
});
