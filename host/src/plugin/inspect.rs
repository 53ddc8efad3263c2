//! What a plugin's bytes say before anything compiles them: is it WebAssembly, does it import
//! nothing, which version of the contract was it built for, which tests does it carry.

use std::fmt;

use wasmparser::{Encoding, Parser, Payload};
use wit_component::ComponentEncoder;

use super::LoadError;

/// The interface that a plugin exports.
const INTERFACE: &str = "deepfinery:trainer/framework@";
/// The oldest and the newest version of the contract that this host speaks. Each of them is frozen
/// under `wit/released`.
const OLDEST: Track = Track { major: 0, minor: 1 };
const NEWEST: Track = Track { major: 0, minor: 1 };
/// The custom section in which a plugin carries its own tests.
pub const SELF_TESTS: &str = "trainer:self-tests";

/// Versions of the contract that fit each other: a patch changes nothing that a plugin is built of.
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

/// What a file says of itself without being compiled or run.
#[derive(Debug, Default)]
pub struct Inspection {
    /// Whether it is a component already; a module becomes one in the host.
    pub form: Form,
    /// What it imports, which should be nothing.
    pub imports: Vec<String>,
    /// What it exports.
    pub exports: Vec<String>,
    /// The version of the contract that it was built for.
    pub contract: Option<String>,
    /// The tests that it carries, as JSON text.
    pub self_tests: Option<String>,
}

/// What kind of WebAssembly a file is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    Component,
    #[default]
    Module,
}

/// Reads a file's sections.
///
/// # Errors
///
/// When it is not WebAssembly.
pub fn inspect(bytes: &[u8]) -> Result<Inspection, LoadError> {
    read(bytes).map_err(LoadError::NotWebAssembly)
}

/// Checks that this host speaks the contract of a file and that it imports nothing.
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

/// The versions of the contract that this host speaks.
pub fn spoken() -> String {
    format!("{OLDEST} to {NEWEST}")
}

/// A plugin's bytes as a component.
///
/// # Errors
///
/// When a module cannot be made one.
pub(super) fn component(bytes: &[u8], found: &Inspection) -> Result<Vec<u8>, LoadError> {
    match found.form {
        Form::Component => Ok(bytes.to_vec()),
        // What `cargo build --target wasm32-unknown-unknown` leaves.
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
    // Modules and components nested in the outermost one have imports among themselves.
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
    /// Notes an export, and of the contract's the version: a component exports the interface, a
    /// module each function of it as `interface@version#function`.
    fn export(&mut self, name: &str) {
        self.exports.push(name.to_string());
        if let Some(rest) = name.strip_prefix(INTERFACE) {
            let version = rest.split('#').next().unwrap_or(rest);
            self.contract = Some(version.to_string());
        }
    }
}
