import { createServer, type IncomingHttpHeaders, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { readFileSync } from "node:fs";
import { EventEmitter, once } from "node:events";

const CSP = "default-src 'none'; script-src 'self'; connect-src 'self'";
const PAGE = `<!doctype html><title>page</title><script src="/telemetry.js"></script><script src="/app.js"></script>`;
const APP = `window.client = ClarionTelemetry.createTelemetry(JSON.parse(new URLSearchParams(location.search).get("options") ?? '{"consent":true}'));`;

export interface Posted {
  type: string;
  headers: IncomingHttpHeaders;
  bytes: number;
  events: { id: string; event: string; properties: Record<string, unknown>; occurred_at: string }[];
  sent_at: string;
}

/** A site under a strict Content-Security-Policy with a page, the built script and a relay, on a free loopback port. */
export class Site {
  readonly posted: Posted[] = [];
  /** Statuses the relay answers with, in turn; then 200. */
  answers: number[] = [];
  private readonly news = new EventEmitter();

  private constructor(private readonly server: Server) {}

  static async open(script: string): Promise<Site> {
    const built = readFileSync(script);
    const site: Site = new Site(
      createServer((request, response) => {
        const give = (type: string, body: string | Buffer) =>
          response.writeHead(200, { "Content-Type": type, "Content-Security-Policy": CSP }).end(body);
        const { pathname } = new URL(request.url!, "http://site");
        if (request.method === "POST" && pathname === "/analytics") {
          const chunks: Buffer[] = [];
          request.on("data", (chunk: Buffer) => chunks.push(chunk));
          request.on("end", () => {
            const body = Buffer.concat(chunks);
            response.writeHead(site.answers.shift() ?? 200).end();
            const type = request.headers["content-type"] ?? "";
            site.posted.push({ type, headers: request.headers, bytes: body.length, ...JSON.parse(body.toString()) });
            site.news.emit("posted");
          });
        } else if (pathname === "/telemetry.js") give("text/javascript", built);
        else if (pathname === "/app.js") give("text/javascript", APP);
        else give("text/html", PAGE);
      }),
    );
    site.server.listen(0, "127.0.0.1");
    await once(site.server, "listening");
    return site;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  events() {
    return this.posted.flatMap((request) => request.events);
  }

  /** Waits until `count` events (repeated ones too) have come in; fails after ten seconds. */
  async received(count: number): Promise<void> {
    const signal = AbortSignal.timeout(10_000);
    while (this.events().length < count) await once(this.news, "posted", { signal });
  }

  async close(): Promise<void> {
    this.server.closeAllConnections();
    this.server.close();
    await once(this.server, "close");
  }
}
