//! A job attacks the service that started it: containment protects the token, the store, other jobs
//! and the machine, and no process of the job outlives its deletion.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use e2e::{Server, Site, binary};
use serde_json::{Value, json};

use crate::wait::eventually;

/// How long a process may take to do what a test waits for.
const PATIENCE: Duration = Duration::from_secs(30);
const TOKEN: &str = "e2e-token-7f3a";
/// What another job has in its environment and its log.
const OTHERS: &str = "e2e-other-51c2";
/// A number that no other process sleeps.
const OUTLIVING: &str = "86411.5";

/// In place of torchrun. `broken` is printed by an attack that works; patterns are written so that
/// they do not find themselves.
const LAUNCHER: &str = r#"#!/bin/sh
[ "$MODEL_ID" = victim ] && { echo "$OTHERS"; exec sleep 600; }
token='e2e-toke[n]-7f3a'; others='e2e-othe[r]-51c2'
attempt() {
  name=$1; shift
  told=$(eval "$*" 2>/dev/null)
  case $told in *broken*) echo "BROKEN $name" ;; *) echo "held $name" ;; esac
}
attempt own-environment 'env | grep -q "$token" && echo broken'
attempt token-file 'grep -q "$token" "$DATA/token" && echo broken'
attempt environments 'cat /proc/[0-9]*/environ | grep -aq "$token\|$others" && echo broken'
attempt environment-of-service 'cat /proc/$SERVICE/environ && echo broken'
attempt arguments 'cat /proc/[0-9]*/cmdline | grep -aq "$token" && echo broken'
attempt memory-of-service 'head -c 1 /proc/$SERVICE/mem; cat /proc/$SERVICE/maps | grep -q . && echo broken'
attempt memory-of-init 'cat /proc/1/maps | grep -q . && echo broken'
attempt root-of-init 'cd /proc/1 && ls root/ | grep -q . && echo broken'
attempt files-of-service 'ls /proc/$SERVICE/fd/ && echo broken'
attempt store 'grep -aq "$others" "$DATA/jobs.redb" && echo broken'
attempt secrets 'grep -raq "$others" "$DATA/secrets" && echo broken'
attempt changing-secrets 'echo x > "$DATA/secrets/default/hub/token" && echo broken'
attempt logs 'grep -raq "$others" "$DATA/jobs" && echo broken'
attempt other-folders 'ls "$DATA/jobs/default" | grep -q victim && echo broken'
attempt deleting-jobs 'rm -rf "$DATA/jobs/default/meta-victim"; mkdir "$DATA/jobs/x" && echo broken'
attempt renaming-jobs 'mv "$DATA/jobs" "$DATA/moved" && echo broken'
attempt deleting-the-store 'rm -f "$DATA/jobs.redb" && echo broken'
attempt compiled-plugins 'touch "$DATA/compiled-plugins/x" && echo broken'
attempt unmounting 'umount "$DATA/jobs" && echo broken'
attempt unmounting-lazily 'umount -l "$DATA/jobs.redb" && echo broken'
attempt unmounting-in-a-namespace \
  'unshare --user --map-root-user --mount sh -c "umount \"$DATA/jobs\" && echo broken"'
attempt mounting 'mount -t tmpfs none /mnt && echo broken'
attempt entering-a-namespace 'nsenter --mount=/proc/1/ns/mnt true && echo broken'
attempt killing-the-service 'kill -9 $SERVICE && echo broken'
attempt stopping-the-service 'kill -STOP $SERVICE && echo broken'
attempt killing-another-job 'kill -9 $VICTIM && echo broken'
attempt disks 'for d in /dev/*; do [ -b $d ] && head -c 1 $d | grep -aq . && echo broken; done'
attempt making-a-disk 'mknod "$DATA/disk" b 7 0 && echo broken'
attempt kernel-memory 'head -c 1 /proc/kcore | grep -aq . && echo broken'
attempt kernel-settings \
  'cat /proc/sys/kernel/core_pattern > /tmp/pattern.$$; cp /tmp/pattern.$$ /proc/sys/kernel/core_pattern && echo broken; rm -f /tmp/pattern.$$'
attempt control-groups 'mkdir /sys/fs/cgroup/freezer/escape || mkdir /sys/fs/cgroup/escape && echo broken'
attempt new-privileges 'grep -q "NoNewPrivs:.*1" /proc/self/status || echo broken'
env -i setsid sh -c "sleep $OUTLIVING & sleep $OUTLIVING" >/dev/null 2>&1 &
kill -9 $PPID
echo end
exec sleep 600
"#;

fn call(server: &Server, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .build()
        .new_agent();
    let request = ureq::http::Request::builder()
        .method(method)
        .uri(format!("http://{}{path}", server.address))
        .header("x-trainer-token", TOKEN)
        .header("content-type", "application/json");
    let mut response = agent.run(request.body(body.to_string()).unwrap()).unwrap();
    let text = response.body_mut().read_to_string().unwrap();
    (
        response.status().as_u16(),
        serde_json::from_str(&text).unwrap_or(Value::String(text)),
    )
}

fn submit(server: &Server, model: &str, env: &Value) {
    let body = json!({
        "framework": "meta", "model_id": model, "run_id": model, "gpus_per_node": 0, "env": env,
        "checkpoint_base_uri": "s3://bucket/runs", "dataset_uri": "s3://bucket/data/",
    });
    let (status, answer) = call(server, "POST", "/train", &body);
    assert_eq!(status, 201, "{answer}");
}

/// The processes of which a file in /proc has a text.
fn processes(file: &str, text: &str) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let bytes = std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).contains(text)
    })
    .collect()
}

/// Where the service has its token from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum TokenIn {
    Environment,
    File,
}

/// How an attacked service is started.
struct Attacked<'a> {
    /// A command such as `setpriv`.
    through: &'a [&'a str],
    token_in: TokenIn,
    /// `TRAINER_LOCAL_CONTAINMENT`.
    containment: &'a str,
    /// A folder for its data.
    parent: &'a Path,
    /// The attacks that this containment does not hold.
    not_held: &'a [&'a str],
}

/// Attacks a service from one of its jobs.
fn attack(attacked: &Attacked) {
    let Attacked {
        through,
        token_in,
        containment,
        parent,
        not_held,
    } = *attacked;
    let site = Site::with_launcher_in(parent, LAUNCHER).unwrap();
    let site = site.set("TRAINER_LOCAL_SLOTS", "8");
    let site = site.set("TRAINER_LOCAL_CONTAINMENT", containment);
    let data = site.data.path().canonicalize().unwrap();
    let token = data.join("token");
    std::fs::write(&token, TOKEN).unwrap();
    std::fs::set_permissions(&token, Permissions::from_mode(0o600)).unwrap();
    let secret = data.join("secrets/default/hub");
    std::fs::create_dir_all(&secret).unwrap();
    std::fs::write(secret.join("token"), OTHERS).unwrap();
    if !through.is_empty() {
        let owned = Command::new("chown")
            .args(["-R", "65534:65534"])
            .arg(&data)
            .status();
        assert!(owned.unwrap().success());
    }
    let variable = match token_in {
        TokenIn::Environment => format!("TRAINER_API_TOKEN=\"$(cat {})\"", token.display()),
        TokenIn::File => format!("TRAINER_API_TOKEN_FILE={}", token.display()),
    };
    let with_token = format!("exec {} env {variable} \"$0\" \"$@\"", through.join(" "));
    let mut command = Command::new("sh");
    let server = site
        .start_as(command.args(["-c", &with_token]).arg(binary()))
        .unwrap();
    if token_in == TokenIn::Environment {
        std::fs::remove_file(token).unwrap();
    }
    submit(&server, "victim", &json!({"OTHERS": OTHERS}));
    let victim = eventually("the other job runs", PATIENCE, || {
        site.replica_log("meta-victim", "meta-victim-master-0")
            .contains(OTHERS)
            .then(|| processes("environ", OTHERS).pop())
            .flatten()
    });
    let environment = json!({
        "SERVICE": server.pid().to_string(),
        "VICTIM": victim.to_string(),
        "DATA": data,
        "OUTLIVING": OUTLIVING,
    });
    submit(&server, "attacker", &environment);
    let log = eventually("the attacks are over", PATIENCE, || {
        let log = site.replica_log("meta-attacker", "meta-attacker-master-0");
        log.contains("\nend\n").then_some(log)
    });
    let held = log.lines().filter(|line| line.starts_with("held ")).count();
    let broken = log.lines().filter_map(|line| line.strip_prefix("BROKEN "));
    let broken: Vec<&str> = broken.collect();
    assert_eq!(broken, not_held, "{log}");
    let attempts = LAUNCHER.matches("\nattempt ").count();
    assert_eq!(held + broken.len(), attempts, "{log}");
    assert!(processes("environ", TOKEN).is_empty());
    assert!(processes("cmdline", TOKEN).is_empty());
    // What has dropped its environment and its session is there, and gone with the job.
    eventually("it has started", PATIENCE, || {
        processes("cmdline", OUTLIVING).pop()
    });
    assert_eq!(
        call(&server, "DELETE", "/train/meta-attacker", &Value::Null).0,
        204
    );
    eventually("nothing outlives the job", PATIENCE, || {
        processes("cmdline", OUTLIVING).is_empty().then_some(())
    });
    let (status, victim) = call(&server, "GET", "/train/meta-victim", &Value::Null);
    assert_eq!((status, &victim["status"]), (200, &json!("running")));
    assert!(site.service_log().contains("jobs are contained"));
}

/// A user that is not root and may read the binary, or nothing if this one cannot become it.
fn another_user() -> Option<Vec<&'static str>> {
    let user = "setpriv --reuid=65534 --regid=65534 --clear-groups";
    let through: Vec<&str> = user.split(' ').collect();
    let can = Command::new(through[0])
        .args(&through[1..])
        // setpriv itself may still have capabilities, and what it starts has none.
        .arg("env")
        .arg(binary())
        .arg("--version")
        .output();
    let can = can.is_ok_and(|can| can.status.success());
    if !can {
        println!("left out: this user cannot become another that reads the binary");
    }
    can.then_some(through)
}

#[test]
fn a_job_cannot_reach_the_service_or_other_jobs() {
    attack(&Attacked {
        through: &[],
        token_in: TokenIn::Environment,
        containment: "required",
        parent: &std::env::temp_dir(),
        not_held: &[],
    });
}

#[test]
fn nor_can_it_where_the_service_is_not_root() {
    let Some(through) = another_user() else {
        return;
    };
    attack(&Attacked {
        through: &through,
        token_in: TokenIn::File,
        containment: "required",
        parent: &std::env::temp_dir(),
        not_held: &[],
    });
}

/// Where user namespaces are off. The data folder is in one in which this user makes no files.
#[test]
fn landlock_holds_all_but_the_names_of_jobs() {
    let Some(through) = another_user() else {
        return;
    };
    let parent = tempfile::tempdir_in("/var/lib").unwrap();
    let readable = Permissions::from_mode(0o755);
    std::fs::set_permissions(parent.path(), readable).unwrap();
    attack(&Attacked {
        through: &through,
        token_in: TokenIn::File,
        containment: "landlock",
        parent: parent.path(),
        not_held: &["other-folders"],
    });
}

#[test]
fn a_killed_shim_takes_everything_with_it() {
    let script = format!(
        "#!/bin/sh\nenv -i setsid sleep {n} >/dev/null 2>&1 &\nexec sleep {n}\n",
        n = "86412.5"
    );
    let site = Site::with_launcher(&script).unwrap();
    let site = site.set("TRAINER_LOCAL_CONTAINMENT", "required");
    let server = site.start().unwrap();
    let job = json!({
        "framework": "meta", "model_id": "x", "run_id": "left", "gpus_per_node": 0,
        "checkpoint_base_uri": "s3://bucket/runs", "dataset_uri": "s3://bucket/data/",
    });
    server.submit(&job).unwrap();
    let first = eventually("both run", PATIENCE, || {
        let both = processes("cmdline", "86412.5");
        (both.len() == 2).then_some(both)
    });
    let data = site.data.path().display().to_string();
    let shim = processes("cmdline", "keep-replica");
    let shim = shim.into_iter().find(|pid| {
        let open = std::fs::read_dir(format!("/proc/{pid}/fd"))
            .unwrap()
            .flatten();
        let mut open = open.filter_map(|fd| std::fs::read_link(fd.path()).ok());
        open.any(|file| file.display().to_string().starts_with(&data))
    });
    let killed = Command::new("kill")
        .args(["-9", &shim.unwrap().to_string()])
        .status();
    assert!(killed.unwrap().success());
    eventually("all of it is gone", PATIENCE, || {
        let left = processes("cmdline", "86412.5");
        left.iter().all(|pid| !first.contains(pid)).then_some(())
    });
}

#[test]
fn containment_that_cannot_be_had_is_said() {
    let site = Site::with_launcher("#!/bin/sh\nexit 0\n").unwrap();
    let site = site.set("TRAINER_LOCAL_CONTAINMENT", "off");
    let _server = site.start().unwrap();
    assert!(site.service_log().contains("jobs are not contained"));
}
