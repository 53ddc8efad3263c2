//! Replicas as processes of this machine.

use std::time::{Duration, Instant};

use crate::service::Service;

pub async fn eventually<T>(mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(begun.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub fn only(pids: &[u32]) -> Option<u32> {
    match pids {
        [pid] => Some(*pid),
        _ => None,
    }
}

/// The shim above a process of a replica.
pub fn shim(pid: u32) -> u32 {
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    match String::from_utf8_lossy(&command).contains("keep-replica") {
        true => pid,
        false => shim(parent(pid)),
    }
}

fn parent(pid: u32) -> u32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap()
}

pub fn kill(pid: u32) {
    let killed = std::process::Command::new("kill")
        .args(["-9", &pid.to_string()])
        .status();
    assert!(killed.unwrap().success());
}

/// Processes whose environment names the data folder: replicas and all that they started.
pub fn replicas(service: &Service) -> Vec<u32> {
    processes_of(&service.data.path().display().to_string())
}

pub fn processes_of(data: &str) -> Vec<u32> {
    let named = format!("TRAINER_PVC_ROOT={data}");
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let of_data = entries.filter(|entry| {
        let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        String::from_utf8_lossy(&environment).contains(&named)
    });
    of_data
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}
