//! Processes of this machine, as `/proc` shows them.

use rustix::process::Pid;

/// Every process.
pub fn all() -> impl Iterator<Item = Pid> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
}

/// Where a process belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lineage {
    /// 0 if the parent is in another PID namespace.
    pub parent: i32,
    /// 0 if the leader of the session is in another PID namespace, and -1 if the process has ended.
    pub session: i32,
}

impl Lineage {
    pub fn of(pid: Pid) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
        Self::from_stat(&stat)
    }

    /// Reads `/proc/<pid>/stat`: proc_pid_stat(5).
    fn from_stat(stat: &str) -> Option<Self> {
        // The second field is the name of the program in brackets, which may contain anything.
        let (_, after_name) = stat.rsplit_once(')')?;
        let mut fields = after_name.split_whitespace().skip(1);
        let parent = fields.next()?.parse().ok()?;
        let session = fields.nth(1)?.parse().ok()?;
        Some(Self { parent, session })
    }
}

/// A variable of the environment that a process was started with.
pub fn variable(pid: Pid, name: &str) -> Option<String> {
    let environment = std::fs::read(format!("/proc/{}/environ", pid.as_raw_nonzero())).ok()?;
    let mut variables = environment.split(|byte| *byte == 0);
    variables.find_map(|variable| {
        let value = variable.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
        Some(String::from_utf8_lossy(value).into_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_spaces_does_not_shift_the_fields() {
        let stat = "42 (a) R 7 (b c) S 17 40 0 34816 40 4194304";
        let lineage = Lineage {
            parent: 17,
            session: 0,
        };
        assert_eq!(Lineage::from_stat(stat), Some(lineage));
    }

    #[test]
    fn a_child_has_this_process_as_its_parent_and_shares_its_session() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let found = Lineage::of(Pid::from_child(&child)).unwrap();
        let this = rustix::process::getpid();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(found.parent, this.as_raw_nonzero().get());
        assert_eq!(found.session, Lineage::of(this).unwrap().session);
    }
}
