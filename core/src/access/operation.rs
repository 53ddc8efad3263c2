//! The table of operations: which role each of them needs, and where.

use super::Role;

/// Which callers may use an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Everybody, without a token.
    Open,
    /// Callers with this role in any namespace. They see only what their namespaces have.
    Anywhere(Role),
    /// Callers with this role in the namespace of the job.
    Namespace(Role),
    /// Submitters for their own jobs, operators for all jobs of the namespace.
    OwnJob,
    /// Callers with this role in all namespaces, because the operation concerns all of them.
    Everywhere(Role),
}

/// Each operation by its id in the OpenAPI document. An operation without a row is refused.
pub const OPERATIONS: &[(&str, Reach)] = &[
    ("createJob", Reach::Namespace(Role::Submitter)),
    ("previewJob", Reach::Namespace(Role::Submitter)),
    ("listJobs", Reach::Anywhere(Role::Viewer)),
    ("getJob", Reach::Namespace(Role::Viewer)),
    ("getJobManifest", Reach::Namespace(Role::Viewer)),
    ("getJobRequest", Reach::Namespace(Role::Viewer)),
    ("getJobLogs", Reach::Namespace(Role::Viewer)),
    ("getJobMetrics", Reach::Namespace(Role::Viewer)),
    ("followJob", Reach::Namespace(Role::Viewer)),
    ("followJobs", Reach::Anywhere(Role::Viewer)),
    ("deleteJob", Reach::OwnJob),
    ("suspendJob", Reach::OwnJob),
    ("resumeJob", Reach::OwnJob),
    ("listFrameworks", Reach::Anywhere(Role::Viewer)),
    ("getFramework", Reach::Anywhere(Role::Viewer)),
    ("rollBackFramework", Reach::Everywhere(Role::Admin)),
    ("reload", Reach::Everywhere(Role::Admin)),
    ("whoAmI", Reach::Anywhere(Role::Viewer)),
    ("getMetrics", Reach::Everywhere(Role::Viewer)),
    ("getHealth", Reach::Open),
    ("getLiveness", Reach::Open),
    ("getReadiness", Reach::Open),
    ("getOpenapi", Reach::Open),
    ("getDocs", Reach::Open),
];

/// The row of an operation.
pub fn reach(id: &str) -> Option<Reach> {
    let mut rows = OPERATIONS.iter();
    rows.find(|(known, _)| *known == id)
        .map(|(_, reach)| *reach)
}
