//! What is known about the packages of images: the operator's file, and the local Python environment.

use std::fs;
use std::path::{Path, PathBuf};

use super::named_file;
use crate::packages::{Images, ImagesFile, Packages};
use crate::{document, text};

/// The images of a file, or only the trainer image without a file.
///
/// # Errors
///
/// Everything that is wrong with the file.
pub(super) fn images_in(file: Option<&PathBuf>) -> anyhow::Result<Images> {
    let Some(file) = named_file(file) else {
        return Ok(Images::default());
    };
    let file_name = file.display();
    let text = text::read(file)?;
    let wrong = |wrong: Vec<String>| anyhow::anyhow!("{file_name}:\n  {}", wrong.join("\n  "));
    let images: ImagesFile = document::from_yaml(&text).map_err(wrong)?;
    images.read().map_err(wrong)
}

/// The packages of a virtual environment, which are those of every job on the local cluster. Nothing is
/// known without one, or if it also uses the packages of the system.
pub(super) fn local_packages(environment: Option<&Path>) -> Images {
    let packages = environment.and_then(installed);
    packages.map_or_else(Images::unknown, Images::same)
}

fn installed(environment: &Path) -> Option<Packages> {
    let settings = fs::read_to_string(environment.join("pyvenv.cfg")).ok()?;
    if settings.contains("include-system-site-packages = true") {
        return None;
    }
    let mut versions = fs::read_dir(environment.join("lib")).ok()?.flatten();
    let packages =
        versions.find(|entry| entry.file_name().to_string_lossy().starts_with("python"))?;
    let folder = fs::read_dir(packages.path().join("site-packages")).ok()?;
    let names = folder.flatten().filter_map(|entry| {
        let name = entry.file_name();
        let (package, version) = name.to_str()?.strip_suffix(".dist-info")?.split_once('-')?;
        Some(format!("{package}=={version}"))
    });
    let names: Vec<String> = names.collect();
    // Jobs do not run in an environment without packages.
    (!names.is_empty()).then(|| Packages::read(names.iter().map(String::as_str)).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(settings: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let packages = folder.path().join("lib/python3.11/site-packages");
        for name in [
            "torch-2.15.0.dist-info",
            "typing_extensions-4.1.dist-info",
            "torch",
        ] {
            fs::create_dir_all(packages.join(name)).unwrap();
        }
        fs::write(folder.path().join("pyvenv.cfg"), settings).unwrap();
        folder
    }

    #[test]
    fn the_packages_of_local_jobs_are_those_of_the_environment() {
        let folder = environment("include-system-site-packages = false\n");
        let packages = local_packages(Some(folder.path()))
            .packages("any:1")
            .unwrap();
        assert_eq!(packages.line(), "torch==2.15.0 typing-extensions==4.1");
    }

    #[test]
    fn nothing_is_known_of_an_environment_that_uses_those_of_the_system() {
        let folder = environment("include-system-site-packages = true\n");
        let unknown = [None, Some(folder.path()), Some(Path::new("/nowhere"))];
        for environment in unknown {
            assert_eq!(local_packages(environment).packages("any:1"), None);
        }
    }
}
