//! The client's commands against a real service, piped as a script has them and on a terminal.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use e2e::{Server, Site, binary};
use serde_json::Value;

/// A replica that says something, lasts for a while and ends well.
const BRIEF: &str = "#!/bin/sh\necho hello; sleep 2; echo goodbye\n";

/// The fenced blocks of the client's page in one language.
fn blocks(language: &str) -> Vec<String> {
    e2e::documents::blocks("docs/cli.md", language).unwrap()
}

pub(crate) fn command(server: &Server, folder: &Path, line: &str) -> Command {
    let mut command = Command::new("bash");
    let line = line.replacen("trainer", &binary().display().to_string(), 1);
    command
        .args(["-c", &line])
        .current_dir(folder)
        .env("TRAINER_URL", format!("http://{}", server.address))
        .env("HOME", folder)
        .env_remove("TRAINER_API_TOKEN")
        .stdin(Stdio::null());
    command
}

pub(crate) fn run(server: &Server, folder: &Path, line: &str) -> Output {
    command(server, folder, line).output().unwrap()
}

pub(crate) fn printed(output: &Output) -> String {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The same on a terminal of its own.
pub(crate) fn on_a_terminal(server: &Server, folder: &Path, line: &str) -> String {
    let line = line.replacen("trainer", &binary().display().to_string(), 1);
    let mut script = Command::new("script");
    script
        .args(["--quiet", "--return", "--command", &line, "/dev/null"])
        .current_dir(folder)
        .env("TRAINER_URL", format!("http://{}", server.address))
        .stdin(Stdio::null());
    String::from_utf8(script.output().unwrap().stdout).unwrap()
}

#[test]
fn each_command_of_the_page_does_what_it_says() {
    let site = Site::with_launcher(BRIEF).unwrap();
    let server = site.start().unwrap();
    let folder = site.data.path();
    std::fs::create_dir_all("/tmp/trainer-demo/data").unwrap();
    std::fs::write(folder.join("job.yaml"), &blocks("yaml")[0]).unwrap();
    let message: Vec<(String, String)> = blocks("sh")[0]
        .lines()
        .map(|line| (line.to_string(), printed(&run(&server, folder, line))))
        .collect();
    let of = |command: &str| {
        let found = message.iter().find(|(line, _)| line.starts_with(command));
        found.map(|(_, message)| message.as_str()).unwrap()
    };
    assert_eq!(of("trainer submit"), "meta-cli-demo was submitted\n");
    let list: Vec<&str> = of("trainer list").lines().collect();
    assert!(list[0].starts_with("NAME"), "{list:?}");
    assert!(list[1].starts_with("meta-cli-demo"), "{list:?}");
    assert!(of("trainer get").contains("meta"), "{}", of("trainer get"));
    assert!(
        of("trainer logs").ends_with("goodbye\n"),
        "{}",
        of("trainer logs")
    );
    assert!(
        of("trainer events").contains("succeeded: "),
        "{}",
        of("trainer events")
    );
    assert_eq!(of("trainer delete"), "meta-cli-demo was deleted\n");
    assert!(of("trainer frameworks").contains("nemo"));
}

#[test]
fn answers_have_forms_for_scripts_and_failures_have_exit_codes() {
    let site = Site::with_launcher(BRIEF).unwrap();
    let server = site.start().unwrap();
    let folder = site.data.path();
    let job = &blocks("yaml")[0];
    std::fs::create_dir_all("/tmp/trainer-demo/data").unwrap();
    std::fs::write(folder.join("job.yaml"), job).unwrap();
    let dry = printed(&run(
        &server,
        folder,
        "trainer submit -f job.yaml --dry-run",
    ));
    assert!(dry.contains("kind: PyTorchJob"), "{dry}");
    let name = run(
        &server,
        folder,
        "trainer submit -f job.yaml --watch -o name --set num_nodes=1",
    );
    assert_eq!(printed(&name), "meta-cli-demo\n");
    assert!(String::from_utf8_lossy(&name.stderr).contains("succeeded: "));
    let list: Value =
        serde_json::from_str(&printed(&run(&server, folder, "trainer list -o json"))).unwrap();
    assert_eq!(list[0]["status"], "succeeded");
    let yaml = printed(&run(&server, folder, "trainer get meta-cli-demo -o yaml"));
    assert!(yaml.contains("status: succeeded"), "{yaml}");

    let wrong = job.replace("max_steps: 60", "max_steps: many");
    std::fs::write(folder.join("wrong.yaml"), wrong).unwrap();
    let refused = run(&server, folder, "trainer submit -f wrong.yaml");
    let message = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(3), "{message}");
    assert!(
        message.contains("wrong.yaml:7:14") && message.contains("max_steps: many"),
        "{message}"
    );
    assert!(
        !message.contains('\u{1b}'),
        "colours without a terminal: {message:?}"
    );
    let coloured = on_a_terminal(&server, folder, "trainer submit -f wrong.yaml");
    assert!(coloured.contains('\u{1b}'), "{coloured:?}");
    for variable in ["NO_COLOR=1", "TERM=dumb"] {
        let line = format!("env {variable} trainer submit -f wrong.yaml");
        let plain = on_a_terminal(&server, folder, &line);
        assert!(
            plain.contains("max_steps") && !plain.contains('\u{1b}'),
            "{plain:?}"
        );
    }

    let code = |line: &str| run(&server, folder, line).status.code();
    assert_eq!(code("trainer get meta-missing"), Some(4));
    assert_eq!(code("trainer submit -f missing.yaml"), Some(1));
    assert_eq!(code("trainer submit"), Some(2));
    assert_eq!(code("trainer list --url http://127.0.0.1:1"), Some(6));
    // A flag beats a variable, so this server is looked for.
    assert_eq!(code("trainer list --server nowhere"), Some(1));
    let listed = on_a_terminal(&server, folder, "trainer list");
    assert!(listed.contains("meta-cli-demo"), "{listed}");
    for shell in ["bash", "zsh", "fish"] {
        let script = printed(&run(
            &server,
            folder,
            &format!("trainer completion {shell}"),
        ));
        assert!(script.contains("submit"), "{shell}");
    }
}

#[test]
fn a_named_server_is_found_in_the_configuration_with_its_token() {
    let site = Site::with_launcher(BRIEF).unwrap();
    let site = site.set("TRAINER_API_TOKEN", "secret");
    let server = site.start_with_token().unwrap();
    let folder = site.data.path();
    std::fs::write(folder.join("token"), "secret\n").unwrap();
    let configuration = format!(
        "current: here\nservers:\n  here:\n    url: http://{}\n    token_file: {}/token\n",
        server.address,
        folder.display()
    );
    std::fs::write(folder.join("config.yaml"), configuration).unwrap();
    let line = "trainer list --config config.yaml";
    let mut listed = command(&server, folder, line);
    assert!(listed.env_remove("TRAINER_URL").status().unwrap().success());
    assert_eq!(run(&server, folder, "trainer list").status.code(), Some(5));
}

/// Passes connections on, and cuts each off after some bytes, another number each time.
fn cutting_proxy(to: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let to = to.to_string();
    std::thread::spawn(move || {
        // The numbers of a small generator, the same in each run.
        let mut random: u64 = 42;
        for client in listener.incoming() {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let bytes = 200_000 + (random >> 33) % 3_000_000;
            let (mut client, mut server) = (client.unwrap(), TcpStream::connect(&to).unwrap());
            let mut request = client.try_clone().unwrap();
            let mut onwards = server.try_clone().unwrap();
            std::thread::spawn(move || std::io::copy(&mut request, &mut onwards));
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut Read::by_ref(&mut server).take(bytes), &mut client);
                let _ = client.flush();
                let _ = client.shutdown(std::net::Shutdown::Both);
                let _ = server.shutdown(std::net::Shutdown::Both);
            });
        }
    });
    address
}

fn follow_a_million_lines() -> u64 {
    const REPLICAS: usize = 4;
    const LINES: usize = 250_000;
    // The master ends the job, so it waits for the others.
    let launcher = format!(
        "#!/bin/sh\ncd \"$(dirname \"$0\")\"\nawk 'BEGIN {{ for (i = 0; i < {LINES}; i++) {{ print i; \
         if (i % 5000 == 0) {{ fflush(); system(\"sleep 0.05\") }} }} }}'\ntouch done-$RANK\n\
         [ $RANK = 0 ] || exit 0\nwhile [ $(ls done-* | wc -l) -lt {REPLICAS} ]; do sleep 0.1; done\n"
    );
    let site = Site::with_launcher(&launcher).unwrap();
    let site = site.set("TRAINER_LOCAL_SLOTS", "8");
    let server = site.start().unwrap();
    let mut request = e2e::training(site.data.path(), "many", 1).unwrap();
    request["num_nodes"] = REPLICAS.into();
    let job = server.submit(&request).unwrap();
    // What planning takes is not what following takes.
    let before = server.resident_memory().unwrap();
    let proxy = cutting_proxy(&server.address);
    let line = format!("trainer logs -f {job} --replica all --url http://{proxy}");
    let mut follower = command(&server, site.data.path(), &line);
    let mut follower = follower.stdout(Stdio::piped()).spawn().unwrap();
    let mut text = String::new();
    let mut output = follower.stdout.take().unwrap();
    let mut most = before;
    let mut piece = vec![0; 1 << 20];
    loop {
        let read = output.read(&mut piece).unwrap();
        if read == 0 {
            break;
        }
        text.push_str(std::str::from_utf8(&piece[..read]).unwrap());
        if text.len() % 64 < 8 {
            most = most.max(server.resident_memory().unwrap());
        }
    }
    assert!(follower.wait().unwrap().success());
    let mut next = std::collections::BTreeMap::new();
    for line in text.lines() {
        let (replica, number) = line.split_once("] ").unwrap();
        let next: &mut usize = next.entry(replica.to_string()).or_default();
        assert_eq!(number, next.to_string(), "{replica}");
        *next += 1;
    }
    assert_eq!(next.len(), REPLICAS);
    assert!(next.values().all(|lines| *lines == LINES), "{next:?}");
    let grown = most.saturating_sub(before) / 1_000_000;
    println!("{} lines; the host grew by {grown} MB", REPLICAS * LINES);
    grown
}

#[test]
fn a_million_lines_through_connections_that_are_cut_come_once_each_and_in_order() {
    follow_a_million_lines();
}

/// Alone, since what else the machine does decides how much waits to be read.
#[test]
#[ignore = "measures memory: make bench-logs"]
fn following_a_million_lines_takes_at_most_20_mb() {
    let grown = follow_a_million_lines();
    assert!(grown <= 20, "{grown} MB");
}

/// The service is killed between two submissions with one key.
#[test]
fn a_key_outlives_a_crash_of_the_service() {
    let site = Site::with_launcher("#!/bin/sh\nexec sleep 600\n").unwrap();
    let server = site.start().unwrap();
    let request = e2e::training(site.data.path(), "once", 1).unwrap();
    let first = server
        .post_with_header("/train", ("idempotency-key", "key"), &request)
        .unwrap();
    assert_eq!(first.0, 201, "{}", first.1);
    server.kill().unwrap();
    let server = site.start().unwrap();
    let again = server
        .post_with_header("/train", ("idempotency-key", "key"), &request)
        .unwrap();
    assert_eq!(again, first);
    let (_, list) = server.get("/train").unwrap();
    assert_eq!(list["jobs"].as_array().unwrap().len(), 1);
}

/// Clients race with one key, the service is killed under them at another moment each time, and those
/// that got no answer ask the next service.
#[test]
fn a_key_outlives_a_crash_in_the_middle_of_a_race() {
    for milliseconds in [0, 1, 2, 4, 8, 16, 32] {
        let site = Site::with_launcher("#!/bin/sh\nexec sleep 600\n").unwrap();
        let server = site.start().unwrap();
        let request = e2e::training(site.data.path(), "once", 1).unwrap();
        let submit = |server: &Server| {
            server.post_with_header("/train", ("idempotency-key", "key"), &request)
        };
        let mut answers: Vec<_> = std::thread::scope(|scope| {
            let clients: Vec<_> = (0..40).map(|_| scope.spawn(|| submit(&server))).collect();
            std::thread::sleep(Duration::from_millis(milliseconds));
            let pid = server.pid().to_string();
            Command::new("kill").args(["-9", &pid]).status().unwrap();
            let answers = clients.into_iter().map(|client| client.join().unwrap());
            answers.filter_map(Result::ok).collect()
        });
        drop(server);
        let server = site.start().unwrap();
        answers.extend((answers.len()..40).map(|_| submit(&server).unwrap()));
        assert_eq!(answers[0].0, 201, "{}", answers[0].1);
        assert!(answers.iter().all(|answer| *answer == answers[0]));
        let (_, list) = server.get("/train").unwrap();
        assert_eq!(list["jobs"].as_array().unwrap().len(), 1);
    }
}

#[test]
fn a_file_for_each_framework_is_created_and_valid() {
    let site = Site::with_launcher(BRIEF).unwrap();
    let server = site.start().unwrap();
    let folder = site.data.path();
    for framework in ["nemo", "hf", "meta"] {
        let file = format!("{framework}.yaml");
        let created = run(
            &server,
            folder,
            &format!("trainer init {framework} -f {file}"),
        );
        assert!(printed(&created).is_empty());
        let text = std::fs::read_to_string(folder.join(&file)).unwrap();
        assert!(
            text.contains("# lr: ") && text.contains("# Takes: "),
            "{text}"
        );
        let previewed = run(&server, folder, &format!("trainer preview {file}"));
        assert!(printed(&previewed).contains("kind: PyTorchJob"), "{text}");
        let again = run(
            &server,
            folder,
            &format!("trainer init {framework} -f {file}"),
        );
        let error = String::from_utf8(again.stderr).unwrap();
        assert!(
            error.contains("already exists; choose another file with -f"),
            "{error}"
        );
    }
    let unknown = run(&server, folder, "trainer init hff");
    let error = String::from_utf8(unknown.stderr).unwrap();
    assert!(error.contains("did you mean hf?"), "{error}");
}
