//! Files that a user names: anything but a regular file of a sensible size is an error at once.

use std::os::unix::net::UnixListener;
use std::process::Command;

use crate::orders::ORDERS;
use crate::support::Evoke;

const UP: [&str; 5] = ["up", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0"];

/// An Evoke folder with a named pipe, a socket and a folder that are named like files.
fn folder() -> (Evoke, UnixListener) {
    let evoke = Evoke::with(ORDERS);
    assert!(Command::new("mkfifo").arg(evoke.path("pipe.yaml")).status().unwrap().success());
    for name in ["pipe.wasm", "pipe", "linked.yaml"] {
        std::os::unix::fs::symlink("pipe.yaml", evoke.path(name)).unwrap();
    }
    std::fs::create_dir(evoke.path("folder.wasm")).unwrap();
    let socket = UnixListener::bind(evoke.path("socket.yaml")).unwrap();
    (evoke, socket)
}

/// Asserts that a command fails at once with this text.
fn assert_fails(evoke: &Evoke, arguments: &[&str], expected: &str) {
    let output = evoke.run_within_timeout(arguments);
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {message}");
    assert!(message.contains(expected), "{arguments:?}: no {expected} in {message}");
}

#[test]
fn a_manifest_that_is_no_regular_file_is_an_error_at_once() {
    let (evoke, _socket) = folder();
    let cases = [
        ("pipe.yaml", "a named pipe"),
        ("linked.yaml", "a named pipe"),
        ("socket.yaml", "a socket"),
        ("/dev/zero", "a device"),
        ("/dev/tty", "a device"),
    ];
    for (manifest, kind) in cases {
        assert_fails(&evoke, &["validate", manifest], kind);
        assert_fails(&evoke, &[&UP[..], &[manifest]].concat(), kind);
        assert_fails(&evoke, &["build", manifest], kind);
    }
}

#[test]
fn a_component_or_a_secret_that_is_no_regular_file_is_an_error_at_once() {
    let (evoke, _socket) = folder();
    assert_fails(&evoke, &["inspect", "pipe.wasm"], "a named pipe");
    assert_fails(&evoke, &["inspect", "folder.wasm"], "a folder");
    assert_fails(&evoke, &["inspect", "/dev/zero"], "a device");
    let with_function = |component: &str, more: &str| {
        let function = format!("  extra: {{ component: {component}, on: [{{ events: {{ type: [x] }} }}], {more} }}\n");
        evoke.write_manifest(&(ORDERS.trim_end().to_owned() + "\n" + &function));
    };
    with_function("pipe.wasm", "");
    assert_fails(&evoke, &["validate"], "a pipe, a socket or a device");
    with_function("made.wasm", "build: mkfifo made.wasm");
    assert_fails(&evoke, &UP, "a named pipe");
    for (secret, kind) in [("pipe", "a named pipe"), ("/dev/zero", "a device"), ("folder.wasm", "a folder")] {
        with_function("$FUNCTIONS/notify.wasm", &format!("allow: {{ secrets: {{ KEY: {{ file: {secret} }} }} }}"));
        assert_fails(&evoke, &["validate"], kind);
        assert_fails(&evoke, &UP, kind);
    }
}

#[test]
fn a_file_over_its_limit_is_an_error_at_once() {
    let (evoke, _socket) = folder();
    // Files without content on disk, each larger than the memory of the machine.
    for name in ["large.yaml", "large.wasm", "large"] {
        std::fs::File::create(evoke.path(name)).unwrap().set_len(1 << 40).unwrap();
    }
    assert_fails(&evoke, &["validate", "large.yaml"], "larger than 1 MiB");
    assert_fails(&evoke, &["inspect", "large.wasm"], "larger than the limit");
    evoke.write_manifest(&(ORDERS.trim_end().to_owned()
        + "\n  extra: { component: $FUNCTIONS/notify.wasm, on: [{ events: { type: [x] } }], allow: { secrets: { KEY: { file: large } } } }\n"));
    assert_fails(&evoke, &["validate"], "larger than the limit");
    assert_fails(&evoke, &["emit", "--type", "x", "--data", "@large"], "larger than the limit");
}

#[test]
fn a_pipe_as_the_value_of_an_option_is_an_error_at_once() {
    let (evoke, _socket) = folder();
    for option in ["--data", "--event"] {
        let arguments = ["emit", "--type", "x", "--data", "@pipe"];
        let arguments = if option == "--data" { &arguments[..] } else { &["emit", "--event", "@pipe"] };
        assert_fails(&evoke, arguments, "a named pipe");
    }
}
