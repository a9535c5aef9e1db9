import { createContext, createElement, useContext, useEffect, useRef, type ReactElement, type ReactNode } from "react";
import type { BrowserEvents } from "./events.js";
import type { Catalogue, Exactly, Telemetry, Track } from "./types.js";

const Context = createContext<Telemetry | undefined>(undefined);

export interface Hooks<Events> {
  /** Gives the components below it the client to record with. The application makes the client and closes it. */
  TelemetryProvider(props: { client: Telemetry<Events>; children?: ReactNode }): ReactElement;
  /** The client's `track`: the same function in every render. Throws outside a `TelemetryProvider`. */
  useTelemetry(): Track<Events>;
  /** Records `event` once in the life of the component, in StrictMode too. Later changes of the arguments are ignored. */
  useTrackOnce<E extends keyof Events & string, P extends Events[E]>(event: E, props: Exactly<Events[E], P>): void;
  /**
   * Records `view:loaded` each time another route is shown. `pattern` is the route's pattern (`/projects/:id`), never
   * the address; what `views` does not name is not recorded, so an address passed by mistake cannot leave.
   */
  useViewLoaded<Name extends ViewName<Events>>(views: { readonly [pattern: string]: Name }, pattern: string | null | undefined): void;
}

type ViewName<Events> = Events extends { "view:loaded": { name: infer Name } } ? Name : never;

export const TelemetryProvider: Hooks<BrowserEvents>["TelemetryProvider"] = ({ client, children }) =>
  createElement(Context.Provider, { value: client }, children);

export const useTelemetry: Hooks<BrowserEvents>["useTelemetry"] = () => {
  const client = useContext(Context);
  if (!client) throw new Error("useTelemetry needs a <TelemetryProvider client={...}> above it");
  return client.track;
};

/** Calls `effect` when `key` differs from the last one it was called for. The ref outlives StrictMode's second mount. */
const useOncePer = (key: string | undefined, effect: () => void) => {
  const last = useRef<string>(undefined);
  useEffect(() => {
    if (key !== undefined && key !== last.current) effect();
    last.current = key;
  }, [key]);
};

export const useTrackOnce: Hooks<BrowserEvents>["useTrackOnce"] = (event, props) => {
  const track = useTelemetry();
  useOncePer("", () => track(event, props));
};

export const useViewLoaded: Hooks<BrowserEvents>["useViewLoaded"] = (views, pattern) => {
  const track = useTelemetry();
  const name = pattern != null && Object.hasOwn(views, pattern) ? views[pattern] : undefined;
  useOncePer(name && pattern!, () => track("view:loaded", { name: name! }));
};

/** The same hooks, typed for an application's own catalogue. */
export const hooksFor = <Events extends Catalogue<Events>>(): Hooks<Events> =>
  ({ TelemetryProvider, useTelemetry, useTrackOnce, useViewLoaded }) as unknown as Hooks<Events>;
