//! Describes jobs to the client, for listing and watching.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::Deserialize;

use crate::job::ObservedJob;
use crate::job_kind::JobKind;

/// A job as read by the watch. The kind is part of its JSON.
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
pub(super) struct WatchedJob(pub(super) ObservedJob);

/// The API group of a kind.
pub(super) fn group(kind: JobKind) -> &'static str {
    let (group, _) = group_and_version(kind);
    group
}

fn group_and_version(kind: JobKind) -> (&'static str, &'static str) {
    let api = kind.api_version();
    api.split_once('/').unwrap_or((api, ""))
}

impl Resource for WatchedJob {
    type DynamicType = JobKind;
    type Scope = kube::core::DynamicResourceScope;

    fn kind(kind: &JobKind) -> Cow<'_, str> {
        kind.name().into()
    }

    fn group(kind: &JobKind) -> Cow<'_, str> {
        group(*kind).into()
    }

    fn version(kind: &JobKind) -> Cow<'_, str> {
        let (_, version) = group_and_version(*kind);
        version.into()
    }

    fn plural(kind: &JobKind) -> Cow<'_, str> {
        kind.plural().into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.0.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.0.metadata
    }
}
