use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;

/// torchrun's report of a failure of a rank among several.
fn report(rank: u32, code: i32, traceback: &str) -> String {
    let other = u32::from(rank == 0);
    format!(
        "{}torch.distributed.elastic.multiprocessing.errors.ChildFailedError: \n{}\ntrain.py FAILED\n\
         Failures:\n[1]:\n  rank      : {other} (local_rank: {other})\n  exitcode  : -15 (pid: 7)\n\
         ----\nRoot Cause (first observed failure):\n[0]:\n  time      : 2026-11-28_08:19:49\n  \
         host      : node-1\n  rank      : {rank} (local_rank: {rank})\n  exitcode  : {code} (pid: \
         4711) \n  error_file: <N/A>\n  traceback : {traceback}\n{}\n",
        noticed(code),
        "=".repeat(60),
        "=".repeat(60),
    )
}

/// What torchrun logs when it notices a failure, up to its own exception.
fn noticed(code: i32) -> String {
    let log = "1128 10:02:18.168000 4666 torch/distributed/elastic/multiprocessing/api.py";
    format!(
        "W{log}:1028] Sending process 4712 closing signal SIGTERM\nE{log}:1002] failed (exitcode: \
         {code}) local_rank: 0 (pid: 4711) of binary: /usr/bin/python3\nTraceback (most recent call \
         last):\n  File \"torchrun\", line 8, in <module>\n    raise ChildFailedError(\n"
    )
}

/// The report of a job of one process.
fn alone(code: i32) -> String {
    format!(
        "{}torch.distributed.elastic.multiprocessing.errors.ChildFailedError: \n\
         Failures:\n  <NO_OTHER_FAILURES>\nRoot Cause (first observed failure):\n[0]:\n  rank      \
         : 0 (local_rank: 0)\n  exitcode  : {code} (pid: 4711)\n  error_file: <N/A>\n  traceback : \
         To enable traceback see: https://pytorch.org\n",
        noticed(code),
    )
}

fn traceback(mark: &str, exception: &str) -> String {
    format!(
        "{mark}Traceback (most recent call last):\n{mark}  File \"train.py\", line 9, in <module>\n\
         {mark}    main()\n{mark}    ^^^^^^\n{mark}{exception}\n"
    )
}

/// Ways to fail: what the log has, and the exit code of the container.
fn ways() -> Vec<(&'static str, String, i32)> {
    let closed = "RuntimeError: [gloo/transport/tcp/pair.cc:547] Connection closed by peer";
    let to_see = "To enable traceback see: https://pytorch.org";
    vec![
        ("what train.py says", format!("train.py: error: no such dataset\n{}", alone(78)), 1),
        ("what may pass", format!("train.py: error: no rights to read x\n{}", alone(1)), 1),
        ("train.py of rank 3", format!("train.py: error: [rank 3] no such model\n{}", report(3, 78, to_see)), 1),
        ("an option that torchrun refuses", "usage: torchrun [-h]\ntorchrun: error: ambiguous option: --monitor could match --monitor-interval, --monitor_interval\n".into(), 2),
        ("nodes that do not meet", traceback("", "torch.distributed.DistStoreError: Timed out after 901 seconds waiting for clients. 1/2 clients joined."), 1),
        ("a master that is not there", traceback("", "torch.distributed.DistNetworkError: The client socket has timed out after 60000ms while trying to connect to (run-master-0, 23456)."), 1),
        ("an exception of one process", traceback("", "KeyError: 'eval_accuracy'") + &alone(1), 1),
        ("an exception with a cause", traceback("", "OSError: gone") + "\nThe above exception was the direct cause of the following exception:\n\n" + &traceback("", "ValueError: the loss is not a number") + &alone(1), 1),
        ("the first of 8 ranks", traceback("[rank5]: ", "ValueError: the loss is not a number") + &traceback("[rank0]: ", closed) + &traceback("[rank7]: ", closed) + &report(5, 1, to_see), 1),
        ("a rank that torchrun saw end before the first", traceback("[rank5]: ", "ValueError: the loss is not a number") + &traceback("[rank3]: ", closed) + &report(3, 1, to_see), 1),
        ("a process that told torchrun", "x: 4\n".to_string() + &report(5, 1, "ValueError: the loss is not a number"), 1),
        ("a process that told torchrun in the trainer's words", report(5, 78, "train.py: error: [rank 5] no such model"), 1),
        ("ranks without marks", traceback("", closed) + &traceback("", "IndexError: index out of range in self") + &traceback("", closed) + &report(2, 1, to_see), 1),
        ("lines of ranks mixed", "[rank1]: Traceback (most recent call last):\n[rank0]: Traceback (most recent call last):\n[rank1]:   File \"a\"\n[rank0]:   File \"a\"\n[rank0]: RuntimeError: Broken pipe\n[rank1]: AssertionError\n".to_string() + &report(1, 1, to_see), 1),
        ("a GPU without memory", traceback("[rank2]: ", "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 2 has a total capacity of 79.10 GiB of which 1.19 GiB is free.") + &report(2, 1, to_see), 1),
        ("memory of the machine", traceback("", "RuntimeError: [enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 409600000000 bytes. Error code 12 (Cannot allocate memory)") + &alone(1), 1),
        ("a rank that the kernel killed", report(1, -9, "Signal 9 (SIGKILL) received by PID 4711"), 1),
        ("a rank that crashed", report(6, -11, "Signal 11 (SIGSEGV) received by PID 4711"), 1),
        ("a crash that Python tells", format!("Fatal Python error: Segmentation fault\n\nCurrent thread 0x7f (most recent call first):\n{}", report(0, -11, "Signal 11 (SIGSEGV) received by PID 4711")), 1),
        ("a container that the kernel killed", r#"{"event": "progress", "step": 10}"#.to_string(), 137),
        ("a container that crashed", String::new(), 139),
        ("shared memory", "ERROR: Unexpected bus error encountered in worker. This might be caused by insufficient shared memory (shm).\n".into(), 135),
        ("collectives that hang", "[rank3]:[E1128 08:19:32 ProcessGroupNCCL.cpp:685] [Rank 3] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=12, OpType=ALLREDUCE, Timeout(ms)=600000) ran for 600029 milliseconds before timing out.\n".to_string() + &report(3, -6, "Signal 6 (SIGABRT) received by PID 4711"), 1),
        ("NCCL", "node-1:7:9 [0] misc/socket.cc:484 NCCL WARN socketStartConnect: Connect to 10.0.0.2<4> failed : No route to host\n".to_string() + &report(0, -6, "Signal 6 (SIGABRT) received by PID 4711"), 1),
        ("C++", "terminate called after throwing an instance of 'std::runtime_error'\n  what():  cannot open the file\n".into(), 134),
        ("a launcher that is not there", "sh: 1: torchrun: command not found\n".into(), 127),
        ("a program that is not there", "/usr/bin/python3: can't open file '/app/train.py': [Errno 2] No such file or directory\n".into(), 2),
        ("another architecture", "exec /usr/bin/torchrun: exec format error\n".into(), 1),
        ("a script that is not there", "/usr/bin/python3: can't open file '/app/train.py': [Errno 2] No such file or directory\n".to_string() + &alone(2), 1),
        ("a script that cannot be parsed", "  File \"train.py\", line 1\n    def f(:\n          ^\nSyntaxError: invalid syntax\n".to_string() + &alone(1), 1),
        ("a module that is not there", traceback("", "ModuleNotFoundError: No module named 'flash_attn'") + &alone(1), 1),
        ("a module that is not there in each rank", traceback("[rank0]: ", "ModuleNotFoundError: No module named 'apex'") + &traceback("[rank1]: ", "ModuleNotFoundError: No module named 'apex'") + &report(1, 1, to_see), 1),
        ("a module that the program could do without", traceback("", "ModuleNotFoundError: No module named 'apex'") + "continuing without apex\n" + &alone(1), 1),
        ("a command that the program could do without", "sh: 1: nvcc: command not found\n".to_string() + &traceback("", "ConnectionError: the store does not answer") + &alone(1), 1),
        ("received SIGTERM", "received SIGTERM: saved step 7\n".into(), 143),
        ("another program", "step 1\nfatal: the licence has expired\n\n=====\n".into(), 3),
        ("nothing", String::new(), 1),
    ]
}

#[test]
fn each_way_to_fail_has_its_sentence() {
    let mut causes = String::new();
    for (name, log, code) in ways() {
        let Cause { message, restart } = cause(log.as_bytes(), code);
        let message = message.unwrap_or_else(|| "-".to_string());
        writeln!(causes, "{name}\n  {message}\n  {restart:?}").unwrap();
    }
    insta::assert_snapshot!(causes);
}

#[test]
fn colours_and_bars_do_not_hide_a_cause() {
    let log =
        "  0%|   | 0/10\r 10%|#  | 1/10\r\u{1b}[31mtrain.py: error: no\tsuch dataset\u{1b}[0m\r\n";
    let causes = cause(log.as_bytes(), 1).message;
    assert_eq!(causes.as_deref(), Some("train.py: error: no such dataset"));
}

#[test]
fn a_cause_before_a_long_tail_is_out_of_reach_and_the_last_line_is_told() {
    let log = format!(
        "train.py: error: early\n{}the end\n",
        "x\n".repeat(MAX_LOG_BYTES)
    );
    assert_eq!(cause(log.as_bytes(), 1).message.as_deref(), Some("the end"));
}

proptest! {
    #[test]
    fn any_log_gives_a_short_line(log in prop::collection::vec(any::<u8>(), 0..2000), code in any::<i32>()) {
        check(&log, code)?;
    }

    #[test]
    fn any_order_of_known_lines_gives_a_short_line(
        picks in prop::collection::vec((0usize..37, 0usize..40, 0usize..40), 0..12), code in 0..256,
    ) {
        let ways = ways();
        let mut log = String::new();
        for (way, from, count) in picks {
            let lines = ways[way].1.lines().skip(from).take(count);
            lines.for_each(|line| log.extend([line, "\n"]));
        }
        check(log.as_bytes(), code)?;
    }
}

fn check(log: &[u8], code: i32) -> Result<(), TestCaseError> {
    if let Some(message) = cause(log, code).message {
        prop_assert!(!message.is_empty());
        prop_assert!(message.chars().count() <= MAX_CHARACTERS + 3);
        prop_assert!(!message.contains(char::is_control));
    }
    Ok(())
}
