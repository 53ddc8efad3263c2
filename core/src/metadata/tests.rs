//! Tests of labels and annotations.

use super::*;

#[test]
fn keys_follow_kubernetes_and_leave_its_own_alone() {
    for key in [
        "team",
        "deepfinery.com/team",
        "a.b/C_d.e",
        "app.kubernetes.io/part-of",
        "cluster-autoscaler.kubernetes.io/safe-to-evict",
        "kubernetes.io/description",
    ] {
        assert_eq!(check_key(key), Ok(()), "{key}");
    }
    for key in [
        "",
        "-a",
        "a/",
        "/a",
        "A.b/c",
        "a b",
        "a/b/c",
        &"x".repeat(64),
    ] {
        assert_eq!(check_key(key), Err(NameFault::LabelKey), "{key}");
    }
    for key in [
        "kubernetes.io/x",
        "app.kubernetes.io/managed-by",
        "cluster-autoscaler.kubernetes.io/x",
        "seccomp.security.alpha.kubernetes.io/pod",
        "k8s.io/x",
        "kueue.x-k8s.io/queue-name",
        "training.kubeflow.org/job-name",
        "trainer.deepfinery/run-id",
    ] {
        assert_eq!(check_key(key), Err(NameFault::ReservedKey), "{key}");
    }
}

#[test]
fn the_variables_of_operator_and_host_are_reserved() {
    for name in [
        "RANK",
        "PET_NNODES",
        "TORCHELASTIC_X",
        "RUN_ID",
        "TRAINER_PVC_ROOT",
        "TRAINER_API_TOKEN",
        "TRAINER_JOB_UID",
        "TRAINER_",
        "CUDA_VISIBLE_DEVICES",
        "NVIDIA_VISIBLE_DEVICES",
        ARGUMENTS_VARIABLE,
    ] {
        let finding = Err(NameFault::ReservedVariable);
        assert_eq!(check_request_variable(name), finding, "{name}");
    }
    for name in ["", "1A", "A B", "A=B", "É"] {
        let finding = Err(NameFault::VariableName);
        assert_eq!(check_request_variable(name), finding, "{name}");
    }
    for name in [
        "HF_HOME",
        "TRAINER_LOG_LEVEL",
        "TRAINERS",
        "CUDA_LAUNCH_BLOCKING",
    ] {
        assert_eq!(check_request_variable(name), Ok(()), "{name}");
    }
    assert_eq!(check_plugin_variable(ARGUMENTS_VARIABLE), Ok(()));
}
