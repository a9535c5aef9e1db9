import { act, StrictMode, type ReactNode } from "react";
import { createRoot, type Root } from "react-dom/client";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { Telemetry } from "../src/index";
import { hooksFor, TelemetryProvider, useTelemetry, useTrackOnce, useViewLoaded } from "../src/react";

let root: Root;
const track = vi.fn();
const client: Telemetry = { track, consent() {}, flush() {}, close() {}, dropped: 0 };

const render = (node: ReactNode) =>
  act(async () => root.render(<StrictMode><TelemetryProvider client={client}>{node}</TelemetryProvider></StrictMode>));

beforeEach(() => {
  vi.stubGlobal("IS_REACT_ACT_ENVIRONMENT", true);
  track.mockReset();
  root = createRoot(document.createElement("div"));
});

afterEach(() => act(async () => root.unmount()));

describe("useTelemetry", () => {
  it("gives the client's track, the same in every render", async () => {
    const seen = new Set<unknown>();
    const Page = () => void seen.add(useTelemetry());
    await render(<Page />);
    await render(<Page />);
    expect([...seen]).toEqual([track]);
  });

  it("says what is missing outside a provider", async () => {
    vi.spyOn(console, "error").mockImplementation(() => {});
    const Page = () => void useTelemetry();
    await expect(act(async () => root.render(<Page />))).rejects.toThrow("useTelemetry needs a <TelemetryProvider client={...}>");
  });
});

describe("useTrackOnce", () => {
  const Alert = ({ dialog = "delete-job" as "delete-job" | "delete-run" }) => {
    useTrackOnce("confirm:shown", { dialog });
    return null;
  };

  it("records once in StrictMode, over any number of renders", async () => {
    await render(<Alert />);
    await render(<Alert dialog="delete-run" />);
    expect(track.mock.calls).toEqual([["confirm:shown", { dialog: "delete-job" }]]);
  });

  it("records again when the component is mounted anew", async () => {
    await render(<Alert key="1" />);
    await render(<Alert key="2" />);
    expect(track).toHaveBeenCalledTimes(2);
  });
});

describe("useViewLoaded", () => {
  const views = { "/projects": "projects", "/projects/:id": "project" } as const;
  const App = ({ pattern }: { pattern: string | null | undefined }) => {
    useViewLoaded(views, pattern);
    return null;
  };

  it("records each route shown once, by its view's name", async () => {
    await render(<App pattern="/projects" />);
    await render(<App pattern="/projects" />);
    await render(<App pattern="/projects/:id" />);
    await render(<App pattern="/projects" />);
    expect(track.mock.calls.map(([event, props]) => [event, props.name])).toEqual([
      ["view:loaded", "projects"],
      ["view:loaded", "project"],
      ["view:loaded", "projects"],
    ]);
  });

  it.each(["/projects/secret-name", "", null, undefined, "toString", "constructor"])("records nothing for %j", async (pattern) => {
    await render(<App pattern={pattern} />);
    expect(track).not.toHaveBeenCalled();
  });

  it("records the view once the route is known", async () => {
    await render(<App pattern={undefined} />);
    await render(<App pattern="/projects" />);
    expect(track).toHaveBeenCalledTimes(1);
  });
});

it("hooksFor gives the same hooks for another catalogue", () => {
  expect(hooksFor<{ "shop:opened": { floor: 1 | 2 } }>()).toEqual({ TelemetryProvider, useTelemetry, useTrackOnce, useViewLoaded });
});
