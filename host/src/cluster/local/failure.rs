//! What a failed replica leaves to say whether a restart can help.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::Deserialize;

use super::lifecycle::ExitKind;
use crate::job::Restart;

/// Names the file that `train.py` writes before it exits because of a failure.
pub const FILE_VARIABLE: &str = "TRAINER_FAILURE_FILE";
/// More than any message. What is longer is not ours.
const MAX_BYTES: u64 = 64 * 1024;

/// The content of the failure file.
#[derive(Debug, Default, Deserialize)]
pub struct Failure {
    #[serde(default)]
    permanent: bool,
    #[serde(default)]
    pub message: String,
}

/// Removes what an earlier attempt left.
///
/// # Errors
///
/// When something is there and cannot be removed.
pub async fn forget(file: &Path) -> io::Result<()> {
    match tokio::fs::remove_file(file).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Reads the file. It is the replica's, so it may be anything: no link is followed, and no pipe
/// waited for.
pub fn read(file: &Path) -> Option<Failure> {
    let mut options = OpenOptions::new();
    options.read(true);
    options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let file = options.open(file).ok()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut text = String::new();
    file.take(MAX_BYTES).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

/// Whether a restart can help after a failure, from its cause, the file and the log.
pub fn kind(restart: Restart, message: Option<&Failure>, log: &str, master_port: u16) -> ExitKind {
    if restart == Restart::IsUseless || message.is_some_and(|failure| failure.permanent) {
        return ExitKind::Permanent;
    }
    match log.lines().any(|line| says_taken(line, master_port)) {
        true => ExitKind::PortTaken,
        false => ExitKind::Ordinary,
    }
}

/// Whether a line says that the port where the nodes meet is taken, in PyTorch's words or in those
/// of the C library.
fn says_taken(line: &str, master_port: u16) -> bool {
    let taken =
        line.contains("EADDRINUSE") || line.to_ascii_lowercase().contains("address already in use");
    let port = master_port.to_string();
    let mut numbers = line.split(|c: char| !c.is_ascii_digit());
    taken && numbers.any(|number| number == port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_permanent_by_its_file_or_its_cause() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("failure.json");
        let cases = [
            (
                r#"{"permanent": true, "message": "no such model"}"#,
                Restart::MayHelp,
                ExitKind::Permanent,
            ),
            (
                r#"{"permanent": false, "message": "lost"}"#,
                Restart::MayHelp,
                ExitKind::Ordinary,
            ),
            (
                r#"{"message": "lost"}"#,
                Restart::MayHelp,
                ExitKind::Ordinary,
            ),
            ("not JSON", Restart::MayHelp, ExitKind::Ordinary),
            ("", Restart::MayHelp, ExitKind::Ordinary),
            ("{}", Restart::IsUseless, ExitKind::Permanent),
        ];
        for (text, restart, expected) in cases {
            std::fs::write(&file, text).unwrap();
            let message = read(&file);
            assert_eq!(kind(restart, message.as_ref(), "", 1), expected, "{text}");
        }
        assert_eq!(kind(Restart::IsUseless, None, "", 1), ExitKind::Permanent);
    }

    #[test]
    fn only_a_plain_file_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("failure.json");
        assert!(read(&file).is_none(), "there is none");
        let other = folder.path().join("other");
        std::fs::write(&other, r#"{"permanent": true}"#).unwrap();
        std::os::unix::fs::symlink(&other, &file).unwrap();
        assert!(read(&file).is_none(), "a link");
        std::fs::remove_file(&file).unwrap();
        std::fs::create_dir(&file).unwrap();
        assert!(read(&file).is_none(), "a folder");
        std::fs::remove_dir(&file).unwrap();
        let pipe = std::process::Command::new("mkfifo").arg(&file).status();
        assert!(pipe.unwrap().success());
        assert!(read(&file).is_none(), "a pipe");
        std::fs::remove_file(&file).unwrap();
        std::fs::write(&file, vec![b' '; 70_000]).unwrap();
        assert!(read(&file).is_none(), "too long");
    }

    #[test]
    fn a_port_is_taken_only_where_the_line_names_it() {
        let pytorch = "torch.distributed.DistNetworkError: The server socket has failed to listen \
                       on any local network address. port: 43219, useIpv6: false, code: -98, name: \
                       EADDRINUSE, message: address already in use";
        assert_eq!(
            kind(Restart::MayHelp, None, pytorch, 43219),
            ExitKind::PortTaken
        );
        assert_eq!(
            kind(Restart::MayHelp, None, pytorch, 4321),
            ExitKind::Ordinary
        );
        let libc = "OSError: [Errno 98] Address already in use: ('127.0.0.1', 43219)";
        assert_eq!(
            kind(Restart::MayHelp, None, libc, 43219),
            ExitKind::PortTaken
        );
        assert_eq!(
            kind(Restart::MayHelp, None, "listening on 43219", 43219),
            ExitKind::Ordinary
        );
    }
}
