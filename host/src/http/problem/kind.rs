//! The kinds of problem: what each is called, and its status.

use axum::http::StatusCode;

/// The kinds of problem, each with its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    InvalidRequest,
    NameTaken,
    PrefixTaken,
    HasCheckpoints,
    KeyReused,
    Unauthorized,
    NoSuchRoute,
    NoSuchJob,
    NoLog,
    AmbiguousJob,
    JobEnded,
    NotAdmitted,
    NamespaceNotAllowed,
    ForeignHost,
    NoSuchFramework,
    NoEarlierVersion,
    NoSuchMethod,
    TooLarge,
    SlowBody,
    MediaType,
    Busy,
    Internal,
    PluginFailed,
    ClusterUnavailable,
    ClusterTimeout,
    PluginResting,
}

impl Kind {
    /// The status, the last part of the `type` (`urn:trainer:problem:<name>`), and the title.
    pub(super) fn descriptor(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::InvalidRequest => (
                StatusCode::BAD_REQUEST,
                "invalid-request",
                "Invalid request",
            ),
            Self::NameTaken => (StatusCode::BAD_REQUEST, "name-taken", "Job name taken"),
            Self::PrefixTaken => (
                StatusCode::BAD_REQUEST,
                "prefix-taken",
                "Checkpoint prefix taken",
            ),
            Self::HasCheckpoints => (
                StatusCode::BAD_REQUEST,
                "has-checkpoints",
                "Checkpoints exist",
            ),
            Self::KeyReused => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "idempotency-key-reused",
                "Idempotency key reused",
            ),
            Self::Unauthorized => (StatusCode::UNAUTHORIZED, "unauthorized", "Unauthorized"),
            Self::NoSuchRoute => (StatusCode::NOT_FOUND, "no-such-route", "Not found"),
            Self::NoSuchJob => (StatusCode::NOT_FOUND, "no-such-job", "Job not found"),
            Self::NoLog => (StatusCode::NOT_FOUND, "no-log", "No log"),
            Self::AmbiguousJob => (
                StatusCode::BAD_REQUEST,
                "ambiguous-job",
                "Ambiguous job name",
            ),
            Self::JobEnded => (StatusCode::BAD_REQUEST, "job-ended", "Job has ended"),
            Self::NotAdmitted => (
                StatusCode::BAD_REQUEST,
                "not-admitted",
                "Not admitted by the cluster",
            ),
            Self::NamespaceNotAllowed => (
                StatusCode::FORBIDDEN,
                "namespace-not-allowed",
                "Namespace not allowed",
            ),
            Self::ForeignHost => (StatusCode::FORBIDDEN, "foreign-host", "Foreign host"),
            Self::NoSuchFramework => (
                StatusCode::NOT_FOUND,
                "no-such-framework",
                "Framework not found",
            ),
            Self::NoEarlierVersion => (
                StatusCode::CONFLICT,
                "no-earlier-version",
                "No earlier version",
            ),
            Self::NoSuchMethod => (
                StatusCode::METHOD_NOT_ALLOWED,
                "no-such-method",
                "Method not allowed",
            ),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too-large", "Body too large"),
            Self::SlowBody => (
                StatusCode::REQUEST_TIMEOUT,
                "slow-body",
                "Request body timeout",
            ),
            Self::MediaType => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "media-type",
                "Unsupported media type",
            ),
            Self::Busy => (StatusCode::TOO_MANY_REQUESTS, "busy", "Too many requests"),
            Self::Internal => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                "Internal error",
            ),
            Self::PluginFailed => (StatusCode::BAD_GATEWAY, "plugin-failed", "Plugin failed"),
            Self::ClusterUnavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                "cluster-unavailable",
                "Cluster unavailable",
            ),
            Self::ClusterTimeout => (
                StatusCode::GATEWAY_TIMEOUT,
                "cluster-timeout",
                "Cluster timeout",
            ),
            Self::PluginResting => (
                StatusCode::SERVICE_UNAVAILABLE,
                "plugin-resting",
                "Plugin out of service",
            ),
        }
    }
}
