//! The settings of a Kubernetes cluster.

use crate::job_kind::JobKind;
use crate::request::AllowedNamespaces;

/// The settings of a Kubernetes cluster.
#[derive(Clone, Debug)]
pub struct KubernetesSettings {
    /// Context of the kubeconfig. Default: its current context, or the pod's own cluster.
    pub context: Option<String>,
    /// The default namespace of jobs.
    pub default_namespace: String,
    /// The watched namespaces.
    pub namespaces: AllowedNamespaces,
    /// The kind of jobs to create. Default: PyTorchJobs if the cluster has them, else TrainJobs.
    pub job_kind: Option<JobKind>,
    /// The names of the runtimes that TrainJobs refer to.
    pub runtimes: Vec<String>,
}
