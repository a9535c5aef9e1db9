// Draws what stands in `data-chart` with uPlot, in the colours of the page.
"use strict";
const tone = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const colour = (place) => tone(`--series${place % 7}`);
const day = new Intl.DateTimeFormat("en-GB", { timeZone: "UTC", day: "numeric", month: "short" });
const number = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const date = (seconds) => new Date(seconds * 1000).toISOString().slice(0, 10);
const drawn = new Map();

function stacked(series) {
  const sum = series[0]?.values.map(() => 0) ?? [];
  return series.map(({ values }) => values.map((value, place) => (sum[place] += value ?? 0)));
}

function options(place, { kind, series, x }, width) {
  const spark = place.classList.contains("spark");
  const axis = { stroke: tone("--soft"), grid: { stroke: tone("--line"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
  const step = x.length > 1 ? x[1] - x[0] : 86400;
  return {
    width, height: Number(place.dataset.height), tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
    padding: spark ? [2, 2, 2, 2] : [10, 8, 0, 0],
    cursor: { show: !spark, y: false, drag: { setScale: false, x: false } },
    legend: { show: !spark },
    scales: { x: { range: () => [x[0] - step / 2, x[x.length - 1] + step / 2] }, y: { range: (_, low, high) => [0, Math.max(high || 0, 1) * 1.08] } },
    axes: [
      { ...axis, show: !spark, size: 28, space: 70, incrs: [1, 2, 7, 14, 28, 56].map((days) => days * 86400), values: (_, splits) => splits.map((one) => day.format(one * 1000)), grid: { show: false } },
      { ...axis, show: !spark, size: 44, incrs: [1, 2, 5].flatMap((n) => [...Array(13).keys()].map((p) => n * 10 ** p)).sort((a, b) => a - b), values: (_, splits) => splits.map((one) => number.format(one)) },
    ],
    series: [
      { label: "From", value: (_, one) => (one == null ? "–" : date(one)) },
      ...series.map(({ label, values }, n) => ({
        label, stroke: colour(n), width: spark ? 1.5 : kind === "line" ? 2 : 0, points: { show: kind === "line" && x.length === 1 },
        fill: spark || kind === "line" ? undefined : colour(n),
        paths: kind === "line" || (kind === "stack" && x.length > 1) ? undefined : uPlot.paths.bars({ size: [0.72, 48], radius: kind === "bars" ? 0.15 : 0 }),
        value: (_, one, __, at) => (at == null ? "–" : values[at] == null ? "few" : values[at].toLocaleString("en")),
      })),
    ],
  };
}

function draw(place) {
  drawn.get(place)?.destroy();
  const data = JSON.parse(place.dataset.chart);
  const width = place.clientWidth;
  if (!width || !data.x.length) return;
  const shown = data.kind === "stack" ? stacked(data.series) : data.series.map(({ values }) => values);
  const made = options(place, data, width);
  if (data.kind === "stack") { // the tallest bar lies behind
    made.series = [made.series[0], ...made.series.slice(1).reverse()];
    shown.reverse();
  }
  drawn.set(place, new uPlot(made, [data.x, ...shown], place));
}

const places = document.querySelectorAll("[data-chart]");
places.forEach(draw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => places.forEach(draw));
let waiting = 0;
addEventListener("resize", () => { cancelAnimationFrame(waiting); waiting = requestAnimationFrame(() => places.forEach(draw)); });
