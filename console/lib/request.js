// Requests: out of a job that is there, and as text to take away.
import { write } from "./yaml.js";

const OWN = /^trainer\.deepfinery\/|^app\.kubernetes\.io\/managed-by$|^sidecar\.istio\.io\//;
const PROFILE = "trainer.deepfinery/profile";
const SET_BY_SERVICE = /^(TRAINING_|HF_|FRAMEWORK$|MODEL_ID$|RUN_ID$|NUM_NODES$|GPUS_PER_NODE$|CHECKPOINT|LOGS_URI$|CONFIG_URI$|DATASET_URI$|RESUME_FROM_CHECKPOINT$|OVERWRITE|TOKENIZERS_PARALLELISM$|PYTORCH_|NCCL_|TORCH_|OMP_|MASTER_|PET_|RANK$|WORLD_SIZE$|TRAINER_(?!LOG_LEVEL$))/;

// What was asked for, out of the manifest that became of it.
export function ofManifest(manifest) {
  const pod = manifest.spec.pytorchReplicaSpecs.Master.template;
  const container = pod.spec.containers[0];
  const env = new Map((container.env || []).map(({ name, value = "" }) => [name, unescaped(value)]));
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
    extra_args: json(env.get("TRAINING_EXTRA_ARGS_JSON")),
    env: others([...env].filter(([name, text]) => !(name === "TRAINER_LOG_LEVEL" && text === "INFO")), SET_BY_SERVICE),
    labels: others(Object.entries(manifest.metadata.labels || {}), OWN),
    annotations: others(Object.entries(manifest.metadata.annotations || {}), OWN),
  };
  const profile = manifest.metadata.annotations?.[PROFILE];
  if (profile) request.annotations = { ...request.annotations, [PROFILE]: profile };
  return withoutEmpty(request);
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

function json(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function others(entries, own) {
  return Object.fromEntries(entries.filter(([name]) => !own.test(name)));
}
