// What a run was asked for and what it runs with, and the run as text to take away.
import { html, useState } from "../lib/html.js";
import { json, jobPath, text } from "../lib/api.js";
import { value, visible } from "../lib/format.js";
import { curl, jobFile, requestOfJob } from "../lib/request.js";
import { Failure } from "./notices.js";
import { useLoaded } from "./load.js";
import { Snippet } from "./job.js";

// The request of a run, its arguments with the defaults filled in, and the schema of the arguments.
export async function configuration(job, signal) {
  const request = await requestOfJob(job, signal);
  const [resolved, schema] = await Promise.all([
    json("train/preview", { method: "POST", body: request, signal }).then((preview) => preview.resolved_args, () => null),
    json(`frameworks/${encodeURIComponent(request.framework)}`, { signal }).then((framework) => framework.args_schema, () => null),
  ]);
  return { request, schema, resolved: resolved || request.extra_args || {} };
}

export function Configuration({ job }) {
  const { value: loaded, error, reload } = useLoaded((signal) => configuration(job, signal), [job.namespace, job.name]);
  const [all, showAll] = useState(true);
  if (error) return html`<${Failure} error=${error} retry=${reload} />`;
  if (!loaded) return html`<p class="muted">Loading…</p>`;
  const { request, resolved, schema } = loaded;
  const { extra_args: given = {}, ...fields } = request;
  const rows = Object.entries(resolved).filter(([, of]) => of !== null).map(([name, of]) => {
    const known = schema?.properties?.[name];
    const byDefault = known?.default;
    const isOther = byDefault === undefined ? name in given : JSON.stringify(byDefault) !== JSON.stringify(of);
    return { name, of, byDefault, isOther, about: known?.description };
  });
  const shown = all ? rows : rows.filter(({ isOther }) => isOther);
  return html`
    <div class="grid">
      <section class="card"><h2>Request</h2>
        <dl class="facts">${Object.entries(fields).map(([name, of]) => html`
          <dt key=${name}>${name}</dt><dd class="mono">${visible(value(of))}</dd>`)}</dl>
      </section>
      <section class="card"><h2>The same run again</h2>
        <h3>job.yaml</h3><${Snippet} text=${jobFile(request)} label="job.yaml" />
        <h3>curl</h3><${Snippet} text=${curl(request)} label="curl command" />
      </section>
    </div>
    <section class="card"><div class="title"><h2>Arguments</h2>
      <label><input type="checkbox" checked=${!all} onChange=${(event) => showAll(!event.target.checked)} /> Only those that differ from the defaults</label></div>
      <div class="scroll"><table>
        <thead><tr><th>Argument</th><th>Value</th><th>Default</th><th>Meaning</th></tr></thead>
        <tbody>${shown.map(({ name, of, byDefault, isOther, about }) => html`<tr key=${name} class=${isOther ? "changed" : ""}>
          <td class="mono">${visible(name)}</td><td class="mono">${visible(value(of))}${isOther && html`<span class="muted below">differs</span>`}</td>
          <td class="mono">${visible(value(byDefault))}</td><td>${visible(about || "")}</td></tr>`)}</tbody>
      </table></div>
      ${shown.length === 0 && html`<p class="muted">Every argument has its default.</p>`}
    </section>`;
}

export function Manifest({ job }) {
  const { value: manifest, error, reload } = useLoaded(
    (signal) => text(jobPath(job, "/manifest"), { signal, headers: { Accept: "application/yaml" } }),
    [job.namespace, job.name]);
  if (error) return html`<${Failure} error=${error} retry=${reload} />`;
  if (!manifest) return html`<p class="muted">Loading…</p>`;
  return html`<${Snippet} text=${manifest} label="manifest" />`;
}
