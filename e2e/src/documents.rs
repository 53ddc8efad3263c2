//! The documents of the project, whose commands and examples tests run.

use anyhow::{Context, Result};

use crate::root;

/// The fenced blocks of a document in one language.
///
/// # Errors
///
/// When the document cannot be read.
pub fn blocks(document: &str, language: &str) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(root().join(document)).context(document.to_string())?;
    let fence = format!("```{language}\n");
    let parts = text.split(&fence).skip(1);
    let blocks = parts.map(|part| part.split("```").next().unwrap_or_default().to_string());
    Ok(blocks.collect())
}
