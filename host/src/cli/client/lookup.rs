//! Suggests jobs for an unknown job name. Users often enter the run id that they chose.

use http::Method;

use super::failure::{Failure, Problem};
use super::pages;
use super::server::Server;
use crate::job::ListedJob;
use crate::keys::RUN_ID_LABEL;
use crate::suggestion::nearest;

/// Adds a suggestion to a "not found" failure.
pub fn suggest(server: &Server, asked: &str, failure: Failure) -> Failure {
    let Failure::Refused { problem, source } = failure else {
        return failure;
    };
    let hint = match problem.status {
        404 => hint(server, asked),
        _ => None,
    };
    let detail = match hint {
        Some(hint) => format!("{}; {hint}", problem.detail),
        None => problem.detail.clone(),
    };
    let problem = Box::new(Problem { detail, ..*problem });
    Failure::Refused { problem, source }
}

/// The suggestion: jobs with this run id, or a job with a similar name.
fn hint(server: &Server, asked: &str) -> Option<String> {
    let of_run = jobs(server, Some(format!("{RUN_ID_LABEL}={asked}")));
    let names: Vec<String> = of_run.iter().map(named).collect();
    if !names.is_empty() {
        let noun = if names.len() == 1 { "job" } else { "jobs" };
        return Some(format!("run {asked} has {noun} {}", names.join(", ")));
    }
    let known = jobs(server, None);
    let known = known.iter().map(|job| job.summary.name.as_str());
    Some(format!("did you mean {}?", nearest(asked, known)?))
}

fn named(job: &ListedJob) -> String {
    format!("{} (namespace {})", job.summary.name, job.namespace)
}

/// The newest jobs, or none if the request fails.
fn jobs(server: &Server, selector: Option<String>) -> Vec<ListedJob> {
    let list = || server.call(Method::GET, &["train"]);
    let jobs = pages::jobs(pages::MAX_PAGE, || {
        list().query("label_selector", selector.as_ref())
    });
    jobs.unwrap_or_default()
}
