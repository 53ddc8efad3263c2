// Requests: out of a job that is there, and as text to take away.
import { json } from "./api.js";
import { write } from "./yaml.js";

const OWN = /^trainer\.deepfinery\/|^app\.kubernetes\.io\/managed-by$|^sidecar\.istio\.io\//;
const PROFILE = "trainer.deepfinery/profile";
// Names of variables that the service sets.
const SET_BY_SERVICE = /^(TRAINING_|HF_|FRAMEWORK$|MODEL_ID$|RUN_ID$|NUM_NODES$|GPUS_PER_NODE$|CHECKPOINT|LOGS_URI$|CONFIG_URI$|DATASET_URI$|RESUME_FROM_CHECKPOINT$|OVERWRITE|TOKENIZERS_PARALLELISM$|PYTHONUNBUFFERED$|PYTORCH_|NCCL_|TORCH_|OMP_|MASTER_|PET_|RANK$|WORLD_SIZE$|TRAINER_(?!LOG_LEVEL$))/;

// The request that a job was made from. The variables of the request are those that the same request
// without any would not have.
export async function requestOfJob(manifest, signal) {
  const request = ofManifest(manifest);
  const plain = await json("train/preview", { method: "POST", body: request, signal }).catch((error) => {
    if (error.name === "AbortError") throw error;
    return null;
  });
  const known = plain ? variablesOf(plain.manifest) : {};
  const isAdded = ([name, of]) => (plain && !(name in known)) || (of !== known[name] && !SET_BY_SERVICE.test(name));
  const added = Object.entries(variablesOf(manifest)).filter(isAdded);
  return withoutEmpty({ ...request, env: Object.fromEntries(added) });
}

// Everything of a request except its variables.
function ofManifest(manifest) {
  const container = containerOf(manifest);
  const env = new Map(Object.entries(variablesOf(manifest)));
  const command = [...(container.command || []), ...(container.args || [])].map(unescaped);
  const flag = (name) => {
    const at = command.indexOf(`--${name}`);
    return at < 0 ? undefined : command[at + 1];
  };
  const count = (name) => (env.has(name) ? Number(env.get(name)) : undefined);
  const limits = container.resources?.limits || {};
  const request = {
    framework: env.get("FRAMEWORK"),
    model_id: env.get("MODEL_ID"),
    run_id: env.get("RUN_ID"),
    checkpoint_base_uri: env.get("CHECKPOINT_BASE_URI"),
    dataset_uri: env.get("DATASET_URI"),
    namespace: manifest.metadata.namespace,
    num_nodes: count("NUM_NODES"),
    gpus_per_node: count("GPUS_PER_NODE"),
    cpus_per_node: Number(limits.cpu) || undefined,
    memory_per_node_gb: Number(/^(\d+)Gi$/.exec(limits.memory || "")?.[1]) || undefined,
    image: container.image,
    config_path: flag("config"),
    resume_from_checkpoint: env.get("RESUME_FROM_CHECKPOINT") === "true" || undefined,
    extra_args: parsed(env.get("TRAINING_EXTRA_ARGS_JSON")),
    labels: others(Object.entries(manifest.metadata.labels || {}), OWN),
    annotations: others(Object.entries(manifest.metadata.annotations || {}), OWN),
  };
  const profile = manifest.metadata.annotations?.[PROFILE];
  if (profile) request.annotations = { ...request.annotations, [PROFILE]: profile };
  return withoutEmpty(request);
}

// The trainer's container, of either kind of job.
function containerOf({ kind, spec }) {
  if (kind === "TrainJob") return { ...spec.trainer, resources: spec.trainer.resourcesPerNode };
  return spec.pytorchReplicaSpecs.Master.template.spec.containers[0];
}

function variablesOf(manifest) {
  const variables = containerOf(manifest).env || [];
  return Object.fromEntries(variables.map((variable) => [variable.name, valueOf(variable)]));
}

function valueOf({ value = "", valueFrom }) {
  const secret = valueFrom?.secretKeyRef;
  return secret ? { secret: secret.name, key: secret.key } : unescaped(value);
}

// A free name after that of a run: run-1 becomes run-2, demo becomes demo-2.
export function nextRunId(runId) {
  const [, stem, number] = /^(.*?)(\d{1,6})$/.exec(runId) || [];
  return number ? `${stem}${String(Number(number) + 1).padStart(number.length, "0")}` : `${runId}-2`;
}

export function withoutEmpty(request) {
  const isEmpty = (of) =>
    of === undefined || of === null || of === "" ||
    (typeof of === "object" && !Array.isArray(of) && Object.keys(of).length === 0);
  return Object.fromEntries(Object.entries(request).filter(([, of]) => !isEmpty(of)));
}

export function jobFile(request) {
  return write(request);
}

export function curl(request) {
  const body = JSON.stringify(request, null, 2).replaceAll("'", "'\\''");
  const token = sessionStorage.length > 0 ? ` \\\n  -H "X-TRAINER-TOKEN: $TRAINER_API_TOKEN"` : "";
  return `curl ${new URL("train", document.baseURI)} \\\n  -H 'Content-Type: application/json'${token} \\\n  -d '${body}'`;
}

// Kubernetes expands $(NAME); a dollar that is meant is doubled.
function unescaped(text) {
  return text.replaceAll("$$", "$");
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function others(entries, own) {
  return Object.fromEntries(entries.filter(([name]) => !own.test(name)));
}
