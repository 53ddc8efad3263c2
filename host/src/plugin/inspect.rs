//! Inspects a plugin without compiling it: file format, imports, contract version and self-tests.

use std::fmt;

use wasmparser::{Encoding, Parser, Payload};
use wit_component::ComponentEncoder;

use super::LoadError;

/// The interface that a plugin exports.
const INTERFACE: &str = "deepfinery:trainer/framework@";
/// The oldest and newest contract versions that this host supports. Each is frozen under
/// `wit/released`.
const OLDEST: Track = Track { major: 0, minor: 1 };
const NEWEST: Track = Track { major: 0, minor: 1 };
/// The custom section with a plugin's self-tests.
pub const SELF_TESTS: &str = "trainer:self-tests";

/// The part of a contract version that determines compatibility; patch versions do not affect
/// plugins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Track {
    major: u32,
    minor: u32,
}

impl Track {
    fn of(version: &str) -> Option<Self> {
        let mut numbers = version.split('.').map(|number| number.parse().ok());
        Some(Self {
            major: numbers.next()??,
            minor: numbers.next()??,
        })
    }
}

impl fmt::Display for Track {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.major, self.minor)
    }
}

/// Properties of a file that are known without compiling or running it.
#[derive(Debug, Default)]
pub struct Inspection {
    /// Whether it is a component; the host converts modules.
    pub form: Form,
    /// Its imports; there should be none.
    pub imports: Vec<String>,
    /// Its exports.
    pub exports: Vec<String>,
    /// The contract version that it was built for.
    pub contract: Option<String>,
    /// Its self-tests, as JSON text.
    pub self_tests: Option<String>,
}

/// The kind of a WebAssembly file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    Component,
    #[default]
    Module,
}

/// Parses the sections of a file.
///
/// # Errors
///
/// If it is not WebAssembly.
pub fn inspect(bytes: &[u8]) -> Result<Inspection, LoadError> {
    read(bytes).map_err(LoadError::NotWebAssembly)
}

/// Checks that this host supports the contract version of a file and that it imports nothing.
///
/// # Errors
///
/// Why it does not fit, in words that name the mistake and not the linker's.
pub fn check(found: &Inspection) -> Result<(), LoadError> {
    if let Some(import) = found.imports.first() {
        return Err(LoadError::Imports {
            first: import.clone(),
            count: found.imports.len(),
        });
    }
    let Some(version) = &found.contract else {
        return Err(LoadError::NoContract);
    };
    let track = Track::of(version);
    match track {
        Some(track) if (OLDEST..=NEWEST).contains(&track) => Ok(()),
        _ => Err(LoadError::ContractVersion {
            built_for: track.map_or_else(|| version.clone(), |track| track.to_string()),
            spoken: spoken(),
        }),
    }
}

/// The contract versions that this host supports.
pub fn spoken() -> String {
    format!("{OLDEST} to {NEWEST}")
}

/// Converts a plugin's bytes to a component.
///
/// # Errors
///
/// If a module cannot be converted.
pub(super) fn component(bytes: &[u8], found: &Inspection) -> Result<Vec<u8>, LoadError> {
    match found.form {
        Form::Component => Ok(bytes.to_vec()),
        // The output of `cargo build --target wasm32-unknown-unknown`.
        Form::Module => ComponentEncoder::default()
            .validate(true)
            .module(bytes)
            .and_then(|mut encoder| encoder.encode())
            .map_err(|error| LoadError::NotAComponent(format!("{error:#}"))),
    }
}

fn read(bytes: &[u8]) -> Result<Inspection, String> {
    if !bytes.starts_with(b"\0asm") {
        return Err("it does not start with the WebAssembly magic number".to_string());
    }
    let mut found = Inspection::default();
    // Nested modules and components import from each other; only the outermost imports count.
    let mut depth = 0;
    let text = |error: wasmparser::BinaryReaderError| error.to_string();
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(text)? {
            Payload::Version { encoding, .. } if depth == 0 => {
                found.form = match encoding {
                    Encoding::Component => Form::Component,
                    Encoding::Module => Form::Module,
                };
            }
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth -= 1,
            Payload::CustomSection(section) if depth == 0 && section.name() == SELF_TESTS => {
                let tests = std::str::from_utf8(section.data());
                let tests = tests.map_err(|error| format!("section {SELF_TESTS}: {error}"))?;
                found.self_tests = Some(tests.to_string());
            }
            Payload::ImportSection(imports) if depth == 0 => {
                for import in imports.into_imports() {
                    let import = import.map_err(text)?;
                    found
                        .imports
                        .push(format!("{}#{}", import.module, import.name));
                }
            }
            Payload::ExportSection(exports) if depth == 0 => {
                for export in exports {
                    found.export(export.map_err(text)?.name);
                }
            }
            Payload::ComponentImportSection(imports) if depth == 0 => {
                for import in imports {
                    found
                        .imports
                        .push(import.map_err(text)?.name.name.to_string());
                }
            }
            Payload::ComponentExportSection(exports) if depth == 0 => {
                for export in exports {
                    found.export(export.map_err(text)?.name.name);
                }
            }
            _ => {}
        }
    }
    Ok(found)
}

impl Inspection {
    /// Records an export and the contract version in it: a component exports the interface, a
    /// module exports each function as `interface@version#function`.
    fn export(&mut self, name: &str) {
        self.exports.push(name.to_string());
        if let Some(rest) = name.strip_prefix(INTERFACE) {
            let version = rest.split('#').next().unwrap_or(rest);
            self.contract = Some(version.to_string());
        }
    }
}
