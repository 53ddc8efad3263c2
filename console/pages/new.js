// A new run: a form that the framework's schema draws, and beside it what would run.
import { html, useEffect, useMemo, useRef, useState } from "../lib/html.js";
import { json, jobPath } from "../lib/api.js";
import { FIELDS, argumentGroups, emptyForm, formOf, isMeant, requestOf } from "../lib/form.js";
import { nextRunId, requestOfJob } from "../lib/request.js";
import { visible } from "../lib/format.js";
import { read } from "../lib/yaml.js";
import { Failure, attempt, notify } from "../parts/notices.js";
import { ArgumentField, Field } from "../parts/field.js";
import { Preview, usePreview } from "../parts/preview.js";
import { runLink } from "../parts/job.js";
import { useLoaded } from "../parts/load.js";

export function NewRun({ clone }) {
  const { value: loaded, error, reload } = useLoaded((signal) => start(clone, signal), [clone]);
  if (error) return html`<h1>New run</h1><${Failure} error=${error} retry=${reload} />`;
  if (!loaded) return html`<h1>New run</h1><p class="muted">Loading the frameworks…</p>`;
  if (loaded.frameworks.length === 0) {
    return html`<div class="empty"><h1>No framework is loaded</h1>
      <p><a href="#/frameworks">The frameworks page</a> says which plugins were refused and why.</p></div>`;
  }
  return html`<${Form} ...${loaded} />`;
}

async function start(clone, signal) {
  const { frameworks } = await json("frameworks", { signal });
  if (!clone) return { frameworks, first: { ...emptyForm(), framework: frameworks[0]?.name || "" } };
  const [namespace, ...name] = clone.split("/");
  const { job_name, resume_from_checkpoint, overwrite, ...request } =
    await requestOfJob({ namespace, name: name.join("/") }, signal);
  const first = formOf({ ...request, run_id: nextRunId(request.run_id) }, schemaOf(frameworks, request.framework));
  return { frameworks, first, clone };
}

const schemaOf = (frameworks, name) => frameworks.find((framework) => framework.name === name)?.args_schema;

function Form({ frameworks, first, clone }) {
  const [form, change] = useState(first);
  const [touched, touch] = useState(clone ? { all: true } : {});
  const [refusal, refuse] = useState(null);
  const [isSending, setSending] = useState(false);
  const sent = useRef({ body: "", key: "" });
  const schema = schemaOf(frameworks, form.framework);
  const request = useMemo(() => requestOf(form, schema), [form, schema]);
  const preview = usePreview(request);
  const error = refusal || preview.error;
  const faults = (pointer) => faultsAt(error, pointer, touched);
  const set = (name, text) => {
    refuse(null);
    touch((before) => ({ ...before, [name]: true }));
    change((before) => ({ ...before, fields: { ...before.fields, [name]: text } }));
  };
  const setArgument = (name, text) => {
    refuse(null);
    change((before) => ({ ...before, args: { ...before.args, [name]: text } }));
  };
  const submit = async (event) => {
    event.preventDefault();
    touch({ all: true });
    setSending(true);
    const body = JSON.stringify(request);
    // The same request keeps its key, so that a second click creates nothing twice.
    if (sent.current.body !== body) sent.current = { body, key: randomKey() };
    try {
      const headers = { "Idempotency-Key": sent.current.key };
      const job = await json("train", { method: "POST", body: request, headers });
      notify(`${visible(job.name)} is submitted`);
      location.hash = runLink({ ...job, namespace: preview.value?.namespace || request.namespace || "default" });
    } catch (error) {
      refuse(error);
      notify(error.message, "bad");
      setSending(false);
    }
  };
  const replace = (given) => {
    refuse(null);
    touch({ all: true });
    change(formOf(given, schemaOf(frameworks, given.framework)));
  };
  return html`
    <div class="title"><h1>${clone ? "Clone of a run" : "New run"}</h1><${Import} replace=${replace} /></div>
    <form class="two" onSubmit=${submit} novalidate>
      <div>
        <div class="card field">
          <label for="framework">Framework</label>
          <select id="framework" value=${form.framework} onChange=${(event) => change({ ...form, framework: event.target.value })}>
            ${frameworks.map(({ name, summary }) => html`<option key=${name} value=${name}>${visible(name)}: ${visible(summary)}</option>`)}
          </select>
        </div>
        ${FIELDS.map((group) => html`<${Group} key=${group.title} title=${group.title} isOpen=${!group.isFolded}>
          ${group.fields.map((field) => html`<${Field} key=${field.name} field=${field} text=${form.fields[field.name] || ""}
            faults=${faults(`/${field.name}`)} change=${(text) => set(field.name, text)} />`)}
        <//>`)}
        <${Arguments} key=${form.framework} schema=${schema} form=${form} faults=${faults} set=${setArgument}
          setOthers=${(others) => change({ ...form, others })} />
      </div>
      <div class="preview">
        <${Preview} preview=${preview} refusal=${refusal} />
        <button class="primary" disabled=${isSending}>${isSending ? "Submitting…" : "Submit"}</button>
      </div>
    </form>`;
}

// The findings at a field. An empty field that nobody has touched is not yet wrong.
function faultsAt(error, pointer, touched) {
  const all = (error?.findings || []).filter((finding) => {
    const at = finding.pointer || "";
    return at === pointer || at.startsWith(`${pointer}/`);
  });
  const name = pointer.slice(1);
  const isField = !pointer.startsWith("/extra_args");
  return isField && !touched.all && !touched[name] ? [] : all;
}

function randomKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

function Group({ title, isOpen, children }) {
  return html`<details class="card" open=${isOpen}><summary>${title}</summary><div class="fields">${children}</div></details>`;
}

function Arguments({ schema, form, faults, set, setOthers }) {
  const [search, setSearch] = useState("");
  const groups = useMemo(() => argumentGroups(schema), [schema]);
  const found = groups.map((group) => ({ ...group, arguments: group.arguments.filter((of) => isMeant(of, search)) }));
  const shown = found.filter((group) => group.arguments.length > 0);
  const field = (argument) => html`<${ArgumentField} key=${argument.name} argument=${argument} text=${form.args[argument.name] || ""}
    faults=${faults(`/extra_args/${argument.name}`)} change=${(text) => set(argument.name, text)} />`;
  const known = new Set(groups.flatMap((group) => group.arguments.map(({ name }) => `/extra_args/${name}`)));
  const others = faults("/extra_args").filter(({ pointer }) => !known.has(pointer));
  return html`<section>
    <div class="filters"><h2>Arguments</h2>
      <input type="search" aria-label="Search arguments" placeholder="Search: name, alias or meaning" value=${search}
        onInput=${(event) => setSearch(event.target.value)} /></div>
    ${shown.map((group, at) => html`<${Group} key=${group.title} title=${`${group.title} (${group.arguments.length})`}
      isOpen=${at === 0 || search !== "" || group.arguments.some(({ name }) => form.args[name] || faults(`/extra_args/${name}`).length > 0)}>
      ${group.arguments.map(field)}<//>`)}
    ${shown.length === 0 && html`<p class="muted">No argument matches. Arguments that the framework does not list can go below.</p>`}
    <${Group} title="Other arguments" isOpen=${form.others !== "" || others.length > 0}>
      <${Field} field=${{ name: "others", title: "Arguments that are not listed", type: "map", hint: "A line each: name: value", wide: true }}
        text=${form.others} faults=${others} change=${setOthers} /><//>
  </section>`;
}

function Import({ replace }) {
  const [text, setText] = useState(null);
  const file = async (event) => setText(await event.target.files[0].text());
  const take = () => attempt(async () => {
    const given = read(text);
    if (given === null || typeof given !== "object" || Array.isArray(given)) throw new Error("A request is a mapping: framework, model_id, …");
    replace(given);
    setText(null);
  }, "The form has the values of the file");
  if (text === null) return html`<button onClick=${() => setText("")}>From a job.yaml</button>`;
  return html`<div class="card import">
    <label for="import">Paste a job.yaml or JSON request, or choose a file</label>
    <textarea id="import" value=${text} onInput=${(event) => setText(event.target.value)} autofocus></textarea>
    <div class="actions"><input type="file" aria-label="File" accept=".yaml,.yml,.json" onChange=${file} />
      <button class="primary" type="button" disabled=${!text.trim()} onClick=${take}>Fill the form</button>
      <button class="quiet" type="button" onClick=${() => setText(null)}>Cancel</button></div>
  </div>`;
}
