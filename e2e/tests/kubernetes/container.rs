//! The service in a container of `deploy/`: configured by the cluster itself, and as its image.
//!
//! There is no container runtime on every machine, so Linux's own tools do what one does: a mount
//! namespace with the pod's volumes, and for the image its files as the root.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use e2e::control_plane::{ControlPlane, Overlay};
use e2e::{Server, Site, binary, root};
use kube::config::Kubeconfig;
use serde_json::{Value, json};
use tempfile::TempDir;
use trainer_host::job_kind::JobKind;

use crate::kinds;
use crate::service::request;

/// Where a pod finds its service account, from the container's root.
const ACCOUNT: &str = "var/run/secrets/kubernetes.io/serviceaccount";
const TOKEN: &str = "the-token-of-the-tests";
/// The user of deploy/base/deployment.yaml.
const USER: u32 = 65532;

/// A mount namespace of its own, which only root gets without one for users.
const ALONE: &str = r#"
[ "$(id --user)" = 0 ] || own=--map-root-user
exec unshare --mount --propagation=private ${own-} bash -euc "$@"
"#;

/// The service with the machine's own files, and the service account where a pod has it.
const ON_THIS_MACHINE: &str = r#"
mount -t tmpfs tmpfs "$(realpath /var/run)"
mkdir -p "/$ACCOUNT"
mount --bind "$VOLUMES/$ACCOUNT" "/$ACCOUNT"
exec env --ignore-environment TRAINER_LISTEN="$TRAINER_LISTEN" "$@"
"#;

/// The service with its image's files alone: a root that cannot be written, no rights, no way to any.
const IN_ITS_IMAGE: &str = r#"
mount --bind "$IMAGE" "$IMAGE"
mount --rbind /dev "$IMAGE/dev"
mount --bind /proc "$IMAGE/proc"
mount -o remount,bind,ro "$IMAGE"
mount -t tmpfs tmpfs "$IMAGE/var"
mkdir -p "$IMAGE/$ACCOUNT" "$IMAGE/var/lib/trainer"
mount --bind "$VOLUMES/$ACCOUNT" "$IMAGE/$ACCOUNT"
mount --bind "$VOLUMES/data" "$IMAGE/var/lib/trainer"
mount --bind "$VOLUMES/etc/trainer" "$IMAGE/etc/trainer"
mount -o remount,bind,ro "$IMAGE/etc/trainer"
mount -o remount,ro "$IMAGE/var"
exec env --ignore-environment TRAINER_LISTEN="$TRAINER_LISTEN" "${@:1:$#-2}" \
    "$(command -v setpriv)" --no-new-privs --bounding-set=-all,+sys_chroot,+setuid,+setgid \
    "$(command -v chroot)" --userspec="$IDENTITY" "$IMAGE" "${@: -2}"
"#;

/// A pod of `deploy/`, as far as a process needs one.
struct Pod {
    kind: JobKind,
    namespace: String,
    /// The variables of its container, as the API server has them.
    variables: Vec<String>,
    volumes: TempDir,
    site: Site,
}

impl Pod {
    fn new(plane: &ControlPlane, kind: JobKind, name: &str) -> Self {
        let namespace = &*kinds::namespace(kind, name);
        let deployment = kinds::install(plane, kind, Overlay::OneNamespace, namespace).unwrap();
        let own = ["--namespace", namespace, "--output=json"];
        let read = |what: &[&str]| -> Value {
            let message = plane.kubectl(&[&["get"], what, &own].concat()).unwrap();
            serde_json::from_str(&message).unwrap()
        };
        let volumes = tempfile::tempdir().unwrap();
        let folder = |name: &str| {
            let folder = volumes.path().join(name);
            fs::create_dir_all(&folder).unwrap();
            folder
        };
        fs::set_permissions(volumes.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let account = folder(ACCOUNT);
        let kubeconfig = Kubeconfig::read_from(&deployment.kubeconfig).unwrap();
        let authority = authority(&kubeconfig);
        let token = ["create", "token", "trainer", "--namespace", namespace];
        fs::write(account.join("ca.crt"), authority).unwrap();
        fs::write(account.join("token"), plane.kubectl(&token).unwrap().trim()).unwrap();
        fs::write(account.join("namespace"), namespace).unwrap();
        folder("data");
        let deployed = read(&["deployment", "trainer"]);
        let spec = &deployed["spec"]["template"]["spec"];
        let profiles = folder("etc/trainer");
        let volumes_of_pod = spec["volumes"].as_array().unwrap();
        let generated = volumes_of_pod
            .iter()
            .find_map(|volume| volume["configMap"]["name"].as_str());
        let files = read(&["configmap", generated.unwrap()])["data"].clone();
        for (name, text) in files.as_object().unwrap() {
            fs::write(profiles.join(name), text.as_str().unwrap()).unwrap();
        }
        let container = &spec["containers"][0];
        let (host, port) = plane.server.rsplit_once(':').unwrap();
        let host = host.trim_start_matches("https://");
        let mut variables: Vec<String> = container["env"]
            .as_array()
            .unwrap()
            .iter()
            .map(|variable| variable_of(variable, namespace))
            .collect();
        variables.push(format!("KUBERNETES_SERVICE_HOST={host}"));
        variables.push(format!("KUBERNETES_SERVICE_PORT={port}"));
        variables.push(format!("TRAINER_JOB_KIND={}", kinds::setting(kind)));
        Self {
            kind,
            namespace: namespace.to_string(),
            variables,
            volumes,
            site: Site::in_a_container().unwrap(),
        }
    }

    /// Starts the service with a script that lays out its files.
    fn start(&self, script: &str, image: &Path, variables: &[String], program: &Path) -> Server {
        let mut command = Command::new("bash");
        command
            .args(["-euc", ALONE, "alone", script, "container"])
            .args(self.variables.iter().chain(variables))
            .arg(program)
            .env("VOLUMES", self.volumes.path())
            .env("ACCOUNT", ACCOUNT)
            .env("IMAGE", image)
            .env("IDENTITY", format!("{USER}:{USER}"));
        let server = self.site.start_as(&mut command).unwrap();
        server.wait_until_ready().unwrap();
        server
    }

    /// Posts a job, which then is in the cluster.
    fn takes_a_job(&self, plane: &ControlPlane, server: &Server) {
        let run = request("in-a-container", &json!({}));
        let (status, created) = server
            .post_with_header("/train", ("x-trainer-token", TOKEN), &run)
            .unwrap();
        assert_eq!(status, 201, "{created}");
        let name = created["name"].as_str().unwrap();
        assert_eq!(kinds::jobs(plane, self.kind, &self.namespace), [name]);
    }
}

/// The certificate that the API server's is signed by.
fn authority(kubeconfig: &Kubeconfig) -> Vec<u8> {
    let cluster = kubeconfig.clusters[0].cluster.as_ref().unwrap();
    match (
        &cluster.certificate_authority,
        &cluster.certificate_authority_data,
    ) {
        (Some(file), _) => fs::read(file).unwrap(),
        (None, data) => BASE64_STANDARD.decode(data.as_ref().unwrap()).unwrap(),
    }
}

/// A variable as the kubelet sets it.
fn variable_of(variable: &Value, namespace: &str) -> String {
    let name = variable["name"].as_str().unwrap();
    let from = &variable["valueFrom"];
    let value = match variable["value"].as_str() {
        Some(value) => value,
        None if from["secretKeyRef"]["name"] == "trainer-token" => TOKEN,
        None if from["fieldRef"]["fieldPath"] == "metadata.namespace" => namespace,
        None => panic!("{variable}: where is it from?"),
    };
    format!("{name}={value}")
}

/// Whether this machine lets a process have mounts of its own: a container may not.
fn can_mount() -> bool {
    let mut tried = Command::new("bash");
    tried.args([
        "-euc",
        ALONE,
        "alone",
        "mount -t tmpfs tmpfs /run",
        "container",
    ]);
    tried.status().is_ok_and(|status| status.success())
}

for_both_kinds! { a_pod_needs_no_kubeconfig }

fn a_pod_needs_no_kubeconfig(kind: JobKind) {
    if !can_mount() {
        println!("left out: this machine allows no mount namespaces");
        return;
    }
    let plane = ControlPlane::shared().unwrap();
    let pod = Pod::new(plane, kind, "in-cluster");
    let profiles = pod.volumes.path().join("etc/trainer/profiles.yaml");
    let variables = [
        format!(
            "TRAINER_PLUGINS={}",
            root().join("target/plugins").display()
        ),
        format!(
            "TRAINER_DATA_DIR={}",
            pod.volumes.path().join("data").display()
        ),
        format!("TRAINER_PROFILES={}", profiles.display()),
    ];
    let nowhere = Path::new("/");
    let server = pod.start(ON_THIS_MACHINE, nowhere, &variables, &binary());
    pod.takes_a_job(plane, &server);
}

#[test]
#[ignore = "`make e2e-image` runs it, where musl-gcc makes the static binary"]
fn the_image_serves_as_deploy_starts_it() {
    let plane = ControlPlane::shared().unwrap();
    let pod = Pod::new(plane, JobKind::PyTorchJob, "in-its-image");
    chown(pod.volumes.path().join("data"), Some(USER), Some(USER)).unwrap();
    let image = tempfile::tempdir().unwrap();
    fs::set_permissions(image.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let variables = unpack(image.path());
    let server = pod.start(
        IN_ITS_IMAGE,
        image.path(),
        &variables,
        Path::new("/trainer"),
    );
    pod.takes_a_job(plane, &server);
    // It had what the deployment gives it, and no more.
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().split_whitespace().next().unwrap().to_string()
    };
    assert_eq!(line("Uid:"), USER.to_string());
    assert_eq!(line("CapEff:").trim_start_matches('0'), "");
    assert_eq!(line("NoNewPrivs:"), "1");
    let compiled = fs::read_dir(pod.volumes.path().join("data")).unwrap();
    assert!(compiled.count() > 0);
}

/// Does what deploy/Dockerfile says in a folder, and gives the variables that it sets.
fn unpack(image: &Path) -> Vec<String> {
    let dockerfile = fs::read_to_string(root().join("deploy/Dockerfile")).unwrap();
    let text = dockerfile.replace("\\\n", " ");
    let mut variables = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["COPY", .., source, target] => {
                let target = image.join(target.trim_start_matches('/'));
                fs::create_dir_all(target.parent().unwrap()).unwrap();
                let source = root().join("target/image").join(source);
                let copied = Command::new("cp")
                    .arg("-rT")
                    .args([source, target])
                    .status();
                assert!(copied.unwrap().success(), "`make image-files` makes them");
            }
            ["ENV", ..] => variables.extend(words[1..].iter().map(ToString::to_string)),
            _ => {}
        }
    }
    variables.retain(|variable| !variable.starts_with("TRAINER_LISTEN="));
    assert_eq!(variables.len(), 2, "{variables:?}");
    // Where a container runtime mounts.
    for folder in ["var", "etc/trainer", "dev", "proc"] {
        fs::create_dir_all(image.join(folder)).unwrap();
    }
    variables
}
