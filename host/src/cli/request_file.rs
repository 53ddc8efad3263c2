//! Reads a request from a file.

use std::io::Read;
use std::path::Path;

use anyhow::Context;
use serde_json::Value;

use crate::finding::Finding;
use crate::request;

/// A request from a file: JSON is YAML too, but only JSON's own reader sees a name given twice.
pub(super) fn read_request(file: &Path) -> anyhow::Result<Value> {
    let mut text = String::new();
    let read = match file.to_str() {
        Some("-") => std::io::stdin().read_to_string(&mut text),
        _ => std::fs::File::open(file).and_then(|mut f| f.read_to_string(&mut text)),
    };
    read.with_context(|| format!("cannot read {}", file.display()))?;
    if text.trim_start().starts_with('{') {
        return request::json::parse(text.as_bytes()).map_err(refused);
    }
    serde_saphyr::from_str(&text).with_context(|| format!("{} is not valid YAML", file.display()))
}

pub(super) fn refused(findings: Vec<Finding>) -> anyhow::Error {
    let lines: Vec<String> = findings
        .iter()
        .map(|finding| format!("  {} {}", finding.code, finding.detail))
        .collect();
    anyhow::anyhow!("the request was refused:\n{}", lines.join("\n"))
}
