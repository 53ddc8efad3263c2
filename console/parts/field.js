// One field of the form.
import { html } from "../lib/html.js";
import { value, visible } from "../lib/format.js";
import { typeOf, unreadable } from "../lib/form.js";

export function Field({ field, text, faults, change }) {
  const id = `field-${field.name}`;
  const problem = unreadable(text, field.type);
  const problems = [...faults.map((fault) => fault.detail), ...(problem ? [problem] : [])];
  const described = `${id}-hint${problems.length > 0 ? ` ${id}-fault` : ""}`;
  const common = {
    id, name: field.name, value: text, "aria-describedby": described, "aria-invalid": problems.length > 0 ? "true" : undefined,
  };
  const input = (event) => change(event.target.value);
  return html`<div class=${`field ${field.wide ? "wide" : ""}`}>
    <label for=${id}>${field.title}${field.required && html`<span aria-hidden="true"> *</span>`}${field.unit && html` <span class="muted">(${field.unit})</span>`}</label>
    ${control(field, common, input)}
    ${problems.map((why) => html`<p class="fault" key=${why} id=${`${id}-fault`}>${visible(why)}</p>`)}
    <p class="hint" id=${`${id}-hint`}>${field.hint || ""}</p>
  </div>`;
}

function control(field, common, input) {
  const { placeholder = "", required } = field;
  if (field.choices || field.type === "boolean") {
    const choices = field.choices || ["true", "false"];
    return html`<select ...${common} onChange=${input}>
      <option value="">${placeholder ? `default: ${placeholder}` : "not set"}</option>
      ${choices.map((choice) => html`<option key=${choice} value=${choice}>${visible(choice)}</option>`)}
      ${common.value && !choices.includes(common.value) && html`<option value=${common.value}>${visible(common.value)}</option>`}
    </select>`;
  }
  if (field.type === "map") return html`<textarea ...${common} spellcheck=${false} onInput=${input}></textarea>`;
  const mode = field.type === "integer" ? "numeric" : field.type === "number" ? "decimal" : "text";
  return html`<input ...${common} required=${required} placeholder=${placeholder} inputmode=${mode} autocomplete="off"
    spellcheck=${false} onInput=${input} />`;
}

// A field that a schema describes.
export function ArgumentField({ argument, text, faults, change }) {
  const { name, schema } = argument;
  const type = typeOf(schema);
  const byDefault = schema.default === undefined ? schema["x-default"] : value(schema.default);
  const example = (schema.examples || [])[0];
  const field = {
    name: `arg-${name}`,
    title: name,
    type,
    unit: schema["x-unit"],
    placeholder: byDefault ?? (example === undefined ? "" : `e.g. ${value(example)}`),
    choices: schema.enum && [...new Set(schema.enum.map((choice) => value(choice)))],
    hint: [schema.description, range(schema), aliases(schema)].filter(Boolean).join(". "),
  };
  return html`<${Field} field=${field} text=${text} faults=${faults} change=${change} />`;
}

function range(schema) {
  const { minimum, maximum, exclusiveMinimum: above, exclusiveMaximum: under } = schema;
  const least = minimum !== undefined ? `From ${minimum}` : above !== undefined ? `Above ${above}` : "";
  const most = maximum !== undefined ? `to ${maximum}` : under !== undefined ? `below ${under}` : "";
  return [least, most].filter(Boolean).join(" ");
}

function aliases(schema) {
  const names = schema["x-aliases"] || [];
  return names.length > 0 ? `Also: ${names.slice(0, 4).join(", ")}` : "";
}
