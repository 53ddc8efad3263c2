// The form of a request: its fields and arguments as text, and the request that they make.
import { withoutEmpty } from "./request.js";
import { read, write } from "./yaml.js";

// Fields of a request, by group. Arguments come from the framework's schema.
export const FIELDS = [
  { title: "Run", fields: [
    { name: "run_id", title: "Run id", required: true, hint: "Names the run: letters, digits, . _ and -" },
    { name: "model_id", title: "Model", required: true, hint: "Name of the model, or a path" },
    { name: "dataset_uri", title: "Dataset", required: true, hint: "URI; a trailing slash marks a folder", wide: true },
    { name: "checkpoint_base_uri", title: "Checkpoints", required: true, hint: "URI of a bucket or folder; the run writes to <base>/<run id>/…", wide: true },
  ] },
  { title: "Machines", fields: [
    { name: "num_nodes", title: "Nodes", type: "integer", placeholder: "1", unit: "replicas" },
    { name: "gpus_per_node", title: "GPUs per node", type: "integer", placeholder: "1", hint: "0 for a CPU job" },
    { name: "cpus_per_node", title: "CPUs per node", type: "integer", placeholder: "the service's default" },
    { name: "memory_per_node_gb", title: "Memory per node", type: "integer", placeholder: "the service's default", unit: "GiB" },
  ] },
  { title: "More", isFolded: true, fields: [
    { name: "resume_from_checkpoint", title: "Resume from checkpoint", type: "boolean", placeholder: "false" },
    { name: "overwrite", title: "Overwrite", type: "boolean", placeholder: "false", hint: "Replaces the checkpoints of an earlier run" },
    { name: "namespace", title: "Namespace", placeholder: "the service's own" },
    { name: "job_name", title: "Job name", placeholder: "from framework and run id" },
    { name: "image", title: "Image", placeholder: "the service's default" },
    { name: "config_path", title: "Configuration file", placeholder: "none" },
    { name: "env", title: "Environment", type: "map", hint: "A line each: NAME: value", wide: true },
    { name: "labels", title: "Labels", type: "map", hint: "A line each: name: value", wide: true },
    { name: "annotations", title: "Annotations", type: "map", hint: "A line each: name: value", wide: true },
  ] },
];

// The titles of the groups in the order of the page. An argument is in the first one of `GROUP_NAMES`
// that its name fits.
const GROUPS = ["Training", "Data", "Parallelism", "Fine-tuning", "Speed and memory", "Saving and reporting", "Other"];
const GROUP_NAMES = [
  ["Speed and memory", /(precision|float8|fp8|compile|offload|activation|gradient_checkpointing|bwd|attn|kernel)/],
  ["Training", /^(lr|learning|num_epochs|max_steps|batch|global_batch|micro_batch|gradient_acc|warmup|weight_decay|max_grad|seed|optim|.*scheduler|min_lr|adam|beta)/],
  ["Data", /(dataset|data_|dataloader|tokenizer|packing|seq_len|max_seq|text_field|chat|template|assistant)/],
  ["Parallelism", /(parallel|shard|replicate|pipeline|fsdp|deepspeed|zero|expert|context)/],
  ["Fine-tuning", /(lora|peft|adapter|quant)/],
  ["Saving and reporting", /(save|checkpoint|eval|logging|report|load_path|resume)/],
];

export const emptyForm = () => ({ framework: "", fields: {}, args: {}, others: "" });

// The arguments of a schema in groups, in the order of the framework's table.
export function argumentGroups(schema) {
  const all = Object.entries(schema?.properties || {}).map(([name, of]) => ({ name, schema: of }));
  all.sort((one, other) => (one.schema["x-order"] ?? 0) - (other.schema["x-order"] ?? 0));
  const groups = new Map(GROUPS.map((title) => [title, []]));
  for (const argument of all) {
    const [title] = GROUP_NAMES.find(([, names]) => names.test(argument.name)) || ["Other"];
    groups.get(title).push(argument);
  }
  return [...groups].filter(([, list]) => list.length > 0).map(([title, list]) => ({ title, arguments: list }));
}

// Whether an argument is meant by a search: by name, alias or description.
export function isMeant({ name, schema }, search) {
  const all = [name, schema.title, schema.description, schema["x-native"], ...(schema["x-aliases"] || [])];
  const words = search.toLowerCase().split(/\s+/).filter(Boolean);
  const text = all.filter(Boolean).join(" ").toLowerCase();
  return words.every((word) => text.includes(word) || text.replaceAll("_", " ").includes(word));
}

export function requestOf(form, schema) {
  const fields = FIELDS.flatMap((group) => group.fields);
  const request = { framework: form.framework };
  for (const { name, type } of fields) request[name] = parsed(form.fields[name], type);
  // Variables and labels are text, whatever they look like.
  for (const name of ["env", "labels", "annotations"]) request[name] = asStrings(request[name]);
  const given = Object.entries(form.args).map(([name, text]) => [name, parsed(text, typeOf(schema?.properties?.[name]))]);
  const others = parsed(form.others, "map");
  request.extra_args = withoutEmpty({ ...Object.fromEntries(given), ...(typeof others === "object" ? others : {}) });
  return withoutEmpty(request);
}

export function formOf(request, schema) {
  const { framework = "", extra_args: given, ...rest } = request;
  const fields = Object.fromEntries(Object.entries(rest).map(([name, of]) => [name, asText(of)]));
  const form = { framework: String(framework), fields, args: {}, others: "" };
  const others = {};
  for (const [name, of] of Object.entries(given || {})) {
    const known = argumentNamed(schema, name);
    if (known && !(known in form.args)) form.args[known] = asText(of);
    else others[name] = of;
  }
  form.others = write(others).trimEnd();
  return form;
}

function argumentNamed(schema, name) {
  const properties = Object.entries(schema?.properties || {});
  const found = properties.find(([known, of]) => known === name || (of["x-aliases"] || []).includes(name));
  return found?.[0];
}

export function typeOf(schema) {
  if (!schema) return "any";
  if (schema.enum) return "choice";
  return Array.isArray(schema.type) ? schema.type.find((type) => type !== "null") : schema.type || "any";
}

// What of the text of a value does not read as one; nothing where it does.
export function unreadable(text, type) {
  if (type !== "map" || !text) return null;
  try {
    const map = read(text);
    return map === null || (typeof map === "object" && !Array.isArray(map)) ? null : "a line each: name: value";
  } catch (error) {
    return error.message;
  }
}

function parsed(text, type) {
  if (text === undefined || text === "") return undefined;
  if (type === "map") return unreadable(text, type) === null ? read(text) ?? undefined : text;
  if (type === "string") return text;
  if (type === "array") return text.trim().startsWith("[") ? parsedJson(text) : text.split(",").map((item) => item.trim());
  if (type === "choice" || type === "object") return parsedJson(text);
  return parsedJson(text.trim());
}

function asStrings(map) {
  if (map === undefined || typeof map !== "object") return map;
  const isText = (of) => typeof of === "string" || isSecretKey(of);
  return Object.fromEntries(Object.entries(map).map(([name, of]) => [name, isText(of) ? of : JSON.stringify(of)]));
}

// Whether a variable of the environment is a key of a secret.
const isSecretKey = (of) => typeof of?.secret === "string" && typeof of.key === "string";

function parsedJson(text) {
  try {
    return JSON.parse(text);
  } catch {
    return /^[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$/i.test(text) ? Number(text) : text;
  }
}

function asText(value) {
  if (typeof value === "string") return value;
  if (value !== null && typeof value === "object" && !Array.isArray(value)) return write(value).trimEnd();
  return JSON.stringify(value);
}
