//! Existing jobs: status, details, lists, logs, metrics and causes of failures.

mod by_age;
mod cause;
mod details;
mod failures;
mod idempotency;
mod listing;
mod logs;
mod mask;
mod metrics;
mod observed;
mod prefix;
mod prefix_index;
mod progress;
pub mod queue;
mod search_path;
mod selector;
mod status;
mod update;

pub use by_age::{JobPosition, JobsByAge};
pub use cause::{Cause, MAX_LOG_BYTES, Restart, cause};
pub use details::{Inspection, JobDetails, JobEvent, PodDetails};
pub use failures::{failure_annotation, failures, is_failure_annotation};
pub(crate) use idempotency::label_hash;
pub use idempotency::{BadKey, Submission};
pub use listing::{Filter, InvalidPageToken, JobPage, ListedJob, Listing, PageSize};
pub use logs::{LogEnd, LogLines, LogSelection, LogStart, Unfinished, replica_names, since};
pub use mask::Mask;
pub use metrics::{Evaluation, Metrics, Point, Recorder};
pub use observed::{DesiredReplicas, ObservedJob, ObservedSpec};
pub use prefix::{EarlierCheckpoints, Prefix};
pub use prefix_index::PrefixIndex;
pub use progress::Progress;
pub use search_path::{replaced_in, replaced_search_path, with_hint};
pub use selector::{InvalidSelector, Selector};
pub use status::{JobState, JobSummary};
pub use update::{DeletedJob, JobProgress, JobUpdate};
