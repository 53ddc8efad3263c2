// Two to six runs: their curves over each other, and what differs in their configuration.
import { html, useState } from "../lib/html.js";
import { json, jobPath } from "../lib/api.js";
import { number, value, visible } from "../lib/format.js";
import { COLOURS, Chart } from "../lib/chart.js";
import { key, newestFirst, useJobs } from "../lib/jobs.js";
import { Failure } from "../parts/notices.js";
import { configuration } from "../parts/configuration.js";
import { useLoaded } from "../parts/load.js";
import { Status, runLink } from "../parts/job.js";

const MOST = 6;
const CURVES = [["loss", "Loss"], ["tokens_per_second", "Tokens per second"], ["learning_rate", "Learning rate"]];

export function Compare({ runs }) {
  const { jobs } = useJobs();
  const chosen = runs.slice(0, MOST);
  const go = (next) => {
    location.hash = `#/compare?${next.map((run) => `run=${encodeURIComponent(run)}`).join("&")}`;
  };
  const others = newestFirst(jobs.values()).filter((job) => !chosen.includes(key(job)));
  return html`
    <h1>Compare</h1>
    <div class="filters">
      ${chosen.map((run) => html`<span class="chosen" key=${run}>${visible(run)}
        <button class="quiet" aria-label=${`Remove ${visible(run)}`} onClick=${() => go(chosen.filter((other) => other !== run))}>✕</button></span>`)}
      ${chosen.length < MOST && others.length > 0 && html`<select aria-label="Add a run" value="" onChange=${(event) => event.target.value && go([...chosen, event.target.value])}>
        <option value="">Add a run…</option>
        ${others.slice(0, 500).map((job) => html`<option key=${key(job)} value=${key(job)}>${visible(key(job))}</option>`)}
      </select>`}
    </div>
    ${chosen.length < 2
      ? html`<p class="empty">Choose two to six runs, here or on <a href="#/runs">the list of runs</a>.</p>`
      : html`<${Compared} key=${chosen.join("\n")} runs=${chosen} jobs=${jobs} />`}`;
}

function named(run) {
  const at = run.indexOf("/");
  return { namespace: run.slice(0, at), name: run.slice(at + 1) };
}

async function load(runs, signal) {
  return Promise.all(runs.map(async (run) => {
    const job = named(run);
    const [metrics, of] = await Promise.all([
      json(jobPath(job, "/metrics"), { signal }),
      configuration(job, signal),
    ]);
    return { run, job, metrics, ...of };
  }));
}

function Compared({ runs, jobs }) {
  const { value: loaded, error, reload } = useLoaded((signal) => load(runs, signal), [runs.join("\n")]);
  const [logarithmic, setLogarithmic] = useState(false);
  if (error) return html`<${Failure} error=${error} retry=${reload} />`;
  if (!loaded) return html`<p class="muted">Loading the curves…</p>`;
  const charts = CURVES.map(([name, title]) => ({ name, title, series: loaded.map((run) => series(run, name)) }));
  const shown = charts.filter(({ series }) => series.some(({ points }) => points.length > 0));
  return html`
    <div class="filters"><label><input type="checkbox" checked=${logarithmic} onChange=${(event) => setLogarithmic(event.target.checked)} /> Logarithmic loss</label>
      <button onClick=${reload}>Load again</button></div>
    ${shown.length === 0 && html`<p class="muted">None of these runs has progress lines yet.</p>`}
    <div class="grid charts">${shown.map(({ name, title, series }) => html`<section class="card" key=${name}>
      <${Chart} title=${title} series=${series} logarithmic=${logarithmic && name === "loss"} /></section>`)}</div>
    <${Differences} loaded=${loaded} jobs=${jobs} />`;
}

function series({ job, metrics }, name) {
  const points = metrics.points.filter((point) => point[name] !== undefined && point[name] !== null);
  return { name: visible(job.name), points: points.map((point) => [point.step, point[name]]) };
}

function Differences({ loaded, jobs }) {
  const [all, showAll] = useState(false);
  const rows = new Map();
  for (const { request, resolved } of loaded) {
    const { extra_args: _, ...fields } = request;
    for (const name of Object.keys(fields)) rows.set(name, (of) => of.request[name]);
    for (const name of Object.keys(resolved)) rows.set(`extra_args.${name}`, (of) => of.resolved[name]);
  }
  const table = [...rows].map(([name, read]) => ({ name, values: loaded.map((of) => value(read(of) ?? undefined)) }));
  const differs = ({ values }) => new Set(values).size > 1;
  const shown = all ? table : table.filter(differs);
  return html`<section class="card">
    <div class="title"><h2>Configuration</h2>
      <label><input type="checkbox" checked=${all} onChange=${(event) => showAll(event.target.checked)} /> Also what is the same</label></div>
    <div class="scroll"><table>
      <thead><tr><th></th>${loaded.map(({ run, job }, at) => html`<th key=${run}>
        <svg class="key" viewBox="0 0 10 10" width="10" height="10" aria-hidden="true"><circle cx="5" cy="5" r="5" fill=${COLOURS[at]} /></svg>
        <a href=${runLink(job)}>${visible(job.name)}</a></th>`)}</tr></thead>
      <tbody>
        <tr><th>status</th>${loaded.map(({ run }) => html`<td key=${run}>${jobs.has(run) ? html`<${Status} job=${jobs.get(run)} />` : "–"}</td>`)}</tr>
        <tr><th>last loss</th>${loaded.map(({ run, metrics }) => html`<td key=${run}>${number(metrics.points.at(-1)?.loss)}</td>`)}</tr>
        ${shown.map((row) => html`<tr key=${row.name} class=${all && differs(row) ? "changed" : ""}>
          <th class="mono">${visible(row.name)}</th>${row.values.map((text, at) => html`<td class="mono" key=${at}>${visible(text)}</td>`)}</tr>`)}
      </tbody></table></div>
  </section>`;
}
