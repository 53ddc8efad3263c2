// A line chart of series over steps.
import uPlot from "../vendor/uplot.mjs";
import { html, useEffect, useRef } from "./html.js";
import { number } from "./format.js";

// Told apart with the common kinds of colour blindness, and on light and dark.
export const COLOURS = ["#3b82f6", "#e07b00", "#0f9d77", "#c2459e", "#8b6cf0", "#a3801f"];
const HEIGHT = 240;

// `series`: [{ name, points: [[step, value], …] }].
export function Chart({ title, series, logarithmic }) {
  const place = useRef(null);
  const plot = useRef(null);
  const shape = JSON.stringify([series.map(({ name }) => name), logarithmic]);
  const data = aligned(series.map(({ points }) => points), logarithmic);
  useEffect(() => {
    const shown = place.current;
    const drawn = new uPlot(options(shown, series, logarithmic), data, shown);
    const watch = new ResizeObserver(() => shown.clientWidth > 0 && drawn.setSize(size(shown)));
    watch.observe(shown);
    plot.current = drawn;
    return () => {
      watch.disconnect();
      drawn.destroy();
    };
  }, [shape]);
  useEffect(() => plot.current.setData(data), [data]);
  const last = series.map(({ points }) => points.at(-1)).filter(Boolean);
  const summary = last.length ? `last value ${last.map((at) => number(at[1])).join(", ")}` : "no values";
  return html`<figure class="chart" role="img" aria-label=${`${title}: ${summary}`}>
    <figcaption>${title}</figcaption>
    <div class="plot" ref=${place}></div>
  </figure>`;
}

function aligned(all, logarithmic) {
  const plotted = (value) => (logarithmic && !(value > 0) ? null : value);
  const steps = [...new Set(all.flatMap((points) => points.map(([step]) => step)))];
  steps.sort((one, other) => one - other);
  const columns = all.map((points) => {
    const values = new Map(points);
    return steps.map((step) => (values.has(step) ? plotted(values.get(step)) : undefined));
  });
  return [steps, ...columns];
}

function size(place) {
  return { width: Math.max(200, place.clientWidth), height: HEIGHT };
}

function options(place, series, logarithmic) {
  const style = getComputedStyle(place);
  const text = style.color;
  const grid = { stroke: style.borderTopColor, width: 1 };
  const values = (_, ticks) => ticks.map((tick) => (tick === null ? "" : number(tick, 3)));
  const axis = { stroke: text, grid, ticks: grid, font: "12px system-ui", values };
  return {
    ...size(place),
    scales: { x: { time: false }, y: { distr: logarithmic ? 3 : 1 } },
    axes: [axis, { ...axis, size: 64 }],
    cursor: { points: { size: 7 } },
    series: [
      { label: "step" },
      ...series.map(({ name }, at) => ({
        label: name,
        stroke: COLOURS[at % COLOURS.length],
        width: 2,
        spanGaps: true,
        points: { show: series[at].points.length < 2, size: 6 },
        value: (_, value) => number(value),
      })),
    ],
  };
}
