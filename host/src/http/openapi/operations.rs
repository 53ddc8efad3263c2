//! The operations of the API, one entry each.

pub mod descriptions;
mod operation;
mod parameters;

pub use operation::{Answer, Body, Operation};
pub use parameters::{PARAMETERS, Parameter, Place, Value};

use operation::{answer, of_job, of_service};

/// Points of a series where `points` is left out.
pub const DEFAULT_POINTS: u64 = 500;

const SUMMARY: &[(&str, &str)] = &[("application/json", "JobSummary"), ("application/yaml", "")];
const UNCHANGED: Answer = answer(304, "Not modified", &[]);

/// Finds an operation by method (in any case) and route.
pub fn of(method: &str, path: &str) -> Option<&'static Operation> {
    let mut operations = OPERATIONS.iter();
    operations.find(|known| known.path == path && known.method.eq_ignore_ascii_case(method))
}

pub const OPERATIONS: &[Operation] = &[
    Operation {
        body: Body::Request,
        problems: &[413, 415, 422],
        ..of_job(
            "post",
            "/train",
            "createJob",
            "Submit a training job",
            &["Idempotency-Key"],
            &[answer(
                201,
                "Job created",
                &[("application/json", "JobSummary")],
            )],
        )
    },
    of_job(
        "get",
        "/train",
        "listJobs",
        "List jobs, newest first",
        &[
            "framework",
            "status",
            "namespace",
            "owner",
            "label_selector",
            "page_size",
            "page_token",
            "progress",
            "If-None-Match",
        ],
        &[
            answer(
                200,
                "A page of jobs",
                &[("application/json", "JobPage"), ("application/yaml", "")],
            ),
            UNCHANGED,
        ],
    ),
    Operation {
        body: Body::Request,
        problems: &[413, 415],
        ..of_job(
            "post",
            "/train/preview",
            "previewJob",
            "Preview a job without creating it",
            &["dry_run"],
            &[answer(
                200,
                "The preview",
                &[("application/json", "Preview"), ("application/yaml", "")],
            )],
        )
    },
    of_job(
        "get",
        "/train/{job_name}",
        "getJob",
        "The status of a job",
        &["namespace", "view", "If-None-Match"],
        &[
            answer(
                200,
                "The job's status; with view=full all details",
                &[
                    ("application/json", "JobDetails|JobSummary"),
                    ("application/yaml", ""),
                ],
            ),
            UNCHANGED,
        ],
    ),
    of_job(
        "delete",
        "/train/{job_name}",
        "deleteJob",
        "Delete a job; checkpoints are kept",
        &["namespace"],
        &[answer(204, "Job deleted", &[])],
    ),
    of_job(
        "post",
        "/train/{job_name}/suspend",
        "suspendJob",
        "Stop the replicas of a job, but keep the job",
        &["namespace"],
        &[answer(200, "Job suspended", SUMMARY)],
    ),
    of_job(
        "post",
        "/train/{job_name}/resume",
        "resumeJob",
        "Resume a suspended job",
        &["namespace"],
        &[answer(200, "Job resumed", SUMMARY)],
    ),
    of_job(
        "get",
        "/train/{job_name}/manifest",
        "getJobManifest",
        "The PyTorchJob in the cluster",
        &["namespace", "If-None-Match"],
        &[
            answer(
                200,
                "The PyTorchJob",
                &[("application/json", "object"), ("application/yaml", "")],
            ),
            UNCHANGED,
        ],
    ),
    of_job(
        "get",
        "/train/{job_name}/request",
        "getJobRequest",
        "The request that a job was made from",
        &["namespace", "If-None-Match"],
        &[
            answer(
                200,
                "The request, with defaults filled in",
                &[
                    ("application/json", "TrainingJobRequest"),
                    ("application/yaml", ""),
                ],
            ),
            UNCHANGED,
        ],
    ),
    of_job(
        "get",
        "/train/{job_name}/logs",
        "getJobLogs",
        "The logs of a job's replicas",
        &[
            "namespace",
            "replica",
            "follow",
            "tail",
            "since",
            "previous",
            "timestamps",
        ],
        &[answer(200, "Text", &[("text/plain", "log")])],
    ),
    of_job(
        "get",
        "/train/{job_name}/metrics",
        "getJobMetrics",
        "Loss, learning rate and throughput of a run over its steps",
        &["namespace", "points", "follow", "If-None-Match"],
        &[
            answer(
                200,
                "The series; with follow=true server-sent events `metrics`, each with new points, \
                 and `end`",
                &[
                    ("application/json", "Metrics"),
                    ("application/yaml", ""),
                    ("text/csv", "csv"),
                    ("text/event-stream", "metrics-event"),
                ],
            ),
            UNCHANGED,
        ],
    ),
    of_job(
        "get",
        "/train/{job_name}/events",
        "followJob",
        "Status changes of a job until it finishes, as server-sent events",
        &["namespace", "Last-Event-ID"],
        &[
            answer(
                200,
                "Events `status`, and `deleted`",
                &[("text/event-stream", "event")],
            ),
            answer(
                204,
                "The job has finished, and there are no further events",
                &[],
            ),
        ],
    ),
    of_job(
        "get",
        "/events",
        "followJobs",
        "Each change of each job that the caller may see, as server-sent events",
        &["Last-Event-ID"],
        &[answer(
            200,
            "Events `reset`, then `status` (a `JobUpdate`) for each job, then `synced`; from then on \
             `status`, `progress` (a `JobProgress`) and `deleted` (a `DeletedJob`)",
            &[("text/event-stream", "feed-event")],
        )],
    ),
    Operation {
        tag: "frameworks",
        ..of_job(
            "get",
            "/frameworks",
            "listFrameworks",
            "The loaded frameworks",
            &["If-None-Match"],
            &[
                answer(
                    200,
                    "The frameworks",
                    &[("application/json", "Frameworks"), ("application/yaml", "")],
                ),
                UNCHANGED,
            ],
        )
    },
    Operation {
        tag: "frameworks",
        ..of_job(
            "get",
            "/frameworks/{name}",
            "getFramework",
            "One framework",
            &["If-None-Match"],
            &[
                answer(
                    200,
                    "The framework",
                    &[("application/json", "Framework"), ("application/yaml", "")],
                ),
                UNCHANGED,
            ],
        )
    },
    Operation {
        tag: "frameworks",
        problems: &[409],
        ..of_job(
            "post",
            "/frameworks/{name}/rollback",
            "rollBackFramework",
            "Roll back a framework to the previously served version of its plugin",
            &[],
            &[answer(
                200,
                "The framework after the rollback",
                &[("application/json", "Framework"), ("application/yaml", "")],
            )],
        )
    },
    Operation {
        tag: "frameworks",
        ..of_job(
            "post",
            "/frameworks/reload",
            "reload",
            "Look at all plugins again, those that were refused too",
            &[],
            &[answer(
                200,
                "What is served now, and what is refused",
                &[("application/json", "object"), ("application/yaml", "")],
            )],
        )
    },
    Operation {
        tag: "service",
        ..of_job(
            "get",
            "/whoami",
            "whoAmI",
            "The caller, its roles and its namespaces",
            &["If-None-Match"],
            &[
                answer(
                    200,
                    "The caller",
                    &[("application/json", "WhoAmI"), ("application/yaml", "")],
                ),
                UNCHANGED,
            ],
        )
    },
    of_service(
        "/metrics",
        "getMetrics",
        "Metrics in Prometheus format",
        &[answer(200, "Text", &[("text/plain", "")])],
    ),
    of_service(
        "/healthz",
        "getHealth",
        "Liveness",
        &[answer(200, "Alive", &[("application/json", "object")])],
    ),
    of_service(
        "/livez",
        "getLiveness",
        "Liveness",
        &[answer(200, "Alive", &[("text/plain", "")])],
    ),
    Operation {
        parameters: &["verbose"],
        ..of_service(
            "/readyz",
            "getReadiness",
            "Readiness",
            &[
                answer(
                    200,
                    "Ready; with verbose=true all checks",
                    &[("text/plain", ""), ("application/json", "object")],
                ),
                answer(
                    503,
                    "Not ready; with verbose=true all checks",
                    &[("text/plain", ""), ("application/json", "object")],
                ),
            ],
        )
    },
    of_service(
        "/openapi.json",
        "getOpenapi",
        "This document",
        &[answer(
            200,
            "OpenAPI 3.1",
            &[("application/json", "object")],
        )],
    ),
    of_service(
        "/docs",
        "getDocs",
        "This document as a web page",
        &[answer(200, "A page", &[("text/html", "")])],
    ),
];
