// One run: why it waits or failed, its curves, log, configuration and manifest.
import { html, useEffect, useState } from "../lib/html.js";
import { json, jobPath, text } from "../lib/api.js";
import { age, clock, duration, number, visible } from "../lib/format.js";
import { key, useJobs } from "../lib/jobs.js";
import { useCurves } from "../lib/curves.js";
import { Chart } from "../lib/chart.js";
import { Failure } from "../parts/notices.js";
import { useLoaded, useNow } from "../parts/load.js";
import { ProgressBar, Status, hasEnded, isHeld, lossOf, remove, resume, suspend, timeLeft } from "../parts/job.js";
import { Log } from "../parts/log.js";
import { Configuration, Manifest } from "../parts/configuration.js";

const TABS = [["overview", "Overview"], ["log", "Log"], ["configuration", "Configuration"], ["manifest", "Manifest"]];
const RELOAD = 5000;

export function Run({ job: named, tab: first }) {
  const { jobs, isComplete } = useJobs();
  const live = jobs.get(key(named));
  const [tab, open] = useState(TABS.some(([name]) => name === first) ? first : "overview");
  const changes = live && [live.status, live.suspended, live.queued_in, live.detail, live.created_at].join();
  const { value: details, error, reload } = useLoaded(
    (signal) => json(jobPath(named, "", { view: "full" }), { signal }), [key(named), changes]);
  const isOpen = details && !hasEnded(details);
  useEffect(() => {
    const timer = isOpen ? setInterval(reload, RELOAD) : 0;
    return () => clearInterval(timer);
  }, [isOpen]);
  if (isComplete && !live && (error || details)) return html`<${Gone} job=${named} />`;
  if (!details) {
    return html`<h1>${visible(named.name)}</h1>
      ${error ? html`<${Failure} error=${error} retry=${reload} />` : html`<p class="muted">Loading the run…</p>`}`;
  }
  const job = { ...details, ...live };
  return html`
    <div class="title">
      <h1>${visible(job.name)} <${Status} job=${job} /></h1>
      <${Actions} job=${job} />
    </div>
    ${error && html`<${Failure} error=${error} retry=${reload} />`}
    <${Cause} job=${job} />
    <div class="tabs" role="tablist">
      ${TABS.map(([name, title]) => html`<button key=${name} role="tab" id=${`tab-${name}`} aria-selected=${tab === name}
        aria-controls="panel" tabindex=${tab === name ? 0 : -1} onKeyDown=${(event) => arrow(event, tab, open)}
        onClick=${() => open(name)}>${title}</button>`)}
    </div>
    <div role="tabpanel" id="panel" aria-labelledby=${`tab-${tab}`}>
      ${tab === "overview" && html`<${Overview} job=${job} />`}
      ${tab === "log" && html`<${Log} job=${job} />`}
      ${tab === "configuration" && html`<${Configuration} job=${named} />`}
      ${tab === "manifest" && html`<${Manifest} job=${named} />`}
    </div>`;
}

function arrow(event, tab, open) {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step) return;
  const at = TABS.findIndex(([name]) => name === tab);
  const [next] = TABS[(at + step + TABS.length) % TABS.length];
  open(next);
  document.getElementById(`tab-${next}`).focus();
}

function Gone({ job }) {
  return html`<div class="empty">
    <h1>${visible(job.name)} is not there</h1>
    <p>It was deleted, or it is in a namespace that this service does not show. Its checkpoints stay.</p>
    <a class="button" href="#/runs">See all runs</a>
  </div>`;
}

function Actions({ job }) {
  const clone = `#/new?clone=${encodeURIComponent(key(job))}`;
  const gone = async () => {
    if ((await remove([job])).length > 0) location.hash = "#/runs";
  };
  return html`<div class="actions">
    ${!hasEnded(job) && (isHeld(job)
      ? html`<button onClick=${() => resume(job)}>Resume</button>`
      : html`<button onClick=${() => suspend(job)}>Suspend</button>`)}
    <a class="button" href=${clone}>Clone</a>
    <a class="button" href=${`#/compare?run=${encodeURIComponent(key(job))}`}>Compare</a>
    <button class="danger" onClick=${gone}>Delete</button>
  </div>`;
}

function Cause({ job }) {
  const lines = job.explanation || [];
  if (job.status === "failed") {
    const detail = lines.includes(job.detail) ? [] : [job.detail];
    return html`<div class="cause" role="status"><strong>It failed.</strong>
      ${[...detail, ...lines].map((line) => html`<p key=${line}>${visible(line)}</p>`)}</div>`;
  }
  if (lines.length === 0) return null;
  const title = job.status === "submitted" ? "It waits." : "Note";
  return html`<div class="cause waits" role="status"><strong>${title}</strong>
    ${lines.map((line) => html`<p key=${line}>${visible(line)}</p>`)}</div>`;
}

function Overview({ job }) {
  return html`
    <div class="card"><${Numbers} job=${job} /></div>
    <${Curves} job=${job} />
    <div class="grid">
      <section class="card"><h2>Timeline</h2><${Timeline} job=${job} /></section>
      <section class="card"><h2>Checkpoints</h2><${Checkpoints} job=${job} /></section>
    </div>
    <section class="card"><h2>Replicas</h2><${Replicas} job=${job} /></section>`;
}

function Numbers({ job }) {
  const now = useNow();
  const end = job.completed_at ? Date.parse(job.completed_at) : now;
  const ran = job.started_at ? duration((end - Date.parse(job.started_at)) / 1000) : "–";
  const facts = [
    ["Progress", html`<${ProgressBar} progress=${job.progress} />`],
    ["Loss", html`<strong>${lossOf(job)}</strong>`],
    ["Tokens/s", html`<strong>${job.progress ? number(job.progress.tokens_per_second, 3) : "–"}</strong>`],
    ["Time left", html`<strong>${timeLeft(job)}</strong>`],
    ["Run time", html`<strong>${ran}</strong>`],
    ["Age", html`<strong>${age(job.created_at, now)}</strong>`],
    ["Model", html`<span>${visible(job.model_id || "–")}</span>`],
    ["Framework", html`<span>${visible(job.framework)} ${visible(job.plugin?.version || "")}</span>`],
  ];
  return html`<div class="numbers">${facts.map(([name, value]) => html`
    <div key=${name}><span class="muted">${name}</span>${value}</div>`)}</div>`;
}

function Curves({ job }) {
  const { curves, error } = useCurves(job);
  const [logarithmic, setLogarithmic] = useState(false);
  if (error) return html`<${Failure} error=${error} />`;
  if (!curves) return html`<section class="card"><h2>Curves</h2><p class="muted">Loading…</p></section>`;
  if (curves.points.length === 0) {
    return html`<section class="card"><h2>Curves</h2>
      <p class="muted">${hasEnded(job) ? "The log has no progress lines." : "No progress yet. The curves begin with the first progress line of the run."}</p></section>`;
  }
  const of = (list, name) => list.filter((at) => at[name] !== undefined && at[name] !== null).map((at) => [at.step, at[name]]);
  const losses = [{ name: "loss", points: of(curves.points, "loss") }];
  const evaluations = of(curves.evaluations, "eval_loss");
  if (evaluations.length > 0) losses.push({ name: "evaluation", points: evaluations });
  const others = [["tokens_per_second", "Tokens per second"], ["learning_rate", "Learning rate"], ["grad_norm", "Gradient norm"]];
  const shown = others.map(([name, title]) => [title, of(curves.points, name)]).filter(([, points]) => points.length > 0);
  return html`
    <label class="muted"><input type="checkbox" checked=${logarithmic} onChange=${(event) => setLogarithmic(event.target.checked)} /> Logarithmic loss</label>
    <div class="grid charts">
      <section class="card"><${Chart} title="Loss" series=${losses} logarithmic=${logarithmic} /></section>
      ${shown.map(([title, points]) => html`<section class="card" key=${title}>
        <${Chart} title=${title} series=${[{ name: title, points }]} logarithmic=${false} /></section>`)}
    </div>
    <p><a href=${jobPath(job, "/metrics")} onClick=${(event) => download(event, job)}>Download as CSV</a></p>`;
}

async function download(event, job) {
  event.preventDefault();
  const csv = await text(jobPath(job, "/metrics", { points: 10000 }), { headers: { Accept: "text/csv" } });
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([csv], { type: "text/csv" }));
  link.download = `${job.name}.csv`;
  link.click();
  URL.revokeObjectURL(link.href);
}

function Timeline({ job }) {
  const lines = [
    ...(job.conditions || []).map((at) => ({ time: at.last_transition_time, title: at.type, text: at.message, isPast: at.status !== "True" })),
    ...(job.events || []).map((at) => ({ time: at.time, title: `${at.object}: ${at.reason}`, text: at.message })),
    ...(job.pods || []).filter((pod) => pod.restarts > 0).map((pod) => ({
      time: pod.started_at, title: `${pod.replica} restarted`, text: `${pod.restarts} restarts so far`,
    })),
  ].sort((one, other) => (one.time || "").localeCompare(other.time || ""));
  if (lines.length === 0) return html`<p class="muted">Nothing has happened yet.</p>`;
  return html`<ol class="timeline">${lines.map((at, index) => html`<li key=${index}>
    <strong>${visible(at.title)}</strong>${at.isPast && html` <span class="muted">(past)</span>`}
    <span class="muted below">${clock(at.time)}</span>${visible(at.text || "")}</li>`)}</ol>`;
}

function Replicas({ job }) {
  const pods = job.pods || [];
  if (pods.length === 0) return html`<p class="muted">${isHeld(job) ? "Suspended: there are no replicas." : "No replica has been started yet."}</p>`;
  return html`<div class="scroll"><table>
    <thead><tr><th>Replica</th><th>Phase</th><th>Node</th><th class="right">Restarts</th><th>Reason</th></tr></thead>
    <tbody>${pods.map((pod) => html`<tr key=${pod.replica}>
      <td>${visible(pod.replica)}</td><td>${visible(pod.phase)}</td><td>${visible(pod.node || "–")}</td>
      <td class="right">${pod.restarts}</td>
      <td>${visible([pod.reason, pod.exit_code === undefined ? "" : `exit code ${pod.exit_code}`, pod.message].filter(Boolean).join(": ") || "–")}</td>
    </tr>`)}</tbody></table></div>`;
}

function Checkpoints({ job }) {
  const { checkpoint } = job;
  if (!checkpoint) return html`<p class="muted">The job does not say where it saves.</p>`;
  const facts = Object.entries(checkpoint).filter(([, value]) => typeof value === "string");
  return html`<dl class="facts">${facts.map(([name, value]) => html`
    <dt key=${name}>${name.replaceAll("_", " ")}</dt><dd class="mono">${visible(value)}</dd>`)}</dl>`;
}
