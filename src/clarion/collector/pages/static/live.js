// Follows the live tail. Everything is put in as text, never as markup.
"use strict";
const place = document.getElementById("live");
const rows = place.querySelector("tbody");
const empty = place.querySelector(".empty");
const said = document.getElementById("said");
const pause = document.getElementById("pause");
const most = Number(place.dataset.most);
let held = [];
let count = 0;
let missed = 0;

const paused = () => pause.getAttribute("aria-pressed") === "true";
function tell() {
  const parts = [`${count} seen`];
  if (paused()) parts.push(`${held.length} held back`);
  if (missed) parts.push(`${missed} missed because they came too fast`);
  said.textContent = `${parts.join(", ")}.`;
}

function cell(label, child, name = "") {
  const made = document.createElement("td");
  made.dataset.label = label;
  made.className = name;
  made.append(child);
  return made;
}

function coded(name, text) {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}

function stored(event) {
  const made = document.createElement("details");
  made.append(coded("summary", "payload"), coded("pre", JSON.stringify(event.properties, null, 2)));
  return made;
}

function show(event) {
  const row = document.createElement("tr");
  const lag = (Date.parse(event.received_at) - Date.parse(event.occurred_at)) / 1000;
  row.append(
    cell("Received", event.received_at.slice(0, 19).replace("T", " "), "when"),
    cell("Lag", Math.abs(lag) < 100 ? `${lag.toFixed(1)} s` : `${Math.round(lag / 60).toLocaleString("en")} min`, "num tight"),
    cell("Event", coded("code", event.event)),
    cell("Version", event.app_version || "unknown"),
    cell("Installation", coded("code", event.installation.slice(0, 8))),
    cell("Stored", stored(event)),
  );
  rows.prepend(row);
  while (rows.children.length > most) rows.lastChild.remove();
  empty.hidden = true;
}

const source = new EventSource(place.dataset.stream);
source.addEventListener("open", tell);
source.addEventListener("error", () => {
  said.textContent = source.readyState === EventSource.CLOSED
    ? "The collector refuses: log in again, or too many tails are open." : "The connection is lost; trying again.";
});
source.addEventListener("missed", ({ data }) => { missed += JSON.parse(data).count; tell(); });
source.addEventListener("event", ({ data }) => {
  count += 1;
  if (paused()) {
    held.push(JSON.parse(data));
    held = held.slice(-most);
  } else {
    show(JSON.parse(data));
  }
  tell();
});
pause.addEventListener("click", () => {
  const stop = !paused();
  pause.setAttribute("aria-pressed", String(stop));
  pause.textContent = stop ? "Go on" : "Pause";
  if (!stop) { held.forEach(show); held = []; }
  tell();
});
