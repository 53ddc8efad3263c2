//! `GET /train`: pages of jobs, newest first.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};

use super::app::App;
use super::authorized::Authorized;
use super::problem::Problem;
use super::query::Query;
use crate::cluster::add_progress;
use crate::job::{Filter, JobPage, JobState, Listing, PageSize, Selector};

#[derive(Debug, Deserialize)]
pub(super) struct ListQuery {
    framework: Option<String>,
    status: Option<JobState>,
    namespace: Option<String>,
    owner: Option<String>,
    label_selector: Option<String>,
    #[serde(default)]
    page_size: u32,
    page_token: Option<String>,
    #[serde(default)]
    progress: bool,
}

/// The query that a page token belongs to.
#[derive(Debug, Serialize)]
struct Filters<'a> {
    framework: Option<&'a str>,
    status: Option<JobState>,
    namespace: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<&'a str>,
    label_selector: Option<&'a str>,
}

impl ListQuery {
    fn listing(&self) -> Result<Listing, Problem> {
        let filters = Filters {
            framework: self.framework.as_deref(),
            status: self.status,
            namespace: self.namespace.as_deref(),
            owner: self.owner.as_deref(),
            label_selector: self.label_selector.as_deref(),
        };
        let filters = serde_json::to_string(&filters).map_err(Problem::internal)?;
        let selector = self.label_selector.as_deref().unwrap_or_default();
        let labels = Selector::parse(selector);
        let filter = Filter {
            framework: self.framework.clone(),
            status: self.status,
            owner: self.owner.clone(),
            labels: labels.map_err(|wrong| Problem::parameter("label_selector", wrong))?,
        };
        let size = PageSize::of(self.page_size);
        // An empty token, as sent by forms and scripts, requests the first page.
        let token = self.page_token.as_deref().filter(|token| !token.is_empty());
        Listing::new(filter, &filters, size, token)
            .map_err(|wrong| Problem::parameter("page_token", wrong))
    }
}

pub(super) async fn list(
    State(app): State<App>,
    authorized: Authorized,
    Query(query): Query<ListQuery>,
) -> Result<Json<JobPage>, Problem> {
    if let Some(namespace) = &query.namespace {
        authorized.check_namespace(&app, namespace)?;
    }
    let is_asked = |namespace: &str| query.namespace.as_deref().is_none_or(|of| of == namespace);
    let page = query.listing()?.page(
        |after, limit| app.cluster.list_after(after, limit),
        |job| is_asked(job.namespace()) && authorized.may_see(&app, job.namespace()),
    );
    let mut page = page?;
    if query.progress {
        add_progress(app.cluster.as_ref(), &mut page.jobs).await;
    }
    Ok(Json(page))
}
