//! The descriptions of the operations.

/// By operation id.
const DESCRIPTIONS: &[(&str, &str)] = &[
    (
        "createJob",
        "Validates the request, asks the framework's plugin for the command and the environment, and \
         creates the job. If the request is invalid, the response lists all findings at once, each \
         with a pointer to its field, and nothing is created. Warnings are in `Warning` headers and \
         in `detail`. To be able to repeat a submission safely, send an `Idempotency-Key`.",
    ),
    (
        "listJobs",
        "A page of the jobs that the caller may see. `next_page_token` is absent on the last page; it \
         is only valid with the filters that it was created with.",
    ),
    (
        "previewJob",
        "Does everything that a submission does, except for creating the job. The response has the \
         command, the environment, the arguments including their defaults, the checkpoint layout and \
         the manifest and, where they are known, the parallel plan and an estimate of GPU memory. \
         With `Accept: application/yaml`, it is the manifest alone.",
    ),
    (
        "getJob",
        "Without `namespace`, the job is also found in another namespace if only one has a job of \
         this name; `Content-Location` names it. With `view=full`, the response explains why the job \
         waits or failed, and has its conditions, replicas, pods, events and checkpoint layout.",
    ),
    (
        "deleteJob",
        "Deletes the job, its replicas and their logs, and keeps its checkpoints in the object store.",
    ),
    (
        "suspendJob",
        "Stops the replicas and keeps the job. `train.py` saves a checkpoint when it receives \
         SIGTERM. A suspended job keeps its checkpoint prefix.",
    ),
    (
        "resumeJob",
        "Starts the replicas again. They continue from the newest checkpoint. A job with a queue \
         waits for its turn.",
    ),
    (
        "getJobManifest",
        "The object as the cluster stores it: a PyTorchJob, or a TrainJob where the service creates \
         TrainJobs.",
    ),
    (
        "getJobRequest",
        "To start a similar job, change the `run_id` and send it to `POST /train`. The service reads the \
         request from the manifest, and asks the plugin which variables are its own. If the service no \
         longer accepts such a request, the response is the error of a submission.",
    ),
    (
        "getJobLogs",
        "The output of the first replica, or of those in `replica`. With several, each line starts \
         with the name of its replica in brackets. With `follow`, the response is a stream that ends \
         with the job. If it is cut off before, the connection fails with an error, so that a part \
         cannot be mistaken for the whole log.",
    ),
    (
        "getJobMetrics",
        "The values that the trainer reported in its log, over all attempts of the run. A longer \
         series is downsampled to `points`: each interval keeps its first, last, lowest and highest \
         point. A curve outlives the pods of its job.",
    ),
    (
        "followJob",
        "The current status comes first. To continue after an interruption, send the `id` of the last \
         event as `Last-Event-ID`. The stream ends with the job.",
    ),
    (
        "followJobs",
        "All jobs come first, between `reset` and `synced`. To continue after an interruption, send \
         the `id` of the last event as `Last-Event-ID`. The stream then starts with the changes since \
         that event, or with `reset` if the service no longer has them.",
    ),
    (
        "listFrameworks",
        "The loaded plugins with the JSON Schema of their arguments, the sources whose plugin was \
         refused, and the image of jobs that name none.",
    ),
    (
        "getFramework",
        "The plugin that is served for a framework, with the JSON Schema of `extra_args`. The schema \
         has titles, units, groups, defaults and examples, from which a form can be built.",
    ),
    (
        "rollBackFramework",
        "Serves the version of the plugin that was served before the current one. Needs the role \
         `admin`.",
    ),
    (
        "reload",
        "The service reloads a plugin on its own when its source changes. This operation looks at all \
         sources at once, including those whose plugin was refused. Needs the role `admin`.",
    ),
    (
        "whoAmI",
        "The name of the token or user, and its roles by namespace. Without an access file, a service \
         has one caller that may do everything.",
    ),
    (
        "getMetrics",
        "The metrics of the service itself. Those of a run are at `/train/{job_name}/metrics`.",
    ),
    (
        "getHealth",
        "Answers whenever the process can answer at all, in JSON.",
    ),
    (
        "getLiveness",
        "Answers whenever the process can answer at all. For the liveness probe of Kubernetes.",
    ),
    (
        "getReadiness",
        "Whether a framework is loaded, the cluster can be reached, and the service is not shutting \
         down. `verbose` returns each check with its state.",
    ),
    (
        "getOpenapi",
        "The examples of requests are for the loaded frameworks.",
    ),
    (
        "getDocs",
        "A page without scripts. The console has an interactive reference at `/#/api`.",
    ),
];

/// The description of an operation, in Markdown.
pub fn of(id: &str) -> &'static str {
    let found = DESCRIPTIONS.iter().find(|(known, _)| *known == id);
    found.map_or("", |(_, description)| description)
}
