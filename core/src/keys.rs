//! Names and codes that jobs use: the container, labels, annotations, variables and exit codes.

/// Whether `train.py` resumes.
pub const RESUME_VARIABLE: &str = "RESUME_FROM_CHECKPOINT";
/// The container's name, which the training operator's webhook requires.
pub const CONTAINER: &str = "pytorch";
/// The container's name in a TrainJob, and the name of the JobSet's Job. Kubeflow Trainer requires
/// both.
pub const NODE: &str = "node";
/// Own annotation: the call that created the job. It shows whether a creation whose response was
/// lost was ours; two equal requests are two calls. The pods of a TrainJob have it too.
pub const SUBMISSION_ANNOTATION: &str = "trainer.deepfinery/submission";
/// Kueue's label for the local queue that a job waits in.
pub const QUEUE_LABEL: &str = "kueue.x-k8s.io/queue-name";
/// Kueue's label for the priority of a job in its queue.
pub const PRIORITY_CLASS_LABEL: &str = "kueue.x-k8s.io/priority-class";
/// Own annotation: a user has suspended the job, which would otherwise wait in its queue.
pub const HELD_ANNOTATION: &str = "trainer.deepfinery/held";
/// Own label: the framework of the job.
pub const FRAMEWORK_LABEL: &str = "trainer.deepfinery/framework";
/// Own label: the run id of the job.
pub const RUN_ID_LABEL: &str = "trainer.deepfinery/run-id";
/// Own annotations: further properties of a job. Models and URIs are not valid label values.
pub const MODEL_ID_ANNOTATION: &str = "trainer.deepfinery/model-id";
pub const DATASET_URI_ANNOTATION: &str = "trainer.deepfinery/dataset-uri";
pub const CHECKPOINT_PREFIX_ANNOTATION: &str = "trainer.deepfinery/checkpoint-prefix";
/// The whole layout, as JSON.
pub const CHECKPOINT_LAYOUT_ANNOTATION: &str = "trainer.deepfinery/checkpoint-layout";
pub const PLUGIN_ANNOTATION: &str = "trainer.deepfinery/plugin";
pub const PLUGIN_VERSION_ANNOTATION: &str = "trainer.deepfinery/plugin-version";
pub const PLUGIN_DIGEST_ANNOTATION: &str = "trainer.deepfinery/plugin-digest";
/// The arguments of the framework with all defaults and derived values, as JSON.
pub const RESOLVED_ARGS_ANNOTATION: &str = "trainer.deepfinery/resolved-args";
/// The warnings of the submission, as JSON.
pub const WARNINGS_ANNOTATION: &str = "trainer.deepfinery/warnings";
/// Own label: the hash of the client's idempotency key, by which the job is found.
pub const IDEMPOTENCY_LABEL: &str = "trainer.deepfinery/idempotency-key";
/// Own annotation: the hash of the request that came with the key.
pub const REQUEST_HASH_ANNOTATION: &str = "trainer.deepfinery/request-hash";
/// Own label: the caller that submitted the job, or a hash of its name.
pub const OWNER_LABEL: &str = "trainer.deepfinery/owner";
/// Own annotation: the name of that caller.
pub const OWNER_ANNOTATION: &str = "trainer.deepfinery/owner";
/// Own annotation: the metrics of the run, for when its log is gone.
pub const METRICS_ANNOTATION: &str = "trainer.deepfinery/metrics";
/// Own annotation: the GPUs of each node, for limits of all jobs together.
pub const GPUS_PER_NODE_ANNOTATION: &str = "trainer.deepfinery/gpus-per-node";

/// The exit codes after which a restart cannot help: `EX_CONFIG` of sysexits.h, with which `train.py`
/// says so, and those of a shell for a program that cannot be executed or found.
pub const PERMANENT_EXIT_CODES: [i32; 3] = [78, 126, 127];
