//! What a folder of plugins looks like, to be compared with what it looked like before.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Maximum number of files that are read in a folder.
const MOST_FILES: usize = 10_000;

/// A folder and its files, without what is in them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Listing {
    folder: Option<FolderId>,
    files: BTreeMap<OsString, Option<File>>,
}

/// Device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FolderId(u64, u64);

/// What changes when a file is written or replaced. Of a symbolic link, the file that it leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct File {
    device: u64,
    inode: u64,
    size: u64,
    mode: u32,
    /// Seconds and nanoseconds of the last change of its content, and of anything about it.
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Listing {
    pub(super) fn of(folder: &Path) -> Self {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let files = entries.take(MOST_FILES).map(|entry| {
            let metadata = std::fs::metadata(entry.path());
            (
                entry.file_name(),
                metadata.ok().map(|found| File::of(&found)),
            )
        });
        let metadata = std::fs::metadata(folder).ok();
        Self {
            files: files.collect(),
            folder: metadata.map(|found| FolderId(found.dev(), found.ino())),
        }
    }

    /// Which folder it is, if there is one.
    pub(super) fn folder(&self) -> Option<FolderId> {
        self.folder
    }
}

impl File {
    fn of(metadata: &std::fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            mode: metadata.mode(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_listing_changes_with_files_links_and_the_folder_itself() {
        let root = tempfile::tempdir().unwrap();
        let (folder, other) = (root.path().join("a"), root.path().join("b"));
        for folder in [&folder, &other] {
            std::fs::create_dir(folder).unwrap();
            std::fs::write(folder.join("hf.wasm"), "one").unwrap();
        }
        let link = root.path().join("link");
        symlink(&folder, &link).unwrap();
        let mut seen = vec![Listing::of(&link)];
        assert_eq!(seen[0], Listing::of(&link));
        let mut changed = |what: &str| {
            let now = Listing::of(&link);
            assert!(!seen.contains(&now), "{what}");
            seen.push(now);
        };
        std::fs::write(folder.join("meta.wasm"), "new").unwrap();
        changed("a new file");
        std::fs::write(folder.join("hf.wasm"), "three").unwrap();
        changed("another size");
        std::fs::rename(other.join("hf.wasm"), folder.join("hf.wasm")).unwrap();
        changed("another file of the name");
        symlink("nowhere", folder.join("gone.wasm")).unwrap();
        changed("a dangling link");
        std::fs::remove_file(&link).unwrap();
        symlink(&other, &link).unwrap();
        changed("a link that is switched");
        std::fs::remove_dir(&other).unwrap();
        changed("no folder");
    }
}
