//! The real binary and the signals that end it. The signal is sent as soon as `ready` is printed: the moment at which a
//! handler that is installed late would miss it, and the process would end in the middle, or never.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

use std::{
    io::{BufRead, BufReader},
    net::TcpListener,
    process::{Child, Command, Stdio},
};

/// Starts one region in memory and waits for `ready`; none when its ports were taken meanwhile.
fn started() -> Option<Child> {
    // The port is given back before it is used: another process may take it, and then we try another.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let words = ["dev", "--regions", "1", "--in-memory", "--base-port", &port.to_string()];
    let mut child = Command::new(env!("CARGO_BIN_EXE_antipode"))
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    if lines.map(Result::unwrap).any(|line| line == "ready") {
        return Some(child);
    }
    child.wait().unwrap();
    None
}

fn ends_cleanly_on(signal: &str) {
    for _ in 0..5 {
        let mut child = std::iter::repeat_with(started).take(20).flatten().next().unwrap();
        let sent = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        assert_eq!(child.wait().unwrap().code(), Some(0), "{signal}");
    }
}

#[test]
fn ctrl_c_stops_cleanly() {
    ends_cleanly_on("-INT");
}

#[test]
fn sigterm_stops_cleanly() {
    ends_cleanly_on("-TERM");
}
