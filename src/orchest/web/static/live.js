// Keeps what is marked `data-live` up to date: fetches the page again and swaps these parts, while it is seen.
"use strict";
const EVERY = 2000;
const open = (part) => new Set([...part.querySelectorAll("details[open][id]")].map((one) => one.id));
async function refresh() {
  if (document.visibilityState === "visible" && !document.getSelection()?.toString()) {
    try {
      const answer = await fetch(location.href, { headers: { accept: "text/html" } });
      if (answer.ok && !answer.redirected) {
        const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
        for (const part of document.querySelectorAll("[data-live]")) {
          const next = fresh.getElementById(part.id);
          if (next && next.innerHTML !== part.innerHTML) {
            const kept = open(part);
            part.replaceChildren(...next.childNodes);
            kept.forEach((id) => document.getElementById(id)?.setAttribute("open", ""));
          }
        }
      }
    } catch {
      // the platform is away; look again
    }
  }
  setTimeout(refresh, EVERY);
}
if (document.querySelector("[data-live]")) setTimeout(refresh, EVERY);
