// The OpenAPI document as a reference that can send requests.
import { html, useState } from "../lib/html.js";
import { json, raw } from "../lib/api.js";
import { visible } from "../lib/format.js";
import { Failure } from "../parts/notices.js";
import { useLoaded } from "../parts/load.js";

const MOST_BYTES = 200_000;
const LONGEST = 5000;

export function Api() {
  const { value: document, error, reload } = useLoaded((signal) => json("openapi.json", { signal }), []);
  if (error) return html`<h1>API</h1><${Failure} error=${error} retry=${reload} />`;
  if (!document) return html`<h1>API</h1><p class="muted">Loading…</p>`;
  const operations = Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ path, method, operation })));
  return html`
    <h1>${visible(document.info.title)} ${visible(document.info.version)}</h1>
    <p>${visible(document.info.summary || "")} The document: <a href="openapi.json">openapi.json</a>.
      Requests from here are real: a POST to /train starts a job.</p>
    ${document.tags.map((tag) => html`<section key=${tag.name}><h2>${visible(tag.description || tag.name)}</h2>
      ${operations.filter(({ operation }) => operation.tags.includes(tag.name)).map((of) => html`
        <${Operation} key=${`${of.method} ${of.path}`} document=${document} ...${of} />`)}</section>`)}
    <section><h2>Schemas</h2>
      ${Object.entries(document.components.schemas).map(([name, schema]) => html`<details class="card" key=${name}>
        <summary class="mono">${visible(name)}</summary><pre>${visible(JSON.stringify(schema, null, 2))}</pre></details>`)}</section>`;
}

function resolved(document, of) {
  if (!of?.$ref) return of;
  return of.$ref.slice(2).split("/").reduce((at, part) => at?.[part.replaceAll("~1", "/").replaceAll("~0", "~")], document);
}

function Operation({ document, path, method, operation }) {
  const parameters = (operation.parameters || []).map((parameter) => resolved(document, parameter));
  return html`<details class="card">
    <summary><span class="method">${method.toUpperCase()}</span> <code>${visible(path)}</code> <span class="muted">${visible(operation.summary || "")}</span></summary>
    ${operation.description && html`<p>${visible(operation.description)}</p>`}
    <${Responses} operation=${operation} />
    <${Try} path=${path} method=${method} operation=${operation} parameters=${parameters} document=${document} />
  </details>`;
}

function Responses({ operation }) {
  const rows = Object.entries(operation.responses).filter(([status]) => Number(status) < 400);
  const problems = Object.keys(operation.responses).filter((status) => Number(status) >= 400);
  const shape = ({ schema }) => schema?.$ref?.split("/").at(-1) || schema?.type || "";
  return html`<table><tbody>${rows.map(([status, { description, content = {} }]) => html`<tr key=${status}>
      <td>${status}</td><td>${visible(description)}</td>
      <td class="mono">${Object.entries(content).map(([media, of]) => html`<span class="below" key=${media}>${visible(media)} ${visible(shape(of))}</span>`)}</td></tr>`)}
    ${problems.length > 0 && html`<tr><td>${problems.join(", ")}</td><td>Problem documents</td><td class="mono">application/problem+json</td></tr>`}
  </tbody></table>`;
}

function Try({ path, method, operation, parameters }) {
  const [values, change] = useState({});
  const [answer, setAnswer] = useState(null);
  const content = operation.requestBody?.content["application/json"];
  const examples = Object.entries(content?.examples || {});
  const [body, setBody] = useState(examples[0] ? JSON.stringify(examples[0][1].value, null, 2) : "");
  const send = async (event) => {
    event.preventDefault();
    setAnswer({ text: "…" });
    try {
      setAnswer(await answered(method, requestOf(path, parameters, values), content ? body : ""));
    } catch (error) {
      setAnswer({ text: error.message });
    }
  };
  return html`<form class="field" onSubmit=${send}>
    <div class="fields">${parameters.map(({ name, in: place, description, required, schema }) => html`<div class="field" key=${name}>
      <label>${name} <span class="muted">(${place})</span>
        <input required=${required} value=${values[name] || ""} placeholder=${schema?.default ?? ""} onInput=${(event) => change({ ...values, [name]: event.target.value })} /></label>
      <p class="hint">${visible(description || "")}</p></div>`)}</div>
    ${content && html`<label>Body ${examples.length > 1 && html`<select aria-label="Example" onChange=${(event) => setBody(JSON.stringify(examples[event.target.value][1].value, null, 2))}>
        ${examples.map(([name], at) => html`<option key=${name} value=${at}>${visible(name)}</option>`)}</select>`}
      <textarea value=${body} spellcheck=${false} onInput=${(event) => setBody(event.target.value)}></textarea></label>`}
    <div class="actions"><button class="primary">Send</button></div>
    ${answer && html`<div role="status">${answer.status && html`<p><strong>${answer.status}</strong></p>
      <pre class="muted">${visible(answer.headers)}</pre>`}<pre>${visible(answer.text)}</pre></div>`}
  </form>`;
}

function requestOf(path, parameters, values) {
  const given = parameters.filter(({ name }) => (values[name] || "") !== "");
  const filled = given.filter((of) => of.in === "path").reduce(
    (at, { name }) => at.replace(`{${name}}`, encodeURIComponent(values[name])), path.slice(1));
  const query = new URLSearchParams(given.filter((of) => of.in === "query").map(({ name }) => [name, values[name]]));
  const headers = Object.fromEntries(given.filter((of) => of.in === "header").map(({ name }) => [name, values[name]]));
  return { path: query.size > 0 ? `${filled}?${query}` : filled, headers };
}

// The beginning of an answer: streams do not end by themselves.
async function answered(method, { path, headers }, body) {
  const controller = new AbortController();
  const timer = setTimeout(() => controller.abort(), LONGEST);
  if (body) headers["Content-Type"] = "application/json";
  const response = await raw(path, { method: method.toUpperCase(), headers, body, signal: controller.signal });
  const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  try {
    while (reader && text.length < MOST_BYTES) {
      const { done, value } = await reader.read();
      if (done) break;
      text += value;
    }
  } catch (error) {
    text += `\n… cut off after ${LONGEST / 1000} s`;
  }
  clearTimeout(timer);
  controller.abort();
  const shown = [...response.headers].map(([name, value]) => `${name}: ${value}`).join("\n");
  return { status: `${response.status} ${response.statusText}`, headers: shown, text: pretty(text) };
}

function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}
