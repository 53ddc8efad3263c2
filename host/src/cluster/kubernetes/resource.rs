//! Describes PyTorchJobs to the client, for listing and watching.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::Deserialize;

use crate::job::ObservedJob;
use crate::pytorch_job::KIND;

pub(super) const GROUP: &str = "kubeflow.org";
pub(super) const VERSION: &str = "v1";
pub(super) const PLURAL: &str = "pytorchjobs";

/// A job as read by the watch.
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
pub(super) struct WatchedJob(pub(super) ObservedJob);

impl Resource for WatchedJob {
    type DynamicType = ();
    type Scope = kube::core::NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        KIND.into()
    }

    fn group((): &()) -> Cow<'_, str> {
        GROUP.into()
    }

    fn version((): &()) -> Cow<'_, str> {
        VERSION.into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        PLURAL.into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.0.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.0.metadata
    }
}
