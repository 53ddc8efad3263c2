//! The volumes of a job's pods: the shared memory, and the claims of `pvc://` URIs.

use k8s_openapi::api::core::v1::{
    EmptyDirVolumeSource, PersistentVolumeClaimVolumeSource, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::profile::{CLAIM_VOLUME_PREFIX, Profile, SHARED_MEMORY_VOLUME};
use crate::request::JobRequest;

/// The folder under which the claim of a `pvc://` URI is mounted, by its name.
const CLAIMS_PATH: &str = "/mnt/pvc";
/// Limit of the shared memory, in GiB, of jobs whose memory is not limited. It is enough for NCCL and
/// the data loaders of eight processes.
const DEFAULT_SHARED_MEMORY_GB: u32 = 64;

/// The limit of the shared memory: the profile's, else the memory of the request, against which it
/// counts. A profile with 0 leaves it to the kubelet.
pub(super) fn shared_memory_limit(profile: &Profile, memory_gb: Option<u32>) -> Option<Quantity> {
    let gib = profile.shared_memory_gb.or(memory_gb);
    let gib = gib.unwrap_or(DEFAULT_SHARED_MEMORY_GB);
    (gib > 0).then(|| gibibytes(gib))
}

/// A size as Kubernetes writes it. The volumes of a TrainJob must not change, and Kueue would write
/// `1024Gi` as `1Ti`.
fn gibibytes(gib: u32) -> Quantity {
    let (mut size, mut unit) = (gib, "Gi");
    for larger in ["Ti", "Pi"] {
        if size % 1024 == 0 {
            (size, unit) = (size / 1024, larger);
        }
    }
    Quantity(format!("{size}{unit}"))
}

/// The claims that the request's URIs refer to, without duplicates.
pub(super) fn claims(request: &JobRequest) -> Vec<&str> {
    let uris = [&request.checkpoint_base_uri, &request.dataset_uri];
    let mut claims: Vec<&str> = uris.into_iter().filter_map(|uri| uri.claim()).collect();
    claims.dedup();
    claims
}

pub(super) fn volumes(claims: &[&str], shared_memory: Option<Quantity>) -> Vec<Volume> {
    // The default /dev/shm of 64 MiB is too small for data loaders and NCCL.
    let shared_memory = Volume {
        name: SHARED_MEMORY_VOLUME.to_string(),
        empty_dir: Some(EmptyDirVolumeSource {
            medium: Some("Memory".to_string()),
            size_limit: shared_memory,
        }),
        ..Volume::default()
    };
    let claims = claims.iter().enumerate().map(|(index, claim)| Volume {
        name: format!("{CLAIM_VOLUME_PREFIX}{index}"),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: (*claim).to_string(),
            ..PersistentVolumeClaimVolumeSource::default()
        }),
        ..Volume::default()
    });
    std::iter::once(shared_memory).chain(claims).collect()
}

pub(super) fn mounts(claims: &[&str]) -> Vec<VolumeMount> {
    let mount = |name: String, mount_path: String| VolumeMount {
        name,
        mount_path,
        ..VolumeMount::default()
    };
    let claims = claims.iter().enumerate().map(|(index, claim)| {
        let name = format!("{CLAIM_VOLUME_PREFIX}{index}");
        mount(name, format!("{CLAIMS_PATH}/{claim}"))
    });
    std::iter::once(mount(
        SHARED_MEMORY_VOLUME.to_string(),
        "/dev/shm".to_string(),
    ))
    .chain(claims)
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_has_the_largest_unit_without_a_fraction() {
        for (gib, expected) in [
            (1, "1Gi"),
            (1000, "1000Gi"),
            (1024, "1Ti"),
            (1536, "1536Gi"),
            (2048, "2Ti"),
            (1024 * 1024, "1Pi"),
            (u32::MAX, "4294967295Gi"),
        ] {
            assert_eq!(gibibytes(gib).0, expected);
        }
    }

    #[test]
    fn shared_memory_is_limited_by_the_profile_then_by_the_memory_of_the_job() {
        let profile = |gib| Profile {
            shared_memory_gb: gib,
            ..Profile::default()
        };
        let limit = |of_profile, memory| {
            let limit = shared_memory_limit(&profile(of_profile), memory);
            limit.map(|quantity| quantity.0)
        };
        assert_eq!(limit(None, None).as_deref(), Some("64Gi"));
        assert_eq!(limit(None, Some(16)).as_deref(), Some("16Gi"));
        assert_eq!(limit(Some(8), Some(16)).as_deref(), Some("8Gi"));
        assert_eq!(limit(Some(0), Some(16)), None);
    }
}
