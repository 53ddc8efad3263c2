// The frameworks: their plugins, arguments and rules, the plugins that were refused, and the way back.
import { html, useMemo, useState } from "../lib/html.js";
import { json } from "../lib/api.js";
import { argumentGroups, isMeant } from "../lib/form.js";
import { value, visible } from "../lib/format.js";
import { Failure, attempt } from "../parts/notices.js";
import { useLoaded } from "../parts/load.js";

export function Frameworks({ name }) {
  const { value: loaded, error, reload } = useLoaded((signal) => json("frameworks", { signal }), []);
  if (error) return html`<h1>Frameworks</h1><${Failure} error=${error} retry=${reload} />`;
  if (!loaded) return html`<h1>Frameworks</h1><p class="muted">Loading…</p>`;
  const { frameworks, refused, default_image: image } = loaded;
  const chosen = frameworks.find((framework) => framework.name === name) || frameworks[0];
  return html`
    <h1>Frameworks</h1>
    ${refused.map((plugin) => html`<div class="failure" key=${plugin.source}>
      <strong>The plugin ${visible(plugin.source)} was refused.</strong>
      <p>${visible(plugin.reason)}</p>
      <p class="muted">${plugin.serving ? `Served in its place: ${visible(plugin.serving)}` : "Nothing is served in its place."}</p></div>`)}
    ${frameworks.length === 0 && html`<p class="empty">No framework is loaded. Put plugins into the plugin folder of the service.</p>`}
    <div class="tabs">${frameworks.map((framework) => html`<a key=${framework.name} class="button" href=${`#/frameworks/${encodeURIComponent(framework.name)}`}
      aria-current=${framework === chosen ? "page" : undefined}>${visible(framework.name)}</a>`)}</div>
    ${chosen && html`<${Framework} key=${chosen.name} framework=${chosen} reload=${reload} />`}
    ${image && html`<${Packages} image=${image} />`}`;
}

function Packages({ image }) {
  const packages = Object.entries(image.packages || {});
  return html`<section class="card"><h2>Default image</h2><p class="mono">${visible(image.image)}</p>
    ${packages.length === 0 && html`<p class="muted">Its packages are not known.</p>`}
    ${packages.length > 0 && html`<details><summary>${packages.length} packages</summary>
      <p class="mono">${visible(packages.map(([name, version]) => (version ? `${name}==${version}` : name)).join(" "))}</p></details>`}
  </section>`;
}

function Framework({ framework, reload }) {
  const { name, version, digest, source, summary, args_schema: schema } = framework;
  const rollBack = async () => {
    if (!confirm(`Serve the version of ${visible(name)} that was served before ${visible(version)}?`)) return;
    await attempt(() => json(`frameworks/${encodeURIComponent(name)}/rollback`, { method: "POST" }), `${visible(name)} is rolled back`);
    reload();
  };
  return html`
    <section class="card">
      <div class="title"><h2>${visible(name)} ${visible(version)}</h2><button onClick=${rollBack}>Roll back</button></div>
      <p>${visible(summary)}</p>
      <dl class="facts"><dt>Source</dt><dd class="mono">${visible(source)}</dd><dt>Digest</dt><dd class="mono">${visible(digest)}</dd></dl>
      ${framework.out_of_service_seconds && html`<p class="bad">Out of service for ${framework.out_of_service_seconds} s more, because it kept failing.</p>`}
    </section>
    <${Arguments} schema=${schema} />
    <${Rules} rules=${schema["x-checks"] || []} />`;
}

function Arguments({ schema }) {
  const [search, setSearch] = useState("");
  const groups = useMemo(() => argumentGroups(schema), [schema]);
  const all = groups.flatMap((group) => group.arguments).filter((argument) => isMeant(argument, search));
  return html`<section class="card">
    <div class="filters"><h2>Arguments</h2>
      <input type="search" aria-label="Search arguments" placeholder="Search: name, alias or meaning" value=${search} onInput=${(event) => setSearch(event.target.value)} /></div>
    <div class="scroll"><table><thead><tr><th>Argument</th><th>Takes</th><th>Default</th><th>Meaning</th></tr></thead>
      <tbody>${all.map(({ name, schema: of }) => html`<tr key=${name}>
        <td class="mono">${visible(name)}${(of["x-aliases"] || []).length > 0 && html`<span class="muted below">${visible(of["x-aliases"].join(", "))}</span>`}</td>
        <td>${visible(taken(of))}</td><td class="mono">${visible(of.default === undefined ? of["x-default"] || "–" : value(of.default))}</td>
        <td>${visible(of.description || "")}${of["x-native"] && html`<span class="muted below">${visible(of["x-native"])}</span>`}</td></tr>`)}</tbody></table></div>
  </section>`;
}

function taken(schema) {
  if (schema.enum) return schema.enum.map(value).join(", ");
  const range = [schema.minimum ?? schema.exclusiveMinimum, schema.maximum ?? schema.exclusiveMaximum];
  const bounds = range.some((bound) => bound !== undefined) ? ` ${range.map((bound) => bound ?? "").join(" to ")}` : "";
  return `${[schema.type].flat().join(" or ")}${bounds} ${schema["x-unit"] || ""}`.trim();
}

function Rules({ rules }) {
  if (rules.length === 0) return null;
  return html`<section class="card"><h2>Rules</h2>
    <div class="scroll"><table><thead><tr><th>Code</th><th>Effect</th><th>Rule</th><th>From</th></tr></thead>
      <tbody>${rules.map((rule) => html`<tr key=${rule.code}><td class="mono">${visible(rule.code)}</td>
        <td>${visible(rule.effect || "")}</td><td>${visible(rule.about || "")}</td><td>${visible(rule.source || "")}</td></tr>`)}</tbody></table></div>
  </section>`;
}
