//! Tests of a replica's reports.

use super::*;

#[test]
fn the_temporary_folder_of_a_pod_is_a_private_one_here() {
    let scratch = Path::new("/data/scratch");
    let cases = [
        ("/tmp/trainer", "/data/scratch"),
        ("/tmp/trainer/hf", "/data/scratch/hf"),
        ("/tmp/trainer-demo", "/tmp/trainer-demo"),
        ("file:///tmp/trainer/runs", "file:///tmp/trainer/runs"),
        ("/tmp", "/tmp"),
    ];
    for (value, expected) in cases {
        assert_eq!(in_scratch(value, scratch), expected);
    }
}
