//! What a plugin's bytes say before anything compiles them: is it WebAssembly, does it import
//! nothing, which version of the contract was it built for.

use wasmparser::{Encoding, Parser, Payload};
use wit_component::ComponentEncoder;

use super::LoadError;

/// The interface that a plugin exports.
const INTERFACE: &str = "deepfinery:trainer/framework@";
/// The versions of the contract that this host speaks.
const SPOKEN: &[&str] = &["0.1.0"];

/// A plugin's bytes as a component, whose contract this host speaks.
///
/// # Errors
///
/// Why the bytes are no plugin for this host, in words that name the fault and not the linker's.
pub(super) fn component(bytes: &[u8]) -> Result<Vec<u8>, LoadError> {
    let found = read(bytes).map_err(LoadError::NotWebAssembly)?;
    if let Some(import) = found.imports.first() {
        return Err(LoadError::Imports {
            first: import.clone(),
            count: found.imports.len(),
        });
    }
    let Some(version) = found.version else {
        return Err(LoadError::NoContract);
    };
    if !SPOKEN.contains(&version.as_str()) {
        return Err(LoadError::ContractVersion {
            built_for: version,
            spoken: SPOKEN.join(", "),
        });
    }
    match found.encoding {
        Encoding::Component => Ok(bytes.to_vec()),
        // What `cargo build --target wasm32-unknown-unknown` leaves.
        Encoding::Module => ComponentEncoder::default()
            .validate(true)
            .module(bytes)
            .and_then(|mut encoder| encoder.encode())
            .map_err(|error| LoadError::NotAComponent(format!("{error:#}"))),
    }
}

struct Found {
    encoding: Encoding,
    imports: Vec<String>,
    version: Option<String>,
}

fn read(bytes: &[u8]) -> Result<Found, String> {
    let mut found = Found {
        encoding: Encoding::Module,
        imports: Vec::new(),
        version: None,
    };
    // Modules and components nested in the outermost one have imports among themselves.
    let mut depth = 0;
    let text = |error: wasmparser::BinaryReaderError| error.to_string();
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(text)? {
            Payload::Version { encoding, .. } if depth == 0 => found.encoding = encoding,
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth -= 1,
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

impl Found {
    /// Notes the contract's version: a component exports the interface, a module each function of
    /// it as `interface@version#function`.
    fn export(&mut self, name: &str) {
        if let Some(rest) = name.strip_prefix(INTERFACE) {
            let version = rest.split('#').next().unwrap_or(rest);
            self.version = Some(version.to_string());
        }
    }
}
