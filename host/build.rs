//! Builds the binary anew when what it carries for `trainer plugin new` changes.

fn main() {
    for folder in ["templates", "../plugins/sdk/src", "../wit"] {
        println!("cargo::rerun-if-changed={folder}");
    }
}
