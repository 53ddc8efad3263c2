//! `trainer clone`: the request of a job, submitted again.

use e2e::{Server, Site};
use serde_json::{Value, json};

use crate::client::{printed, run};

fn request_of(server: &Server, job: &str) -> Value {
    let (status, request) = server.get(&format!("/train/{job}/request")).unwrap();
    assert_eq!(status, 200, "{request}");
    request
}

#[test]
fn a_clone_has_the_request_of_the_job_another_run_id_and_the_changes() {
    let site = Site::with_launcher("#!/bin/sh\nsleep 0.1\n").unwrap();
    let server = site.start().unwrap();
    let folder = site.data.path();
    let mut request = e2e::training(folder, "sweep-09", 1).unwrap();
    request["env"] = json!({"PRICE": "5$", "TRAINER_LOG_LEVEL": "DEBUG"});
    request["labels"] = json!({"team": "vision"});
    request["job_name"] = "own-name".into();
    let job = server.submit(&request).unwrap();
    let original = request_of(&server, &job);
    for (field, value) in request.as_object().unwrap() {
        assert_eq!(original[field], *value, "{field}");
    }

    let line =
        "trainer clone own-name --set extra_args.lr=0.5 --set labels.team=speech --watch -o name";
    let copy = printed(&run(&server, folder, line));
    let copy = request_of(&server, copy.trim());
    let mut expected = original;
    expected["run_id"] = "sweep-10".into();
    expected["extra_args"]["lr"] = 0.5.into();
    expected["labels"]["team"] = "speech".into();
    expected.as_object_mut().unwrap().remove("job_name");
    assert_eq!(copy, expected);

    let dry = printed(&run(
        &server,
        folder,
        "trainer clone own-name --run-id other --dry-run",
    ));
    assert!(dry.contains("run-id: other"), "{dry}");
    let refused = run(
        &server,
        folder,
        "trainer clone own-name --set extra_args.lr=fast",
    );
    let message = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(3), "{message}");
    assert!(message.contains("extra_args.lr"), "{message}");
    let missing = run(&server, folder, "trainer clone own-nam");
    let message = String::from_utf8(missing.stderr).unwrap();
    assert_eq!(missing.status.code(), Some(4), "{message}");
    assert!(message.contains("own-name"), "{message}");
}
