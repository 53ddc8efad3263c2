//! The OpenAPI document as other programs read it: a tester, and two generators of clients.
//! `make contract` installs them.

use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::documents::blocks;
use e2e::{Server, Site, root};
use serde_json::Value;

/// A program of the Python environment of these tests.
fn tool(name: &str) -> PathBuf {
    let folder = std::env::var("TRAINER_CONTRACT_TOOLS").unwrap();
    Path::new(&folder).join("bin").join(name)
}

fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (printed, errors) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{command:?}: {printed}{errors}");
    printed
}

/// What an independent tester makes of the document. `make contract` installs it.
#[test]
#[ignore = "needs schemathesis: make contract"]
fn it_holds_for_whatever_the_document_allows() {
    // There is room for every job, so that each ends and what follows it does.
    let site = Site::with_launcher("#!/bin/sh\necho said\n").unwrap();
    let site = site.set("TRAINER_LOCAL_SLOTS", "1000000");
    let server = site.start().unwrap();
    let request = e2e::training(site.data.path(), "there", 1).unwrap();
    let job = server.submit(&request).unwrap();
    server.wait_for(&job, "succeeded").unwrap();
    let url = format!("http://{}", server.address);
    let tested = Command::new(tool("schemathesis"))
        .args(["run", &format!("{url}/openapi.json"), "--url", &url])
        .args(["--checks", "all", "--max-examples", "400", "--no-color"])
        // A stream that does not end.
        .args(["--exclude-path", "/events"])
        .current_dir(root().join("e2e"))
        .output()
        .unwrap();
    let message = String::from_utf8_lossy(&tested.stdout);
    println!("{message}");
    assert!(tested.status.success(), "{}", site.service_log());
    let cases = message.split("Test cases:").nth(1).unwrap();
    let cases: u32 = cases.split_whitespace().next().unwrap().parse().unwrap();
    assert!(cases >= 5000, "{cases} cases");
}

/// A replica that reports three steps.
const REPORTS: &str = r#"#!/bin/sh
for step in 1 2 3; do
  printf '{"event": "progress", "step": %s, "total_steps": 3, "loss": 1.5, "tokens_per_second": 100, "seconds_left": 1}\n' \
    $step
done
sleep 1
"#;

/// Writes the document of a service into a folder.
fn document(server: &Server, folder: &Path) -> PathBuf {
    let (status, document) = server.get("/openapi.json").unwrap();
    assert_eq!(status, 200);
    let file = folder.join("openapi.json");
    std::fs::write(&file, document.to_string()).unwrap();
    file
}

#[test]
#[ignore = "needs openapi-python-client: make contract"]
fn a_generated_python_client_runs_every_operation() {
    let site = Site::with_launcher(REPORTS).unwrap();
    let server = site.start().unwrap();
    let folder = site.data.path();
    let package = folder.join("client");
    let generated = succeed(
        Command::new(tool("openapi-python-client"))
            .args(["generate", "--meta=none", "--path"])
            .arg(document(&server, folder))
            .arg("--output-path")
            .arg(package.join("unified_trainer_api_client"))
            .env("PATH", tool("")),
    );
    println!("{generated}");
    let request = folder.join("request.json");
    let body = e2e::training(folder, "generated", 3).unwrap();
    std::fs::write(&request, body.to_string()).unwrap();
    let called = succeed(
        Command::new(tool("python"))
            .arg(root().join("e2e/clients/every_operation.py"))
            .arg(package)
            .arg(format!("http://{}", server.address))
            .arg(request),
    );
    println!("{called}");
}

/// The body that the README sends with curl.
fn request_of_the_readme() -> Value {
    let commands = blocks("README.md", "sh").unwrap();
    let sent = commands.iter().find_map(|block| block.split("-d '").nth(1));
    serde_json::from_str(sent.unwrap().split('\'').next().unwrap()).unwrap()
}

#[test]
#[ignore = "needs npm packages: make contract"]
fn a_typescript_client_compiles_and_sends_the_request_of_the_readme() {
    let modules = std::env::var("TRAINER_CONTRACT_NODE_MODULES").unwrap();
    let site = Site::with_launcher(REPORTS).unwrap();
    let server = site.start().unwrap();
    let folder = site.data.path().join("typescript");
    std::fs::create_dir(&folder).unwrap();
    std::fs::create_dir_all("/tmp/trainer-demo/data").unwrap();
    for file in ["package.json", "tsconfig.json", "submit.ts"] {
        let source = root().join("e2e/clients/typescript").join(file);
        std::fs::copy(source, folder.join(file)).unwrap();
    }
    std::os::unix::fs::symlink(&modules, folder.join("node_modules")).unwrap();
    let request = format!(
        "import type {{ components }} from \"./schema.js\";\n\
         export const address = \"http://{}\";\n\
         export const request: components[\"schemas\"][\"TrainingJobRequest\"] = {:#};\n",
        server.address,
        request_of_the_readme()
    );
    std::fs::write(folder.join("request.ts"), request).unwrap();
    let node = |program: &str| {
        let mut command = Command::new(Path::new(&modules).join(".bin").join(program));
        command.current_dir(&folder);
        command
    };
    let document = document(&server, &folder);
    succeed(
        node("openapi-typescript")
            .arg(document)
            .args(["-o", "schema.d.ts"]),
    );
    succeed(&mut node("tsc"));
    let sent = succeed(
        Command::new("node")
            .arg("out/submit.js")
            .current_dir(&folder),
    );
    assert_eq!(sent, "meta-typescript 1\n");
}
