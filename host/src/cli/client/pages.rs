//! Reads all pages of a list of jobs.

use super::failure::Failure;
use super::server::Call;
use crate::job::{JobPage, ListedJob};

/// The largest page that the service sends.
pub const MAX_PAGE: usize = 1000;

/// Reads jobs, newest first, up to a maximum. `list` creates the call for a page.
///
/// # Errors
///
/// If a page cannot be read.
pub fn jobs<'a>(limit: usize, list: impl Fn() -> Call<'a>) -> Result<Vec<ListedJob>, Failure> {
    let mut jobs: Vec<ListedJob> = Vec::new();
    let mut token = None;
    while jobs.len() < limit {
        let size = (limit - jobs.len()).min(MAX_PAGE);
        let call = list().query("page_size", Some(size));
        let page: JobPage = call.query("page_token", token).read()?;
        jobs.extend(page.jobs);
        token = page.next_page_token;
        if token.is_none() {
            break;
        }
    }
    Ok(jobs)
}
