// All runs, live.
import { html, useMemo, useState } from "../lib/html.js";
import { age, number, visible } from "../lib/format.js";
import { key, newestFirst, useJobs } from "../lib/jobs.js";
import { Failure } from "../parts/notices.js";
import { useNow } from "../parts/load.js";
import {
  ProgressBar, Status, hasEnded, isHeld, lossOf, remove, resume, runLink, stateOf, suspend, timeLeft,
} from "../parts/job.js";

const STATES = ["submitted", "queued", "running", "suspended", "succeeded", "failed"];
const MOST_ROWS = 200;

export function Runs() {
  const { jobs, error, isComplete } = useJobs();
  const [filter, setFilter] = useState({ text: "", state: "", framework: "" });
  const [selected, select] = useState(new Set());
  const [rows, setRows] = useState(MOST_ROWS);
  const now = useNow();
  const all = newestFirst(jobs.values());
  const frameworks = useMemo(() => [...new Set(all.map((job) => job.framework))].sort(), [all.length]);
  const found = all.filter((job) => matches(job, filter));
  const chosen = all.filter((job) => selected.has(key(job)));
  if (error && !isComplete) return html`<h1>Runs</h1><${Failure} error=${error} />`;
  if (!isComplete) return html`<h1>Runs</h1><p class="muted">Loading the runs…</p>`;
  if (all.length === 0) return html`<${Empty} />`;
  const toggle = (of, on) => {
    const next = new Set(selected);
    of.forEach((job) => (on ? next.add(key(job)) : next.delete(key(job))));
    select(next);
  };
  const shown = found.slice(0, rows);
  return html`
    <div class="title">
      <h1>Runs</h1>
      <a class="button primary" href="#/new">New run</a>
    </div>
    <${Filters} filter=${filter} change=${setFilter} frameworks=${frameworks} />
    <p class="muted" role="status">${found.length === all.length ? `${all.length} runs` : `${found.length} of ${all.length} runs`}</p>
    ${chosen.length > 0 && html`<${Actions} jobs=${chosen} clear=${() => select(new Set())} />`}
    ${found.length === 0
      ? html`<p class="empty">No run matches. <button onClick=${() => setFilter({ text: "", state: "", framework: "" })}>Clear the filters</button></p>`
      : html`<div class="scroll"><table class="runs">
          <thead><tr>
            <th><input type="checkbox" aria-label="Select all" checked=${shown.every((job) => selected.has(key(job)))}
              onChange=${(event) => toggle(shown, event.target.checked)} /></th>
            <th>Run</th><th>Status</th><th>Model</th><th>Progress</th>
            <th class="right">Loss</th><th class="right">Tokens/s</th><th class="right">Time left</th><th class="right">Age</th>
          </tr></thead>
          <tbody>${shown.map((job) => html`<${Row} key=${key(job)} job=${job} now=${now}
            isSelected=${selected.has(key(job))} toggle=${toggle} />`)}</tbody>
        </table></div>`}
    ${found.length > rows && html`<button onClick=${() => setRows(rows + MOST_ROWS)}>Show ${Math.min(MOST_ROWS, found.length - rows)} more</button>`}`;
}

function matches(job, { text, state, framework }) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  const all = `${job.name} ${job.run_id} ${job.namespace} ${job.framework} ${job.model_id || ""}`.toLowerCase();
  return (!state || stateOf(job) === state) && (!framework || job.framework === framework) &&
    words.every((word) => all.includes(word));
}

function Row({ job, now, isSelected, toggle }) {
  const tokens = job.status === "running" && job.progress ? number(job.progress.tokens_per_second, 3) : "–";
  return html`<tr>
    <td><input type="checkbox" checked=${isSelected} aria-label=${`Select ${visible(job.name)}`}
      onChange=${(event) => toggle([job], event.target.checked)} /></td>
    <td data-label="Run"><a href=${runLink(job)}>${visible(job.name)}</a>
      <span class="muted below">${visible(job.framework)} · ${visible(job.namespace)}</span></td>
    <td data-label="Status"><${Status} job=${job} /></td>
    <td data-label="Model" class="model">${visible(job.model_id || "–")}</td>
    <td data-label="Progress"><${ProgressBar} progress=${job.progress} /></td>
    <td data-label="Loss" class="right">${lossOf(job)}</td>
    <td data-label="Tokens/s" class="right">${tokens}</td>
    <td data-label="Time left" class="right">${timeLeft(job)}</td>
    <td data-label="Age" class="right">${age(job.created_at, now)}</td>
  </tr>`;
}

function Filters({ filter, change, frameworks }) {
  const set = (name) => (event) => change({ ...filter, [name]: event.target.value });
  return html`<div class="filters" role="search">
    <input type="search" aria-label="Search runs" placeholder="Search name, run or model" value=${filter.text} onInput=${set("text")} />
    <select aria-label="Status" value=${filter.state} onChange=${set("state")}>
      <option value="">Any status</option>
      ${STATES.map((state) => html`<option key=${state}>${state}</option>`)}
    </select>
    <select aria-label="Framework" value=${filter.framework} onChange=${set("framework")}>
      <option value="">Any framework</option>
      ${frameworks.map((name) => html`<option key=${name}>${visible(name)}</option>`)}
    </select>
  </div>`;
}

function Actions({ jobs, clear }) {
  const open = jobs.filter((job) => !hasEnded(job));
  const running = open.filter((job) => !isHeld(job));
  const held = open.filter(isHeld);
  const each = async (of, action) => {
    for (const job of of) await action(job);
    clear();
  };
  const comparison = jobs.slice(0, 6).map((job) => `run=${encodeURIComponent(key(job))}`).join("&");
  return html`<div class="actions" role="toolbar" aria-label="Selected runs">
    <strong>${jobs.length} selected</strong>
    <button disabled=${running.length === 0} onClick=${() => each(running, suspend)}>Suspend</button>
    <button disabled=${held.length === 0} onClick=${() => each(held, resume)}>Resume</button>
    <button class="danger" onClick=${async () => (await remove(jobs)).length > 0 && clear()}>Delete</button>
    ${jobs.length >= 2 && jobs.length <= 6 && html`<a class="button" href=${`#/compare?${comparison}`}>Compare</a>`}
    <button class="quiet" onClick=${clear}>Clear selection</button>
  </div>`;
}

function Empty() {
  return html`<div class="empty">
    <h1>No runs yet</h1>
    <p>Start one from a form, or with <code>trainer submit job.yaml</code>. It appears here at once.</p>
    <a class="button primary" href="#/new">New run</a>
  </div>`;
}
