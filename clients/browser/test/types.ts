// Not run: compiled. Each line under an @ts-expect-error must be an error, every other line must not be one.
import { createTelemetry, type BrowserEvents, type Telemetry } from "../src/index";
import { hooksFor, useTrackOnce, useViewLoaded } from "../src/react";

const { track } = createTelemetry();

track("view:loaded", { name: "projects" });
track("confirm:shown", { dialog: "delete-job" });
track("alert:shown", { dialog: "save-failed" });

// @ts-expect-error an event nobody declared
track("view:closed", { name: "projects" });
// @ts-expect-error an event of the server, not of the browser
track("project:created", {});
// @ts-expect-error a value that is not in the set
track("view:loaded", { name: "/projects/my-secret" });
// @ts-expect-error the property is missing
track("view:loaded", {});
// @ts-expect-error all properties are missing
track("view:loaded");
// @ts-expect-error a property nobody declared
track("view:loaded", { name: "projects", title: "Mine" });
// @ts-expect-error the property of another event
track("confirm:shown", { name: "projects" });
// @ts-expect-error free text
track("confirm:shown", { dialog: String("Delete my-secret?") });
// @ts-expect-error a property nobody declared, instead of the declared one
track("alert:shown", { message: "my-secret" });

const inVariable = { name: "projects", title: "Mine" } as const;
// @ts-expect-error an undeclared property is one in a variable too
track("view:loaded", inVariable);
const wider: string = "projects";
// @ts-expect-error any string is too much
track("view:loaded", { name: wider });
declare const either: "view:loaded" | "confirm:shown";
// @ts-expect-error properties that fit neither event
track(either, { name: 1 });

createTelemetry({ endpoint: "/usage", consent: true, crossOrigin: false });
// @ts-expect-error a misspelt option
createTelemetry({ endPoint: "/usage" });

// An application's own catalogue, as an interface or as a type.
interface Shop {
  "basket:filled": { items: "0" | "1" | "2-5"; gift: boolean };
  "basket:emptied": Record<string, never>;
}
const shop: Telemetry<Shop> = createTelemetry<Shop>();
shop.track("basket:filled", { items: "2-5", gift: true });
shop.track("basket:emptied", {});
// @ts-expect-error an event without properties has none
shop.track("basket:emptied", { message: "my-secret" });
// @ts-expect-error not an event of this catalogue
shop.track("view:loaded", { name: "projects" });
// @ts-expect-error a catalogue's values must be JSON
createTelemetry<{ "x:y": { when: Date } }>();

export function Component() {
  useTrackOnce("alert:shown", { dialog: "save-failed" });
  // @ts-expect-error a property nobody declared
  useTrackOnce("alert:shown", { message: "my-secret" });
  useViewLoaded({ "/projects/:id": "project" }, "/projects/:id");
  // @ts-expect-error not the name of a view
  useViewLoaded({ "/projects/:id": "my-project" }, "/projects/:id");
  hooksFor<Shop>().useTrackOnce("basket:filled", { items: "1", gift: false });
  // @ts-expect-error the application has no view:loaded
  hooksFor<Shop>().useViewLoaded({ "/": "home" }, "/");
}

type Names = BrowserEvents["view:loaded"]["name"];
export const name: Names = "projects";
// @ts-expect-error the union is closed
export const other: Names = "secrets";
