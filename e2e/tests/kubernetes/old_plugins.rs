//! Plugins of an early version of the contract's tools, in each language, start jobs of both kinds.

use std::time::{Duration, Instant};

use e2e::control_plane::{ControlPlane, Overlay};
use e2e::{Server, Site, root};
use serde_json::{Value, json};
use trainer_host::job_kind::JobKind;

use crate::kinds;
use crate::service::{request, with_compiled_plugins};

/// The time to compile a plugin that contains Python.
const PATIENCE: Duration = Duration::from_secs(300);

#[test]
#[ignore = "`make old-plugins` builds the plugins and runs it"]
fn plugins_of_an_early_version_start_jobs_of_both_kinds() {
    let folder = root().join("target/old-plugins");
    assert!(
        folder.join("meta.wasm").exists(),
        "`make old-plugins` builds it"
    );
    let plane = ControlPlane::shared().unwrap();
    for kind in JobKind::ALL {
        let namespace = kinds::namespace(kind, "old-plugins");
        let deployment = kinds::install(plane, kind, Overlay::OneNamespace, &namespace).unwrap();
        let site = Site::on_kubernetes(&deployment.kubeconfig, &namespace).unwrap();
        let site = with_compiled_plugins(kinds::creates(site, kind));
        let site = site.set("TRAINER_PLUGINS", &folder.display().to_string());
        let server = site.start().unwrap();
        for framework in ["meta", "old-python", "old-javascript"] {
            if folder.join(format!("{framework}.wasm")).exists() {
                wait_for(&server, framework);
                let name = submit(&server, framework);
                let pods = kinds::pods_of(kind, &name);
                server.wait_for(&name, "running").unwrap();
                let pods = kinds::objects(plane, &namespace, "pods", &pods);
                assert_eq!(pods.len(), 2, "{framework}");
                for pod in &pods {
                    knows_its_rank(kind, pod);
                }
                server.wait_for(&name, "succeeded").unwrap();
            }
        }
    }
}

fn wait_for(server: &Server, framework: &str) {
    let begun = Instant::now();
    let is_served = || server.get(&format!("/frameworks/{framework}")).unwrap().0 == 200;
    while !is_served() || server.get("/readyz").unwrap().0 != 200 {
        assert!(begun.elapsed() < PATIENCE, "{framework} is not served");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn submit(server: &Server, framework: &str) -> String {
    let mut run = request("old", &json!({"fake.test/run-for": "3s"}));
    run["framework"] = json!(framework);
    run["num_nodes"] = json!(2);
    run["extra_args"] = json!({"max_steps": 100});
    server.submit(&run).unwrap()
}

/// Whether the command has the rank of the pod from a variable that the pod has.
fn knows_its_rank(kind: JobKind, pod: &Value) {
    let container = &pod["spec"]["containers"][0];
    let words = container["command"].as_array().unwrap().iter();
    let mut words = words.map(|word| word.as_str().unwrap());
    let variable = match kind {
        JobKind::PyTorchJob => "RANK",
        JobKind::TrainJob => "PET_NODE_RANK",
    };
    let word = format!("--node_rank=$({variable})");
    assert!(words.any(|found| found == word), "{container}");
    let mut variables = container["env"].as_array().unwrap().iter();
    assert!(
        variables.any(|found| found["name"] == variable),
        "{container}"
    );
}
