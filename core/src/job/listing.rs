//! Pages of jobs: filters and page tokens.
//!
//! A page starts after the last job of the previous one, wherever that is by now, so jobs that are
//! created or deleted meanwhile never cause others to be missed or listed twice.

use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{JobPosition, JobState, JobSummary, ObservedJob, Progress, Selector, queue};
use crate::keys::{FRAMEWORK_LABEL, OWNER_ANNOTATION};

/// The default page size.
const DEFAULT_PAGE: usize = 100;
/// The maximum page size.
const MAX_PAGE: usize = 1000;
/// The number of jobs that are read at once while a page is not full.
const READ: usize = 1000;

/// Which jobs to list.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub framework: Option<String>,
    pub status: Option<JobState>,
    pub owner: Option<String>,
    pub labels: Selector,
}

/// A page of jobs, newest first.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct JobPage {
    pub jobs: Vec<ListedJob>,
    /// Token for the next page; absent on the last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_page_token: Option<String>,
}

/// A job in a list: the specification's five keys and a few more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ListedJob {
    #[serde(flatten)]
    pub summary: JobSummary,
    pub namespace: String,
    /// Whether a user has suspended it, or its queue has not admitted it yet.
    pub suspended: bool,
    /// The queue in which it waits to be admitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queued_in: Option<String>,
    /// The caller that submitted it, on a service with an access file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub created_at: Option<Time>,
    /// The newest progress line of the first replica, where it was asked for and has been read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
}

impl From<&ObservedJob> for ListedJob {
    fn from(job: &ObservedJob) -> Self {
        Self {
            summary: JobSummary::of(job),
            namespace: job.namespace().to_string(),
            suspended: job.spec.run_policy.suspend,
            queued_in: queue::waits_in(job).map(str::to_string),
            owner: job.annotation(OWNER_ANNOTATION).map(str::to_string),
            created_at: job.metadata.creation_timestamp.clone(),
            progress: None,
        }
    }
}

/// The number of jobs on a page. 0 means the default; larger values are capped at the maximum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageSize(usize);

impl PageSize {
    pub fn of(asked: u32) -> Self {
        let asked = usize::try_from(asked).unwrap_or(MAX_PAGE);
        match asked {
            0 => Self(DEFAULT_PAGE),
            asked => Self(asked.min(MAX_PAGE)),
        }
    }
}

/// The last job of a page, and a fingerprint of the query.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct PageToken {
    #[serde(flatten)]
    last: JobPosition,
    #[serde(rename = "q")]
    query: String,
}

/// Why a page token is invalid. The message follows the name of the parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPageToken {
    #[error("was not issued by this service; omit it to start from the first page")]
    Unreadable,
    #[error("belongs to a list with other filters; omit it to start from the first page")]
    OtherQuery,
}

/// A request for a page of jobs.
#[derive(Clone, Debug)]
pub struct Listing {
    filter: Filter,
    size: PageSize,
    /// Fingerprint of the filters.
    query: String,
    after: Option<JobPosition>,
}

impl Listing {
    /// `query` is the text that the filter was parsed from.
    ///
    /// # Errors
    ///
    /// [`InvalidPageToken`] for a token of another list, or one that this service did not issue.
    pub fn new(
        filter: Filter,
        query: &str,
        size: PageSize,
        page_token: Option<&str>,
    ) -> Result<Self, InvalidPageToken> {
        let query = fingerprint(query);
        let token = page_token.map(PageToken::read).transpose()?;
        if token.as_ref().is_some_and(|token| token.query != query) {
            return Err(InvalidPageToken::OtherQuery);
        }
        Ok(Self {
            filter,
            size,
            query,
            after: token.map(|token| token.last),
        })
    }

    /// Selects the page from the jobs that may be listed. `read` returns at most as many jobs as asked
    /// for, in the order of a list, that come after a position; only the last ones are fewer.
    ///
    /// # Errors
    ///
    /// Those of `read`.
    pub fn page<E>(
        &self,
        read: impl Fn(Option<&JobPosition>, usize) -> Result<Vec<Arc<ObservedJob>>, E>,
        may_list: impl Fn(&ObservedJob) -> bool,
    ) -> Result<JobPage, E> {
        let PageSize(size) = self.size;
        let mut jobs = Vec::with_capacity(size + 1);
        let mut after = self.after.clone();
        let mut limit = size + 1;
        loop {
            let next = read(after.as_ref(), limit)?;
            let is_end = next.len() < limit;
            after = next.last().map(|job| JobPosition::of(job));
            let next = next.into_iter();
            jobs.extend(next.filter(|job| may_list(job) && self.filter.admits(job)));
            if jobs.len() > size || is_end {
                return Ok(self.page_of(&jobs));
            }
            limit = READ;
        }
    }

    /// The page that starts with these jobs.
    fn page_of(&self, jobs: &[Arc<ObservedJob>]) -> JobPage {
        let PageSize(size) = self.size;
        let shown = &jobs[..jobs.len().min(size)];
        let last = shown.last().filter(|_| jobs.len() > size);
        JobPage {
            next_page_token: last.map(|job| PageToken::of(job, &self.query).encode()),
            jobs: shown.iter().map(|job| ListedJob::from(&**job)).collect(),
        }
    }
}

impl Filter {
    fn admits(&self, job: &ObservedJob) -> bool {
        let is = |framework: &String| job.label(FRAMEWORK_LABEL) == Some(framework);
        self.framework.as_ref().is_none_or(is)
            && (self.owner.is_none() || self.owner.as_deref() == job.annotation(OWNER_ANNOTATION))
            && self.status.is_none_or(|status| JobState::of(job) == status)
            && self.labels.selects(job.metadata.labels.as_ref())
    }
}

impl PageToken {
    fn of(job: &ObservedJob, query: &str) -> Self {
        Self {
            last: JobPosition::of(job),
            query: query.to_string(),
        }
    }

    fn encode(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(crate::json::to_string(self))
    }

    fn read(token: &str) -> Result<Self, InvalidPageToken> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(token);
        let bytes = bytes.map_err(|_| InvalidPageToken::Unreadable)?;
        serde_json::from_slice(&bytes).map_err(|_| InvalidPageToken::Unreadable)
    }
}

/// Enough to distinguish queries. Nobody gains anything from a collision.
fn fingerprint(query: &str) -> String {
    let hash = Sha256::digest(query.as_bytes());
    BASE64_URL_SAFE_NO_PAD.encode(&hash[..6])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::convert::Infallible;

    use super::*;
    use crate::job::JobsByAge;
    use crate::job_kind::JobKind;
    use proptest::prelude::*;

    fn job(name: &str, created: i64) -> Arc<ObservedJob> {
        let mut job: ObservedJob = serde_json::from_value(serde_json::json!({
            "metadata": {
                "name": name,
                "namespace": "team-a",
                "labels": {"trainer.deepfinery/framework": "any", "length": name.len().to_string()},
            },
        }))
        .unwrap();
        let created = jiff::Timestamp::from_second(created).unwrap();
        job.metadata.creation_timestamp = Some(Time(created));
        Arc::new(job)
    }

    fn listing(size: u32, token: Option<&str>) -> Listing {
        Listing::new(Filter::default(), "", PageSize::of(size), token).unwrap()
    }

    /// The page of a listing of these jobs.
    fn page(listing: &Listing, jobs: &[Arc<ObservedJob>]) -> JobPage {
        let mut by_age = JobsByAge::default();
        jobs.iter().for_each(|job| by_age.insert(job.clone()));
        let read = |after: Option<&JobPosition>, count: usize| {
            Ok::<_, Infallible>(by_age.after(after).take(count).cloned().collect())
        };
        let Ok(page) = listing.page(read, |job| job.namespace() == "team-a");
        page
    }

    fn names(page: &JobPage) -> Vec<&str> {
        page.jobs
            .iter()
            .map(|job| job.summary.name.as_str())
            .collect()
    }

    #[test]
    fn the_newest_come_first_and_names_decide_within_a_second() {
        let jobs = vec![job("b", 1), job("c", 2), job("a", 1)];
        assert_eq!(names(&page(&listing(0, None), &jobs)), ["c", "a", "b"]);
    }

    #[test]
    fn zero_is_the_default_and_too_many_are_the_most() {
        assert_eq!(PageSize::of(0), PageSize(DEFAULT_PAGE));
        assert_eq!(PageSize::of(7), PageSize(7));
        assert_eq!(PageSize::of(u32::MAX), PageSize(MAX_PAGE));
    }

    #[test]
    fn filters_apply_before_the_page_is_cut() {
        let jobs = vec![job("aa", 3), job("b", 2), job("cc", 1)];
        let filter = Filter {
            labels: Selector::parse("length=2").unwrap(),
            ..Filter::default()
        };
        let listing = Listing::new(filter, "length=2", PageSize::of(2), None).unwrap();
        let page = page(&listing, &jobs);
        assert_eq!(names(&page), ["aa", "cc"]);
        assert_eq!(page.next_page_token, None);
    }

    #[test]
    fn a_page_is_filled_from_more_jobs_than_are_read_at_once() {
        let others = (0..3 * READ).map(|number| job(&format!("other-{number}"), 5));
        let jobs: Vec<_> = [job("aa", 9), job("bb", 1)]
            .into_iter()
            .chain(others)
            .collect();
        let filter = Filter {
            labels: Selector::parse("length=2").unwrap(),
            ..Filter::default()
        };
        let listing = Listing::new(filter, "", PageSize::of(2), None).unwrap();
        assert_eq!(names(&page(&listing, &jobs)), ["aa", "bb"]);
    }

    #[test]
    fn both_kinds_of_a_name_are_listed_on_pages_of_one() {
        let mut other = (*job("a", 1)).clone();
        other.kind = JobKind::TrainJob;
        let jobs = [job("a", 1), Arc::new(other)];
        let first = page(&listing(1, None), &jobs);
        let second = page(&listing(1, first.next_page_token.as_deref()), &jobs);
        assert_eq!((names(&first), names(&second)), (vec!["a"], vec!["a"]));
        assert_eq!(second.next_page_token, None);
    }

    #[test]
    fn a_token_of_another_list_or_of_nobody_is_refused() {
        let page = page(&listing(1, None), &[job("a", 1), job("b", 2)]);
        let token = page.next_page_token.unwrap();
        let other = Listing::new(Filter::default(), "x", PageSize::of(1), Some(&token));
        assert_eq!(other.unwrap_err(), InvalidPageToken::OtherQuery);
        for token in ["", "!", "e30", "bm9uc2Vuc2U"] {
            let nobodys = Listing::new(Filter::default(), "", PageSize::of(1), Some(token));
            assert_eq!(
                nobodys.unwrap_err(),
                InvalidPageToken::Unreadable,
                "{token}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_token_panics(token in r"\PC{0,40}") {
            let _ = Listing::new(Filter::default(), "", PageSize::of(1), Some(&token));
        }

        /// Between any two pages jobs come and go.
        #[test]
        fn a_walk_misses_none_that_stays_and_repeats_none(
            ages in proptest::collection::vec(0_i64..20, 1..60),
            size in 1_u32..10,
            coming in proptest::collection::vec((0_i64..30, any::<bool>()), 0..60),
        ) {
            let all = ages.iter().enumerate();
            let mut jobs: Vec<_> = all.map(|(n, age)| job(&format!("job-{n}"), *age)).collect();
            // Even ones stay, odd ones may go.
            let stay = (0..ages.len()).step_by(2).map(|n| format!("job-{n}"));
            let stay: BTreeSet<String> = stay.collect();
            let mut coming = coming.iter().enumerate();
            let mut seen = Vec::new();
            let mut token: Option<String> = None;
            loop {
                let page = page(&listing(size, token.as_deref()), &jobs);
                seen.extend(page.jobs.into_iter().map(|job| job.summary.name));
                match page.next_page_token {
                    Some(next) => token = Some(next),
                    None => break,
                }
                if let Some((n, (created, one_goes))) = coming.next() {
                    jobs.push(job(&format!("new-{n}"), *created));
                    let goes = jobs.iter().position(|job| !stay.contains(job.name()));
                    if let (Some(goes), true) = (goes, one_goes) {
                        jobs.swap_remove(goes);
                    }
                }
            }
            let unique: BTreeSet<String> = seen.iter().cloned().collect();
            prop_assert_eq!(unique.len(), seen.len());
            prop_assert!(stay.is_subset(&unique));
        }
    }
}
