import type { BrowserEvents } from "./events.js";

/** What a property may hold: nothing here can be told apart from free text by shape, so the catalogue closes it. */
export type Value = boolean | number | string | null | readonly Value[] | { readonly [key: string]: Value };

/** A catalogue: event type to its properties. `BrowserEvents` is one; an application generates its own. */
export type Catalogue<Events> = { [E in keyof Events]: { [P in keyof Events[E]]: Value } };

/** `Props`, with every property that `Declared` does not have forbidden, in a variable as in a literal. */
export type Exactly<Declared, Props extends Declared> = Props & { [P in Exclude<keyof Props, keyof Declared>]: never };

export type Track<Events> = <E extends keyof Events & string, P extends Events[E]>(
  event: E,
  props: Exactly<Events[E], P>,
) => void;

export interface Options {
  /** Where the relay listens. Must be of this page's own origin. Default `/analytics`. */
  endpoint?: string;
  /** What the user decided. Left out: not known yet, so events wait in memory until `consent()` tells. */
  consent?: boolean;
  /** Allow an `endpoint` of another origin. Its cookies are still never sent by fetch. Default false. */
  crossOrigin?: boolean;
}

export interface Telemetry<Events = BrowserEvents> {
  /** Note that something happened. Returns at once and never throws; the event leaves with the next batch. */
  readonly track: Track<Events>;
  /** Tell what the user decided. `true` sends what waited; `false` discards it and stops the recording. */
  consent(given: boolean): void;
  /** Hand everything that waits to the browser now, by beacon. Happens by itself when the page is hidden. */
  flush(): void;
  /** Flush, then let go of every listener and timer. A later `track` starts again. */
  close(): void;
  /** Events lost so far: the queue was full, the relay refused them or could not be reached. */
  readonly dropped: number;
}
