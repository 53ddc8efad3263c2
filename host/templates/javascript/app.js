// The launch of a training job with `{{name}}`: command, environment and checkpoint layout.
//
// The host calls `describe` once and `plan` for each job. Each call runs in a fresh instance without
// files, network or clock, and keeps no state for later calls.

// The arguments of this framework as JSON Schema. The host validates each request against it.
const ARGUMENTS = {
  lr: {
    type: "number",
    exclusiveMinimum: 0,
    description: "Learning rate",
    default: 0.00002,
  },
  max_steps: {
    type: "integer",
    minimum: 1,
    description: "Number of optimizer steps",
  },
};

const SCHEMA = { type: "object", properties: ARGUMENTS, additionalProperties: false };

export const framework = {
  describe() {
    return {
      name: "{{name}}",
      version: "0.1.0",
      summary: "{{name}}: describe here what it launches",
      argsSchema: JSON.stringify(SCHEMA),
    };
  },

  plan(job) {
    const given = JSON.parse(job.extraArgs);
    refuse(job, given);
    const settings = { ...defaults(), ...given };
    const layout = layoutOf(job);
    return {
      command: command(job, settings, layout),
      environment: [{ name: "TOKENIZERS_PARALLELISM", value: literal("false") }],
      layout,
      resolvedArgs: JSON.stringify(settings),
      warnings: [],
      extensions: "{}",
    };
  },
};

// Checks rules that a schema cannot express. Each finding has a code and a sentence. To refuse a job,
// throw the list of findings.
function refuse(job, given) {
  if (job.numNodes > 1 && !("max_steps" in given)) {
    const detail = "max_steps: required for more than one node";
    throw [{ code: "R01", pointer: "/extra_args/max_steps", detail }];
  }
}

function defaults() {
  const known = Object.entries(ARGUMENTS).filter(([, argument]) => "default" in argument);
  return Object.fromEntries(known.map(([name, argument]) => [name, argument.default]));
}

// The words of the command, run without a shell. A template can refer to pod variables.
function command(job, settings, layout) {
  const options = {
    framework: job.framework,
    "run-id": job.runId,
    "model-id": job.modelId,
    "dataset-uri": job.datasetUri,
    "checkpoint-prefix": layout.prefix,
    ...settings,
  };
  return [
    literal("torchrun"),
    literal(`--nnodes=${job.numNodes}`),
    literal(`--nproc_per_node=${Math.max(job.gpusPerNode, 1)}`),
    template("--node_rank=$(RANK)"),
    template("--master_addr=$(MASTER_ADDR)"),
    template("--master_port=$(MASTER_PORT)"),
    literal("train.py"),
    ...Object.entries(options).flatMap(([name, value]) => [
      literal(`--${name}`),
      literal(String(value)),
    ]),
  ];
}

function layoutOf(job) {
  const prefix = `${job.checkpointBaseUri}/${job.runId}/framework=${job.framework}`;
  return {
    prefix,
    checkpointsUri: `${prefix}/checkpoints`,
    logsUri: `${prefix}/logs`,
    configUri: `${prefix}/config`,
    runConfigUri: `${prefix}/config/run.json`,
    stepPattern: "step-{:06}",
  };
}

function literal(val) {
  return { tag: "literal", val };
}

function template(val) {
  return { tag: "template", val };
}
