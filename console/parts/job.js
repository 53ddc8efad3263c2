// What several pages show of a job, and what can be done with one.
import { html } from "../lib/html.js";
import { json, jobPath } from "../lib/api.js";
import { duration, number, visible } from "../lib/format.js";
import { attempt } from "./notices.js";

export const hasEnded = (job) => job.status === "succeeded" || job.status === "failed";
const isQueued = (job) => Boolean(job.queued_in) || job.queue?.state === "waiting";
// A job that waits in its queue is suspended too, but a resume would not start it.
export const isHeld = (job) => job.suspended && !isQueued(job);

export function stateOf(job) {
  if (hasEnded(job) || !job.suspended) return job.status;
  return isQueued(job) ? "queued" : "suspended";
}

export const runLink = (job, tab) =>
  `#/run/${encodeURIComponent(job.namespace)}/${encodeURIComponent(job.name)}${tab ? `?tab=${tab}` : ""}`;

export function Status({ job }) {
  const state = stateOf(job);
  return html`<span class=${`status ${state}`}>${state}</span>`;
}

export function ProgressBar({ progress }) {
  if (!progress) return html`<span class="muted">–</span>`;
  const { step, total_steps: total } = progress;
  return html`<span class="progress">
    <progress max=${Math.max(1, total)} value=${step} aria-label="Progress"></progress>
    <span>${number(step)} / ${number(total)}</span>
  </span>`;
}

export function timeLeft(job) {
  const isRunning = job.status === "running" && job.progress;
  return isRunning ? duration(job.progress.seconds_left) : "–";
}

export function lossOf(job) {
  if (!job.progress) return "–";
  return job.progress.loss === null ? "not a number" : number(job.progress.loss);
}

export async function suspend(job) {
  return attempt(() => json(jobPath(job, "/suspend"), { method: "POST" }), `${visible(job.name)} is suspended`);
}

export async function resume(job) {
  return attempt(() => json(jobPath(job, "/resume"), { method: "POST" }), `${visible(job.name)} resumes`);
}

export async function remove(jobs) {
  const names = jobs.length === 1 ? `Delete ${visible(jobs[0].name)}?` : `Delete ${jobs.length} runs?`;
  if (!confirm(`${names} Their replicas stop. Their checkpoints stay.`)) return [];
  const gone = [];
  for (const job of jobs) {
    const answer = await attempt(() => json(jobPath(job), { method: "DELETE" }), `${visible(job.name)} is deleted`);
    if (answer !== undefined) gone.push(job);
  }
  return gone;
}

// Text to take away.
export function Snippet({ text, label }) {
  const copy = () => attempt(() => write(text), "Copied");
  return html`<div class="snippet">
    <button class="quiet" onClick=${copy} aria-label=${`Copy ${label}`}>Copy</button>
    <pre tabindex="0" aria-label=${label}>${visible(text)}</pre>
  </div>`;
}

// Browsers have a clipboard for pages of this machine and of HTTPS only.
async function write(text) {
  if (!navigator.clipboard) throw new Error("This browser lets no page without HTTPS copy; select the text instead.");
  await navigator.clipboard.writeText(text);
}
