//! The service and its shims are killed at random moments, with submissions, suspends and deletions
//! in flight: no job is lost, none runs twice at once, no process is left, and every start works.
//!
//! `TRAINER_KILLS` and `TRAINER_SHIM_KILLS` set how often each is killed (`make test-kills`).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use e2e::{Server, Site};
use serde_json::json;

use crate::alone::{self, job, request};
use crate::random::{Random, setting};
use crate::wait::eventually;

/// How long a process may take to do what a test waits for.
const PATIENCE: Duration = Duration::from_secs(120);
/// Names that jobs are submitted under.
const RUNS: u64 = 6;

/// Some steps of 100 ms, and a child in a session of its own, as torchrun starts its workers.
const STEPS: &str = r#"
setsid sleep 600 &
for step in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do sleep 0.1 9>&-; done
"#;

/// What was answered about a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answered {
    There,
    Gone,
    /// The service was killed before it answered.
    Nothing,
}

/// Sends requests until the service is gone. Gives what was answered.
fn in_flight(
    server: &Server,
    random: &mut Random,
    answers: &mut BTreeMap<u64, Answered>,
    over: &AtomicBool,
) {
    while !over.load(Ordering::Relaxed) {
        let number = random.below(RUNS);
        let path = format!("/train/{}", job(number));
        let answer = match random.below(6) {
            0..=2 => {
                let answer = server.post("/train", &request(number));
                let is = match &answer {
                    Ok((201, _)) => Answered::There,
                    Ok(_) => continue,
                    Err(_) => Answered::Nothing,
                };
                answers.insert(number, is);
                answer
            }
            3 => server.post(&format!("{path}/suspend"), &json!({})),
            4 => server.post(&format!("{path}/resume"), &json!({})),
            _ => {
                let answer = server.delete(&path);
                let is = match &answer {
                    Ok((204 | 404, _)) => Answered::Gone,
                    Ok(_) => Answered::Nothing,
                    Err(_) => Answered::Nothing,
                };
                answers.insert(number, is);
                answer
            }
        };
        match answer {
            Ok((status, body)) => assert!(status < 500, "{status}: {body}"),
            Err(_) => return,
        }
        std::thread::sleep(Duration::from_millis(random.below(30)));
    }
}

/// Processes of replicas, with their start times: a number may be given again.
fn replicas(site: &Site) -> Vec<(u32, String)> {
    let named = format!("TRAINER_PVC_ROOT={}", site.data.path().display());
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let of_data = entries.filter(|entry| {
        let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        String::from_utf8_lossy(&environment).contains(&named)
    });
    let pids = of_data.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| Some((pid, stat(pid)?.pop()?)))
        .collect()
}

/// The fields of a process's state from its parent to its start time, reversed in part: the parent
/// first, the start time last. Nothing for a process that has ended.
fn stat(pid: u32) -> Option<Vec<String>> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<String> = fields.split_whitespace().map(str::to_string).collect();
    let is_there = fields[0] != "Z" && fields[0] != "X";
    is_there.then(|| fields[1..20].to_vec())
}

/// The shims of a service.
fn shims(server: &Server) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let is_shim = |pid: &u32| {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let parent = stat(*pid).and_then(|fields| fields.first()?.parse().ok());
        String::from_utf8_lossy(&command).contains("keep-replica") && parent == Some(server.pid())
    };
    pids.filter(is_shim).collect()
}

fn kill(pid: u32) {
    // A process that has ended meanwhile is as good as killed.
    let _ = std::process::Command::new("kill")
        .args(["-9", &pid.to_string()])
        .output();
}

#[test]
fn kills_of_service_and_shims_lose_nothing_and_leave_nothing() {
    let kills = setting("TRAINER_KILLS", 15);
    let mut shim_kills = setting("TRAINER_SHIM_KILLS", 8);
    let site = alone::site(STEPS, 6);
    let mut random = Random::new();
    let (mut server, mut answers, mut killed) = (site.start().unwrap(), BTreeMap::new(), 0);
    for number in 0..kills {
        let over = AtomicBool::new(false);
        let (mut other, moment) = (random.fork(), random.below(400));
        std::thread::scope(|scope| {
            let (served, over, answers) = (&server, &over, &mut answers);
            scope.spawn(move || in_flight(served, &mut other, answers, over));
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_millis(moment)
                || killed < shim_kills * number / kills
            {
                let shims = shims(served);
                if killed < shim_kills * (number + 1) / kills && !shims.is_empty() {
                    kill(shims[random.below(shims.len() as u64) as usize]);
                    killed += 1;
                }
                if begun.elapsed() > Duration::from_secs(20) {
                    // Nothing was there to be killed.
                    shim_kills = killed;
                }
                std::thread::sleep(Duration::from_millis(random.below(40)));
            }
            kill(served.pid());
            over.store(true, Ordering::Relaxed);
        });
        server.kill().unwrap();
        let before = replicas(&site);
        server = site
            .start()
            .unwrap_or_else(|error| panic!("start {number}: {error:#}"));
        let after = replicas(&site);
        let left: Vec<_> = before
            .iter()
            .filter(|process| after.contains(process))
            .collect();
        assert!(left.is_empty(), "{left:?} outlived the service");
        for (run, is) in &answers {
            let (status, summary) = server.get(&format!("/train/{}", job(*run))).unwrap();
            match is {
                Answered::There => assert_eq!(status, 200, "run {run} is lost: {summary}"),
                Answered::Gone => assert_eq!(status, 404, "run {run} is back: {summary}"),
                Answered::Nothing => {}
            }
        }
        answers.retain(|_, is| *is != Answered::Nothing);
    }
    println!("{kills} kills of the service, {killed} of shims");
    alone::check(&site);
    for run in 0..RUNS {
        let path = format!("/train/{}", job(run));
        let _ = server.post(&format!("{path}/resume"), &json!({}));
        eventually("a job never ends", PATIENCE, || {
            let (status, summary) = server.get(&path).unwrap();
            let has_ended = summary["status"] == "succeeded" || summary["status"] == "failed";
            (status == 404 || has_ended).then_some(())
        });
    }
    eventually("a process is left", PATIENCE, || {
        replicas(&site).is_empty().then_some(())
    });
}
