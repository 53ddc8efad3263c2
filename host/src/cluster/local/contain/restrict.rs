//! `trainer start-replica restricted`: containment by Landlock, for machines where this user may
//! not create namespaces. Contained processes cannot signal or trace other processes of any user,
//! and cannot read their memory or environment. They cannot open the files of the service if
//! Landlock can distinguish them from those of the user.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, BufRead, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, Ruleset, RulesetAttr,
    RulesetCreatedAttr, Scope, path_beneath_rules,
};
use rustix::fs::access;

use super::init::{CANNOT_START, answer, die_with_parent, not_started};
use super::{Outcome, Start};

/// Restricts this process, and becomes the command.
///
/// # Errors
///
/// When standard input is not the socket of a shim, or the command cannot be started.
pub fn run() -> io::Result<ExitCode> {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    let start: Start = serde_json::from_str(&line)?;
    let restricted = die_with_parent().and_then(|()| restrict(&start.hidden, &start.own_folder));
    let mut command = match start.command() {
        Ok(command) => command,
        Err(error) => {
            answer(&not_started(&error))?;
            return Ok(ExitCode::from(CANNOT_START));
        }
    };
    if let Err(error) = restricted {
        answer(&Outcome::NotContained(error.to_string()))?;
        return Ok(ExitCode::from(CANNOT_START));
    }
    answer(&Outcome::Started)?;
    let error = command.exec();
    let program = command.get_program().display();
    // For the log of the replica, which is where a shell would say it.
    let _ = writeln!(io::stderr(), "cannot start {program}: {error}");
    Ok(ExitCode::from(CANNOT_START))
}

/// Which of these files and folders can be hidden from a process of this user. Landlock knows no
/// exceptions: what is not granted is denied, and so are new files in each folder above a hidden
/// one. So nothing above the data folder may be a place where this user makes files.
pub fn can_hide(hidden: &[PathBuf], data_folder: &Path) -> Vec<PathBuf> {
    let is_writable = |folder: &Path| access(folder, rustix::fs::Access::WRITE_OK).is_ok();
    let can = |path: &&PathBuf| {
        let above = path.ancestors().skip(1);
        let mut above = above.filter(|folder| !folder.starts_with(data_folder));
        !above.any(is_writable)
    };
    hidden.iter().filter(can).cloned().collect()
}

fn restrict(hidden: &[PathBuf], own_folder: &Path) -> io::Result<()> {
    let failed = |error: landlock::RulesetError| io::Error::other(error.to_string());
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .scope(Scope::Signal)
        .map_err(failed)?;
    if hidden.is_empty() {
        let restricted = ruleset.create().and_then(|ruleset| ruleset.restrict_self());
        return restricted.map(drop).map_err(failed);
    }
    let granted = granted(hidden, own_folder);
    ruleset
        .handle_access(files())
        .and_then(Ruleset::create)
        .and_then(|ruleset| ruleset.add_rules(path_beneath_rules(granted, files())))
        .and_then(|ruleset| ruleset.restrict_self())
        .map(drop)
        .map_err(failed)
}

/// What is denied unless it is granted. Names can be listed and programs started everywhere: the
/// folders above a hidden one cannot be granted without what is in them.
fn files() -> BitFlags<AccessFs> {
    AccessFs::from_all(ABI::V3) & !(AccessFs::ReadDir | AccessFs::Execute)
}

/// Everything but the hidden files and folders: what is in the folders above them, and the folder of
/// the replica.
fn granted(hidden: &[PathBuf], own_folder: &Path) -> Vec<PathBuf> {
    let above = hidden.iter().flat_map(|path| path.ancestors().skip(1));
    let above: BTreeSet<&Path> = above.collect();
    let entries = above
        .iter()
        .flat_map(|folder| fs::read_dir(folder).into_iter().flatten().flatten());
    // A link grants nothing itself: what it points to has a path of its own.
    let real = entries.filter(|entry| entry.file_type().is_ok_and(|kind| !kind.is_symlink()));
    let granted = real
        .map(|entry| entry.path())
        .filter(|path| !above.contains(path.as_path()) && !hidden.contains(path));
    granted.chain([own_folder.to_path_buf()]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(folder: &Path, names: &[&str]) -> Vec<PathBuf> {
        names.iter().map(|name| folder.join(name)).collect()
    }

    #[test]
    fn everything_is_granted_but_what_is_hidden_and_what_is_above_it() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        for made in ["data/jobs/a/0", "data/pvc", "beside"] {
            fs::create_dir_all(folder.path().join(made)).unwrap();
        }
        fs::write(data.join("jobs.redb"), "").unwrap();
        std::os::unix::fs::symlink("/", folder.path().join("link")).unwrap();
        let hidden = paths(&data, &["jobs", "jobs.redb"]);
        let own = data.join("jobs/a/0");
        let granted = granted(&hidden, &own);
        let within = granted
            .iter()
            .filter(|path| path.starts_with(folder.path()));
        let within: BTreeSet<&PathBuf> = within.collect();
        let expected = [folder.path().join("beside"), data.join("pvc"), own.clone()];
        assert_eq!(within, expected.iter().collect());
        assert!(granted.contains(&PathBuf::from("/usr")));
        assert!(!granted.contains(&PathBuf::from("/")));
    }

    #[test]
    fn files_under_a_folder_in_which_this_user_makes_files_cannot_be_hidden() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        fs::create_dir(&data).unwrap();
        assert!(can_hide(&paths(&data, &["jobs"]), &data).is_empty());
    }
}
