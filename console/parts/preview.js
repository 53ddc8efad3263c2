// What a request would become, while it is being typed.
import { html, useEffect, useState } from "../lib/html.js";
import { json } from "../lib/api.js";
import { visible } from "../lib/format.js";
import { curl, jobFile } from "../lib/request.js";
import { write } from "../lib/yaml.js";
import { Snippet } from "./job.js";

const QUIET = 300;

// The preview of a request. An earlier one that is on its way is cancelled.
export function usePreview(request) {
  const [state, set] = useState({ value: null, error: null, isBusy: true });
  const body = JSON.stringify(request);
  useEffect(() => {
    const controller = new AbortController();
    set((before) => ({ ...before, isBusy: true }));
    const timer = setTimeout(async () => {
      try {
        const value = await json("train/preview", { method: "POST", body: request, signal: controller.signal });
        set({ value, error: null, isBusy: false });
      } catch (error) {
        if (!controller.signal.aborted) set({ value: null, error, isBusy: false });
      }
    }, QUIET);
    return () => {
      clearTimeout(timer);
      controller.abort();
    };
  }, [body]);
  return { ...state, request };
}

export function Preview({ preview, refusal }) {
  const { value, error, isBusy, request } = preview;
  const failed = refusal || error;
  return html`<section class="card" aria-live="polite" aria-busy=${isBusy}>
    <h2>Preview ${isBusy && html`<span class="muted">…</span>`}</h2>
    ${failed ? html`<${Findings} error=${failed} />` : value && html`<${Planned} value=${value} />`}
    <details><summary>This request as job.yaml</summary><${Snippet} text=${jobFile(request)} label="job.yaml" /></details>
    <details><summary>This request as curl</summary><${Snippet} text=${curl(request)} label="curl command" /></details>
  </section>`;
}

function Findings({ error }) {
  const findings = error.findings.length > 0 ? error.findings : [{ detail: error.message }];
  return html`<div class="failure"><strong>This request cannot run yet.</strong>
    <ul>${findings.map((finding, at) => html`<li key=${at}>${visible(finding.detail)}
      ${finding.code && html` <span class="muted">${visible(finding.code)}</span>`}</li>`)}</ul></div>`;
}

function Planned({ value }) {
  return html`
    <p class="good">It can run as <strong>${visible(value.name)}</strong> in ${visible(value.namespace)}.</p>
    ${value.parallel && html`<p class="mono">${visible(value.parallel.summary)}</p>`}
    ${value.warnings.length > 0 && html`<div class="cause waits"><strong>Warnings</strong>
      <ul>${value.warnings.map((warning, at) => html`<li key=${at}>${visible(warning.detail)} <span class="muted">${visible(warning.code)}</span></li>`)}</ul></div>`}
    <p class="muted">Checkpoints: <span class="mono">${visible(value.checkpoint.prefix)}</span></p>
    <details><summary>Command</summary><pre>${visible(value.command.join(" "))}</pre></details>
    <details><summary>Arguments with defaults</summary><pre>${visible(write(value.resolved_args))}</pre></details>
    <details><summary>Manifest</summary><pre>${visible(JSON.stringify(value.manifest, null, 2))}</pre></details>`;
}
