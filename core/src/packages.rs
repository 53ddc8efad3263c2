//! The Python packages of images. Plugins get those of a job's image, and refuse jobs that need others.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::pattern::matches;

/// What the trainer image contains. `make lock` writes the file.
const OF_TRAINER_IMAGE: &str = include_str!("../../trainer/packages.txt");
/// The trainer image, whatever its tag.
const TRAINER_IMAGE: [&str; 3] = [
    "ghcr.io/deepfinery/trainer",
    "ghcr.io/deepfinery/trainer:*",
    "ghcr.io/deepfinery/trainer@*",
];

/// The packages of an image: names and versions. A version that is not known is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Packages {
    versions: BTreeMap<String, String>,
    #[serde(skip)]
    line: String,
}

impl Packages {
    /// Reads names with or without versions, such as `torch==2.15.0`.
    ///
    /// # Errors
    ///
    /// The first word that is not one.
    pub fn read<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let mut versions = BTreeMap::new();
        for word in words {
            let (name, version) = word.split_once("==").unwrap_or((word, ""));
            if !is_name(name) || !is_version(version) {
                return Err(format!(
                    "{word:?} is not a package; write NAME or NAME==VERSION, as pip freeze does"
                ));
            }
            versions.insert(normalized(name), version.to_string());
        }
        Ok(Self::of(versions))
    }

    fn of(versions: BTreeMap<String, String>) -> Self {
        let words = versions
            .iter()
            .map(|(name, version)| match version.as_str() {
                "" => name.clone(),
                version => format!("{name}=={version}"),
            });
        let line = words.collect::<Vec<_>>().join(" ");
        Self { versions, line }
    }

    /// Adds packages, or replaces their versions.
    fn with(&self, others: Self) -> Self {
        let mut versions = self.versions.clone();
        versions.extend(others.versions);
        Self::of(versions)
    }

    /// `NAME==VERSION` of each package, separated by spaces: the form of the image's label.
    pub fn line(&self) -> &str {
        &self.line
    }
}

/// Whether a text is a name according to the packaging specifications.
fn is_name(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    edge(text.bytes().next()) && edge(text.bytes().last()) && text.bytes().all(inner)
}

fn is_version(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b".+-!_".contains(&b);
    text.bytes().all(fits)
}

/// The name in lower case, with `-` for each run of separators.
fn normalized(name: &str) -> String {
    let parts = name.split(['-', '_', '.']).filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join("-").to_ascii_lowercase()
}

/// What is known about the packages of images.
#[derive(Clone, Debug)]
pub struct Images(Vec<(String, Arc<Packages>)>);

impl Default for Images {
    /// The trainer image.
    fn default() -> Self {
        let packages = Arc::new(of_trainer_image());
        let known = TRAINER_IMAGE.map(|image| (image.to_string(), packages.clone()));
        Self(known.to_vec())
    }
}

impl Images {
    /// Where every job has the same packages, whatever its image.
    pub fn same(packages: Packages) -> Self {
        Self(vec![("*".to_string(), Arc::new(packages))])
    }

    /// Where nothing is known.
    pub fn unknown() -> Self {
        Self(Vec::new())
    }

    /// The packages of an image, if they are known.
    pub fn packages(&self, image: &str) -> Option<Arc<Packages>> {
        let mut known = self.0.iter();
        let (_, packages) = known.find(|(pattern, _)| matches(pattern, image))?;
        Some(packages.clone())
    }
}

fn of_trainer_image() -> Packages {
    let words = OF_TRAINER_IMAGE.split_whitespace();
    Packages::read(words).unwrap_or_default()
}

/// The operator's file about images.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ImagesFile {
    /// The first entry that matches an image counts.
    images: Vec<ImageEntry>,
}

/// The packages of the images that match a pattern.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct ImageEntry {
    /// An image, in which `*` stands for any characters.
    image: String,
    /// All packages of the image.
    packages: Option<Vec<String>>,
    /// Packages in addition to those of the trainer image.
    adds: Option<Vec<String>>,
}

impl ImagesFile {
    /// The images of the file, and the trainer image.
    ///
    /// # Errors
    ///
    /// Everything that is wrong, one sentence each, starting with the path of the member in the file.
    pub fn read(&self) -> Result<Images, Vec<String>> {
        let mut wrong = Vec::new();
        let mut known = Vec::new();
        for (index, entry) in self.images.iter().enumerate() {
            match entry.read() {
                Ok(packages) => known.push((entry.image.clone(), Arc::new(packages))),
                Err(why) => wrong.push(format!("images[{index}]{why}")),
            }
        }
        known.extend(Images::default().0);
        match wrong.is_empty() {
            true => Ok(Images(known)),
            false => Err(wrong),
        }
    }
}

impl ImageEntry {
    fn read(&self) -> Result<Packages, String> {
        if self.image.is_empty() {
            return Err(".image: missing; name an image, with * for any characters".to_string());
        }
        let read = |member: &str, words: &[String]| {
            Packages::read(words.iter().map(String::as_str))
                .map_err(|why| format!(".{member}: {why}"))
        };
        match (&self.packages, &self.adds) {
            (Some(packages), None) => read("packages", packages),
            (None, Some(more)) => Ok(of_trainer_image().with(read("adds", more)?)),
            _ => Err(": needs either packages or adds".to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(entries: serde_json::Value) -> Result<Images, Vec<String>> {
        let file: ImagesFile =
            serde_json::from_value(serde_json::json!({"images": entries})).unwrap();
        file.read()
    }

    fn has(images: &Images, image: &str, package: &str) -> Option<bool> {
        Some(images.packages(image)?.versions.contains_key(package))
    }

    #[test]
    fn the_trainer_image_is_known_whatever_its_tag() {
        let images = Images::default();
        for image in ["ghcr.io/deepfinery/trainer", "ghcr.io/deepfinery/trainer:1"] {
            assert_eq!(has(&images, image, "torch"), Some(true), "{image}");
            assert_eq!(has(&images, image, "mlflow"), Some(false), "{image}");
        }
        assert_eq!(
            has(&images, "ghcr.io/deepfinery/trainer-x:1", "torch"),
            None
        );
        let packages = images.packages("ghcr.io/deepfinery/trainer").unwrap();
        assert_eq!(packages.line().split(' ').count(), packages.versions.len());
        assert!(packages.versions.len() > 50);
    }

    #[test]
    fn the_first_entry_of_the_file_that_matches_counts() {
        let images = file(serde_json::json!([
            {"image": "reg/a:1", "packages": ["Galore_Torch==1.0"]},
            {"image": "reg/a:*", "adds": ["mlflow"]},
            {"image": "ghcr.io/deepfinery/trainer:own", "packages": []},
        ]))
        .unwrap();
        assert_eq!(has(&images, "reg/a:1", "galore-torch"), Some(true));
        assert_eq!(has(&images, "reg/a:1", "torch"), Some(false));
        assert_eq!(has(&images, "reg/a:2", "mlflow"), Some(true));
        assert_eq!(has(&images, "reg/a:2", "torch"), Some(true));
        assert_eq!(has(&images, "reg/b:2", "torch"), None);
        let own = "ghcr.io/deepfinery/trainer:own";
        assert_eq!(has(&images, own, "torch"), Some(false));
        assert_eq!(
            has(&images, "ghcr.io/deepfinery/trainer:2", "torch"),
            Some(true)
        );
    }

    #[test]
    fn mistakes_in_the_file_are_reported_with_their_place() {
        let wrong = file(serde_json::json!([
            {"image": "a", "packages": ["torch>=2"]},
            {"image": "a"},
            {"image": "a", "packages": [], "adds": []},
            {"packages": []},
        ]))
        .unwrap_err();
        assert_eq!(
            wrong,
            [
                "images[0].packages: \"torch>=2\" is not a package; write NAME or NAME==VERSION, as \
                 pip freeze does",
                "images[1]: needs either packages or adds",
                "images[2]: needs either packages or adds",
                "images[3].image: missing; name an image, with * for any characters",
            ]
        );
    }

    proptest! {
        #[test]
        fn a_line_reads_as_the_packages_that_it_was_written_from(
            words in prop::collection::vec("[a-zA-Z0-9]{1,4}([-_.]{1,2}[a-z0-9]{1,3})?(==[0-9.]{1,5})?", 0..9),
        ) {
            let packages = Packages::read(words.iter().map(String::as_str)).unwrap();
            prop_assert_eq!(Packages::read(packages.line().split_whitespace()), Ok(packages));
        }

        #[test]
        fn nothing_that_is_written_makes_it_panic(word in r"\PC{0,20}") {
            let _ = Packages::read([word.as_str()]);
        }
    }
}
