//! What a ClusterQueue could admit at most, and what of a job is more than that.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Deserialize;
use serde_json::Value;

use super::quantity::Amount;

/// The parts of a Kueue ClusterQueue that limit what it can admit.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ClusterQueue {
    spec: ClusterQueueSpec,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ClusterQueueSpec {
    /// Other queues with the same cohort lend it what they do not use. `cohort` until v1beta1.
    #[serde(alias = "cohort")]
    cohort_name: Option<String>,
    resource_groups: Vec<ResourceGroup>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ResourceGroup {
    covered_resources: BTreeSet<String>,
    flavors: Vec<Flavor>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
struct Flavor {
    resources: Vec<Quota>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Quota {
    name: String,
    nominal_quota: Amount,
    /// Absent: without limit.
    borrowing_limit: Option<Amount>,
}

/// Pods of one kind: Kueue assigns all of them to one flavor.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct PodSet {
    name: String,
    /// Of all its pods together.
    resources: BTreeMap<String, Amount>,
}

/// More than a queue can ever give.
#[derive(Clone, Debug, PartialEq)]
pub struct Excess {
    resource: String,
    requested: Amount,
    limit: Limit,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Limit {
    /// The queue has no quota for the resource.
    NoQuota,
    /// The sum over all flavors.
    Total(Amount),
    /// The largest flavor, which is what pods of one kind can get.
    Flavor(Amount),
}

impl fmt::Display for Excess {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            resource,
            requested,
            limit,
        } = self;
        match limit {
            Limit::NoQuota => write!(
                formatter,
                "it requests {requested} {resource}, for which the queue has no quota"
            ),
            Limit::Total(most) => write!(
                formatter,
                "it requests {requested} {resource}, and the queue's largest capacity is {most}"
            ),
            Limit::Flavor(most) => write!(
                formatter,
                "its pods of one kind request {requested} {resource}, and the queue's largest \
                 flavor has {most}"
            ),
        }
    }
}

impl ClusterQueue {
    /// What of the pods is more than the queue can ever admit. Empty if it may fit, or if a cohort
    /// without a limit lends to the queue.
    pub fn excess(&self, pod_sets: &[PodSet]) -> Vec<Excess> {
        let resources: BTreeSet<&String> = pod_sets
            .iter()
            .flat_map(|set| set.resources.keys())
            .collect();
        let resources = resources.into_iter();
        resources
            .filter_map(|resource| {
                let of_sets = pod_sets
                    .iter()
                    .filter_map(|set| set.resources.get(resource));
                let requested: Vec<Amount> = of_sets.copied().collect();
                self.excess_of(resource, &requested)
            })
            .collect()
    }

    /// `requested` is by pod set.
    fn excess_of(&self, resource: &str, requested: &[Amount]) -> Option<Excess> {
        let total: Amount = requested.iter().copied().sum();
        let excess = |requested, limit| {
            Some(Excess {
                resource: resource.to_string(),
                requested,
                limit,
            })
        };
        if total.0 <= 0.0 {
            return None;
        }
        let mut groups = self.spec.resource_groups.iter();
        let Some(group) = groups.find(|group| group.covered_resources.contains(resource)) else {
            return excess(total, Limit::NoQuota);
        };
        let quotas = group.flavors.iter().map(|flavor| {
            let mut quotas = flavor.resources.iter();
            self.most(quotas.find(|quota| quota.name == resource)?)
        });
        // None: without limit.
        let most: Vec<Amount> = quotas.collect::<Option<_>>()?;
        let sum: Amount = most.iter().copied().sum();
        if total > sum {
            return excess(total, Limit::Total(sum));
        }
        let largest = most.into_iter().fold(Amount::default(), larger);
        let set = requested.iter().copied().fold(Amount::default(), larger);
        match set > largest {
            true => excess(set, Limit::Flavor(largest)),
            false => None,
        }
    }

    /// The maximum amount of a resource that the queue can use of one flavor.
    fn most(&self, quota: &Quota) -> Option<Amount> {
        match (&self.spec.cohort_name, quota.borrowing_limit) {
            (None, _) => Some(quota.nominal_quota),
            (Some(_), Some(limit)) => Some(quota.nominal_quota + limit),
            (Some(_), None) => None,
        }
    }
}

fn larger(one: Amount, other: Amount) -> Amount {
    match one > other {
        true => one,
        false => other,
    }
}

/// The pods of a manifest, a PyTorchJob's or a TrainJob's, with what they request.
pub fn pod_sets(manifest: &Value) -> Vec<PodSet> {
    let spec = &manifest["spec"];
    if let Some(replicas) = spec["pytorchReplicaSpecs"].as_object() {
        let sets = replicas.iter().map(|(kind, replica)| {
            let containers = &replica["template"]["spec"]["containers"];
            pod_set(kind, &replica["replicas"], &containers[0]["resources"])
        });
        return sets.collect();
    }
    let trainer = &spec["trainer"];
    vec![pod_set(
        "node",
        &trainer["numNodes"],
        &trainer["resourcesPerNode"],
    )]
}

fn pod_set(name: &str, count: &Value, resources: &Value) -> PodSet {
    let count = count.as_u64().and_then(|count| u32::try_from(count).ok());
    let count = count.unwrap_or(1);
    let requests = resources["requests"].as_object().into_iter().flatten();
    let amounts = requests.filter_map(|(name, amount)| {
        let amount = Amount::deserialize(amount).ok()?;
        Some((name.clone(), amount * count))
    });
    PodSet {
        name: name.to_string(),
        resources: amounts.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A queue of two flavors with 40 and 24 GPUs.
    fn queue(change: impl FnOnce(&mut Value)) -> ClusterQueue {
        let quota = |gpus: u32| json!({"resources": [{"name": "nvidia.com/gpu", "nominalQuota": gpus.to_string()}]});
        let mut queue = json!({"spec": {"resourceGroups": [{
            "coveredResources": ["nvidia.com/gpu"],
            "flavors": [quota(40), quota(24)],
        }]}});
        change(&mut queue);
        serde_json::from_value(queue).unwrap()
    }

    /// A job of one master and some workers, each with eight GPUs.
    fn job(workers: u32) -> Value {
        let replica = |count: u32| {
            json!({
                "replicas": count,
                "template": {"spec": {"containers": [{"resources": {"requests": {"nvidia.com/gpu": "8"}}}]}},
            })
        };
        json!({"spec": {"pytorchReplicaSpecs": {"Master": replica(1), "Worker": replica(workers)}}})
    }

    fn reported(queue: &ClusterQueue, manifest: &Value) -> Vec<String> {
        let excess = queue.excess(&pod_sets(manifest));
        excess.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_request_within_the_quotas_may_fit() {
        assert_eq!(reported(&queue(|_| {}), &job(5)), [""; 0]);
    }

    #[test]
    fn a_request_above_all_quotas_never_fits() {
        let expected = "it requests 72 nvidia.com/gpu, and the queue's largest capacity is 64";
        assert_eq!(reported(&queue(|_| {}), &job(8)), [expected]);
    }

    #[test]
    fn pods_of_one_kind_need_one_flavor() {
        let expected = "its pods of one kind request 48 nvidia.com/gpu, and the queue's largest \
                        flavor has 40";
        assert_eq!(reported(&queue(|_| {}), &job(6)), [expected]);
    }

    #[test]
    fn a_resource_without_quota_is_never_given() {
        let job = json!({"spec": {"trainer": {
            "numNodes": 2,
            "resourcesPerNode": {"requests": {"memory": "512Gi", "nvidia.com/gpu": 8}},
        }}});
        let expected = "it requests 1Ti memory, for which the queue has no quota";
        assert_eq!(reported(&queue(|_| {}), &job), [expected]);
    }

    #[test]
    fn what_a_cohort_lends_counts() {
        let lends = queue(|queue| queue["spec"]["cohort"] = json!("all"));
        assert_eq!(reported(&lends, &job(100)), [""; 0]);
        let little = queue(|queue| {
            queue["spec"]["cohortName"] = json!("all");
            for flavor in [0, 1] {
                queue["spec"]["resourceGroups"][0]["flavors"][flavor]["resources"][0]["borrowingLimit"] =
                    json!("8");
            }
        });
        assert_eq!(reported(&little, &job(5)), [""; 0]);
        let expected = "it requests 88 nvidia.com/gpu, and the queue's largest capacity is 80";
        assert_eq!(reported(&little, &job(10)), [expected]);
    }
}
