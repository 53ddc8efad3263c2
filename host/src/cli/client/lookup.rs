//! The job that was meant by a name that no job has: people know the run id that they chose.

use http::Method;

use super::failure::{Failure, Problem};
use super::server::Server;
use crate::job::{JobPage, ListedJob};
use crate::keys::RUN_ID_LABEL;
use crate::suggestion::nearest;

/// Adds the job that may be meant to the failure of a command whose job is not there.
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

/// What the name may stand for: a run id, or a job whose name is much like it.
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

/// The newest jobs, if they can be had.
fn jobs(server: &Server, selector: Option<String>) -> Vec<ListedJob> {
    let page = server
        .call(Method::GET, &["train"])
        .query("label_selector", selector)
        .query("page_size", Some(1000))
        .read::<JobPage>();
    page.map(|page| page.jobs).unwrap_or_default()
}
