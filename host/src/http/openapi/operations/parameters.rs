//! The parameters that operations accept.

use super::DEFAULT_POINTS;

/// A parameter of an operation.
pub struct Parameter {
    pub name: &'static str,
    pub place: Place,
    pub description: &'static str,
    pub value: Value,
}

/// Where a parameter is in the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Path,
    Query,
    Header,
}

/// The values that a parameter accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    Text,
    /// A non-empty string.
    Name,
    /// A valid `Idempotency-Key`.
    Key,
    /// `true` or `false`; false if omitted.
    Flag,
    /// An integer in a range, and its default.
    Whole {
        least: u64,
        most: u64,
        default: Option<u64>,
    },
    OneOf(&'static [&'static str]),
    /// The status of a job.
    State,
}

const fn query(name: &'static str, description: &'static str, value: Value) -> Parameter {
    Parameter {
        name,
        place: Place::Query,
        description,
        value,
    }
}

const fn placed(place: Place, name: &'static str, description: &'static str) -> Parameter {
    Parameter {
        name,
        place,
        description,
        value: Value::Text,
    }
}

pub const PARAMETERS: &[Parameter] = &[
    placed(Place::Path, "job_name", "Name of the job"),
    placed(Place::Path, "name", "Name of the framework"),
    Parameter {
        value: Value::Key,
        ..placed(
            Place::Header,
            "Idempotency-Key",
            "Repeating a request with the same key and body returns the first response and creates \
             nothing",
        )
    },
    placed(
        Place::Header,
        "If-None-Match",
        "ETag of the cached representation",
    ),
    placed(
        Place::Header,
        "Last-Event-ID",
        "ID of the last received event",
    ),
    query("namespace", "Namespace of the job", Value::Name),
    query(
        "owner",
        "Only jobs that this caller submitted; `GET /whoami` has your name",
        Value::Name,
    ),
    query("framework", "Only jobs of this framework", Value::Text),
    query("status", "Only jobs with this status", Value::State),
    query(
        "label_selector",
        "Kubernetes label selector, for example team=aml,tier!=test",
        Value::Text,
    ),
    query(
        "page_size",
        "Page size; default 100 (also for 0), capped at 1000",
        Value::Whole {
            least: 0,
            most: u32::MAX as u64,
            default: Some(0),
        },
    ),
    query(
        "page_token",
        "`next_page_token` of the previous page",
        Value::Text,
    ),
    query(
        "progress",
        "Add the newest progress of each running job, as far as it can be read within a second",
        Value::Flag,
    ),
    query(
        "dry_run",
        "`server` includes a server-side dry run by the cluster",
        Value::OneOf(&["server"]),
    ),
    query("view", "Level of detail", Value::OneOf(&["basic", "full"])),
    query(
        "replica",
        "Replicas such as master-0,worker-1, or all. Default: the first",
        Value::Text,
    ),
    query("follow", "Follow until the job finishes", Value::Flag),
    query(
        "points",
        "Maximum number of points; a longer series is downsampled",
        Value::Whole {
            least: 4,
            most: 10_000,
            default: Some(DEFAULT_POINTS),
        },
    ),
    query(
        "tail",
        "Only this many of the last lines",
        // The largest integer that every JSON parser supports.
        Value::Whole {
            least: 0,
            most: (1 << 53) - 1,
            default: None,
        },
    ),
    query(
        "since",
        "Only lines newer than a time (RFC 3339) or a duration such as 10m",
        Value::Text,
    ),
    query(
        "previous",
        "The log of the attempt before the last restart",
        Value::Flag,
    ),
    query(
        "timestamps",
        "Start each line with a timestamp",
        Value::Flag,
    ),
    query(
        "verbose",
        "Return all checks as JSON, with any value except false",
        Value::Text,
    ),
];
