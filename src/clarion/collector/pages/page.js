// The collector's page: asks the query API and draws what it gets. No build, no dependency, no third party.
// Everything is put in as text, never as markup.

const NS = "http://www.w3.org/2000/svg";
const $ = (id) => document.getElementById(id);
const state = { tab: "Events", event: "", tail: null };

function el(name, attributes = {}, ...children) {
  const made = name.startsWith("svg:") ? document.createElementNS(NS, name.slice(4)) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== null && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.flat().map((child) => (child instanceof Node ? child : String(child ?? "–"))));
  return made;
}

function table(caption, columns, rows) {
  const cell = (tag, value, numeric) => el(tag, { class: numeric ? "n" : null, scope: tag === "th" ? "col" : null }, value);
  const numeric = (column) => column.startsWith("#");
  return el("table", {}, el("caption", {}, caption),
    el("thead", {}, el("tr", {}, columns.map((c) => cell("th", c.replace("#", ""), numeric(c))))),
    el("tbody", {}, rows.length
      ? rows.map((row) => el("tr", {}, row.map((value, i) => cell("td", value, numeric(columns[i])))))
      : el("tr", {}, el("td", { colspan: columns.length, class: "quiet" }, "Nothing yet."))));
}

function bars(label, points) {
  const height = 120, width = Math.max(8, Math.min(28, 900 / Math.max(points.length, 1)));
  const top = Math.max(1, ...points.map(([, n]) => n));
  return el("svg:svg", { viewBox: `0 0 ${points.length * width} ${height + 34}`, role: "img", "aria-label": label,
    width: points.length * width, height: height + 34 }, points.map(([name, n], i) => {
    const tall = (n / top) * height;
    return el("svg:g", {}, el("svg:title", {}, `${name}: ${n}`),
      el("svg:rect", { class: "bar", x: i * width + 1, y: height - tall + 14, width: width - 2, height: Math.max(tall, 1) }),
      i % Math.ceil(points.length / 10) ? "" : el("svg:text", { x: i * width, y: height + 30 }, name));
  }));
}

const badge = (verdict) => el("span", { class: `badge ${verdict}` }, verdict);
const when = (stamp) => (stamp ? new Date(stamp).toLocaleString() : "never");
const share = (part, whole) => (whole ? `${Math.round((100 * part) / whole)} %` : "–");
const few = (n) => (n === null ? "fewer than shown" : n);

async function ask(path, more = {}, signal = undefined) {
  const where = new FormData($("where"));
  const since = new Date(Date.now() - Number(where.get("days")) * 864e5).toISOString();
  const query = new URLSearchParams({ project: where.get("project") ?? "", since });
  for (const [key, value] of Object.entries(more)) for (const one of [value].flat()) query.append(key, one);
  const token = sessionStorage.getItem("token") ?? "";
  const answer = await fetch(`/api/${path}?${query}`, { headers: { Authorization: `Bearer ${token}` }, signal });
  if (answer.status === 401) { door("That token is not one of this collector's."); throw new Error("no token"); }
  if (signal) return answer;
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.detail);
  return body;
}

const views = {
  async Events() {
    const [{ events, never_seen }, verdict, { series }] =
      await Promise.all([ask("events"), ask("verdict"), ask("series")]);
    const judged = new Map(verdict.events.map((row) => [row.event, row]));
    const totals = new Map();
    for (const row of series) totals.set(row.period, (totals.get(row.period) ?? 0) + row.events);
    return [
      el("p", {}, "Privacy verdict: ", badge(verdict.verdict), el("span", { class: "quiet" },
        ` against schema ${verdict.schema_version} (${verdict.schema_hash.slice(0, 12)}),`
        + ` ${verdict.unknown_events} refused events of unknown type`
        + (verdict.canary?.said ? `. ${verdict.canary.said}` : ""))),
      bars("Events each day", [...totals]),
      table("Event types", ["Event", "Verdict", "#Events", "#24 h", "#7 days", "#Installations", "#Versions", "First seen", "Last seen"],
        events.map((row) => [
          el("button", { onclick: () => { state.event = row.event; show("Properties"); } }, row.event),
          badge(judged.get(row.event)?.verdict ?? "unseen"), row.events, row.last_24h, row.last_7d,
          row.installations, row.versions, when(row.first_seen), when(row.last_seen)])),
      el("p", { class: "quiet" }, `Declared, never seen: ${never_seen.length ? never_seen.join(", ") : "none"}`),
    ];
  },
  async Properties() {
    const { events } = await ask("schema");
    const names = Object.keys(events);
    if (!names.length) return [el("p", {}, "The schema has no events.")];
    if (!names.includes(state.event)) state.event = names[0];
    const { properties } = await ask(`events/${encodeURIComponent(state.event)}/properties`);
    const choose = el("select", { onchange: (e) => { state.event = e.target.value; show("Properties"); } },
      names.map((name) => el("option", { value: name, selected: name === state.event }, name)));
    return [el("p", {}, el("label", {}, "Event ", choose), ` ${events[state.event].description}`),
      ...properties.map((row) => table(`${row.property}: filled in ${share(row.filled, row.events)} of ${row.events}`,
        ["Value", "#Events", "#Share", "#Installations"],
        row.values.map((v) => [v.value, few(v.events), v.events === null ? "–" : share(v.events, row.filled), v.installations])))];
  },
  async Installations() {
    const asked = ["day", "week", "month"].map((period) => ask("installations", { period }));
    const [[day, week, month], { periods }] = await Promise.all([Promise.all(asked), ask("versions")]);
    const rows = (found) => found.installations.map((r) => [r.period, r.installations, r.new, r.returning]);
    return [bars("Installations each day", day.installations.map((r) => [r.period, r.installations])),
      ...[["day", day], ["week", week], ["month", month]].map(([name, found]) =>
        table(`Active installations by ${name}`, ["From", "#Installations", "#New", "#Returning"], rows(found))),
      table("Versions by week", ["From", "Version", "#Events", "#Installations"],
        periods.flatMap((p) => p.versions.map((v) => [p.period, v.value, few(v.events), v.installations])))];
  },
  async Journeys() {
    const { events } = await ask("schema");
    const names = Object.keys(events);
    const pick = (name) => el("select", { name }, names.map((n) => el("option", {}, n)));
    const result = el("div");
    const form = el("form", { onsubmit: async (e) => {
      e.preventDefault();
      const { steps } = await ask("funnel", { step: new FormData(form).getAll("step") });
      result.replaceChildren(table("Funnel, within 14 days", ["#Step", "Event", "#Installations", "#Share"],
        steps.map((s) => [s.step, s.event, few(s.installations), s.share === null ? "–" : `${Math.round(s.share * 100)} %`])));
    } }, el("label", {}, "First ", pick("step")), el("label", {}, "then ", pick("step")), el("button", {}, "Count"));
    const { cohorts } = await ask("retention");
    const longest = Math.max(0, ...cohorts.map((c) => c.returned.length));
    return [el("h2", {}, "Funnel"), form, result,
      table("Retention by week of first sight", ["Week", "#Installations", ...Array.from({ length: longest }, (_, i) => `#+${i + 1}`)],
        cohorts.map((c) => [c.cohort, few(c.installations), ...Array.from({ length: longest }, (_, i) => c.returned[i] ?? "–")]))];
  },
  async Quarantine() {
    const [{ shapes }, { counters }] = await Promise.all([ask("quarantine"), ask("counters")]);
    return [el("p", { class: "quiet" }, "Refused events are kept as shapes: where, what kind, how long. Never a value."),
      table("Quarantine", ["Event", "Property", "Problem", "Type", "Length", "Library", "#Times", "#Installations", "Last seen"],
        shapes.map((s) => [s.event, s.path, s.problem, s.type, s.size, s.library, s.count, s.installations, when(s.last_seen)])),
      table("Counted, not kept", ["What", "Of", "#Times"], counters.map((c) => [c.name, c.label, c.count]))];
  },
  async Live() {
    const body = el("tbody");
    state.tail = new AbortController();
    follow(body, state.tail.signal).catch((error) => { if (error.name !== "AbortError") report(error); });
    return [el("p", { class: "quiet" }, "Events appear here when they are stored."),
      el("table", {}, el("caption", {}, "Live"), el("thead", {}, el("tr", {},
        ["Received", "Event", "Version", "Installation", "Everything that was stored"].map((c) => el("th", { scope: "col" }, c)))), body)];
  },
};

async function follow(body, signal) {
  const answer = await ask("live", {}, signal);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const frames = (rest + value).split("\n\n");
    rest = frames.pop();
    for (const frame of frames) {
      const data = frame.split("\n").find((line) => line.startsWith("data: "));
      if (!frame.startsWith("event: event") || !data) continue;
      const event = JSON.parse(data.slice(6));
      body.prepend(el("tr", {}, [when(event.received_at), event.event, event.app_version, event.installation.slice(0, 8),
        el("pre", {}, JSON.stringify(event.properties))].map((v) => el("td", {}, v))));
      while (body.children.length > 200) body.lastChild.remove();
    }
  }
}

function report(error) {
  $("view").replaceChildren(el("p", { role: "alert" }, `That did not work: ${error.message}`));
}

async function show(tab) {
  state.tab = tab;
  state.tail?.abort();
  for (const button of $("tabs").children) {
    if (button.textContent === tab) button.setAttribute("aria-current", "page"); else button.removeAttribute("aria-current");
  }
  $("view").setAttribute("aria-busy", "true");
  try {
    const made = await views[tab]();
    if (state.tab === tab) $("view").replaceChildren(...made);
  } catch (error) {
    if (!$("door").open) report(error);
  }
  $("view").removeAttribute("aria-busy");
}

function door(message = "") {
  $("door-error").textContent = message;
  if (!$("door").open) $("door").showModal();
}

async function enter() {
  const { projects } = await ask("projects");
  $("where").elements.project.replaceChildren(...projects.map((name) => el("option", {}, name)));
  await show(state.tab);
}

$("tabs").append(...Object.keys(views).map((tab) => el("button", { type: "button", onclick: () => show(tab) }, tab)));
$("where").addEventListener("change", () => show(state.tab));
$("leave").addEventListener("click", () => { sessionStorage.removeItem("token"); state.tail?.abort(); $("view").replaceChildren(); door(); });
$("token-form").addEventListener("submit", () => {
  sessionStorage.setItem("token", new FormData($("token-form")).get("token"));
  $("token-form").reset();
  enter().catch(() => {});
});
if (sessionStorage.getItem("token")) enter().catch(() => {}); else door();
