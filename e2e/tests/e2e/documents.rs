//! The commands and examples in the documentation work.

use std::process::Command;

use e2e::documents::blocks;
use e2e::{Site, root};
use serde_json::Value;

#[test]
fn the_readmes_request_gets_the_readmes_answer() {
    let site = Site::with_pytorch().unwrap();
    let server = site.start().unwrap();
    let folder = site.data.path().display().to_string();
    let shell = blocks("README.md", "sh").unwrap();
    let block = shell.iter().find(|block| block.contains("curl")).unwrap();
    let block = block.replace("/tmp/trainer-demo", &folder);
    let (dataset, curl) = block.split_once("curl").unwrap();
    let made = Command::new("bash")
        .args(["-ec", dataset])
        .current_dir(root())
        .status();
    assert!(made.unwrap().success(), "{dataset}");
    let request = curl.split_once("-d '").unwrap().1;
    let request = request.split_once('\'').unwrap().0;
    let answers = blocks("README.md", "json").unwrap();
    let answer: Value = serde_json::from_str(&answers[0]).unwrap();
    let request: Value = serde_json::from_str(request).unwrap();
    let (status, given) = server.post("/train", &request).unwrap();
    assert_eq!((status, &given), (201, &answer));
    let name = answer["name"].as_str().unwrap();
    let ended: Value = serde_json::from_str(&answers[1]).unwrap();
    assert_eq!(server.wait_for(name, "succeeded").unwrap(), ended);
}

#[test]
fn every_explanation_that_the_documents_ask_for_is_given() {
    let data = tempfile::tempdir().unwrap();
    let mut count = 0;
    for document in ["README.md", "docs/api.md", "docs/plugin-author.md"] {
        let text = std::fs::read_to_string(root().join(document)).unwrap();
        // In a block of commands, or between backquotes in a sentence.
        for asked in text.split("trainer explain ").skip(1) {
            let topic: String = asked
                .chars()
                .take_while(|c| c.is_ascii_alphanumeric() || "._".contains(*c))
                .collect();
            let output = Command::new(e2e::binary())
                .args(["explain", &topic])
                .env("TRAINER_PLUGINS", root().join("target/plugins"))
                .env("TRAINER_DATA_DIR", data.path())
                .output()
                .unwrap();
            let message = String::from_utf8_lossy(&output.stdout);
            assert!(
                output.status.success() && !message.is_empty(),
                "{topic} of {document}"
            );
            count += 1;
        }
    }
    assert!(count >= 4, "{count}");
}

#[test]
fn make_help_lists_the_commands_that_the_documents_name() {
    let help = Command::new("make")
        .arg("help")
        .current_dir(root())
        .output()
        .unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    for document in [
        "README.md",
        "ARCHITECTURE.md",
        "docs/operator.md",
        "docs/plugin-author.md",
    ] {
        let text = std::fs::read_to_string(root().join(document)).unwrap();
        for line in text.lines().filter(|line| line.starts_with("make ")) {
            let command: String = line
                .split_whitespace()
                .take(2)
                .collect::<Vec<_>>()
                .join(" ");
            assert!(
                help.contains(&command),
                "{command} of {document} is not in: {help}"
            );
        }
    }
}

#[test]
fn the_settings_page_names_every_setting() {
    let page = std::fs::read_to_string(root().join("docs/operator.md")).unwrap();
    let help = Command::new(e2e::binary())
        .args(["serve", "--help"])
        .output()
        .unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let names = help.split("[env: ").skip(1);
    let mut count = 0;
    for name in names.map(|rest| rest.split(['=', ']']).next().unwrap()) {
        assert!(
            page.contains(&format!("`{name}`")),
            "{name} is not in docs/operator.md"
        );
        count += 1;
    }
    assert!(count > 10, "{help}");
}
