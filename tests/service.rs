//! Evoke as a service: the notifications of systemd, its watchdog, and the checks before a start.

use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use rustix::process::Signal;

use crate::orders::ORDERS;
use crate::support::{Evoke, TIMEOUT, signal};

/// The socket of a service manager.
struct Manager(UnixDatagram);

impl Manager {
    fn bind(evoke: &Evoke) -> Self {
        let socket = UnixDatagram::bind(evoke.path("notify")).unwrap();
        socket.set_read_timeout(Some(TIMEOUT)).unwrap();
        Self(socket)
    }

    /// Receives messages until one has this line.
    fn await_line(&self, line: &str) {
        let mut buffer = [0; 4096];
        loop {
            let length = self.0.recv(&mut buffer).unwrap_or_else(|error| panic!("no {line}: {error}"));
            let message = std::str::from_utf8(&buffer[..length]).unwrap();
            if message.lines().any(|found| found.starts_with(line)) {
                return;
            }
        }
    }
}

#[test]
fn the_service_manager_hears_of_the_start_a_reload_the_watchdog_and_the_stop() {
    let mut evoke = Evoke::with(ORDERS);
    let manager = Manager::bind(&evoke);
    let environment: [(&str, PathBuf); 2] =
        [("NOTIFY_SOCKET", evoke.path("notify")), ("WATCHDOG_USEC", "200000".into())];
    evoke.start_with(&[], &environment);
    manager.await_line("READY=1");
    evoke.await_ready();
    for _ in 0..3 {
        manager.await_line("WATCHDOG=1");
    }
    signal(evoke.pid(), Signal::HUP);
    manager.await_line("RELOADING=1");
    manager.await_line("READY=1");
    manager.await_line("WATCHDOG=1");
    evoke.terminate();
    manager.await_line("STOPPING=1");
    assert!(evoke.wait().success(), "{}", evoke.log());
}

#[test]
fn a_watchdog_of_another_process_is_not_answered() {
    let mut evoke = Evoke::with(ORDERS);
    let manager = Manager::bind(&evoke);
    let environment: [(&str, PathBuf); 3] =
        [("NOTIFY_SOCKET", evoke.path("notify")), ("WATCHDOG_USEC", "1000".into()), ("WATCHDOG_PID", "1".into())];
    evoke.start_with(&[], &environment);
    manager.await_line("READY=1");
    evoke.await_ready();
    evoke.post_accepted("/checkout", r#"{"customer":"ada","total":42,"items":["book"]}"#);
    evoke.settle();
    manager.0.set_nonblocking(true).unwrap();
    let mut buffer = [0; 64];
    assert!(manager.0.recv(&mut buffer).is_err(), "{:?}", String::from_utf8_lossy(&buffer));
    manager.0.set_nonblocking(false).unwrap();
    evoke.stop();
    manager.await_line("STOPPING=1");
}

#[test]
fn a_start_works_with_a_socket_that_nobody_reads() {
    let mut evoke = Evoke::with(ORDERS);
    let environment: [(&str, PathBuf); 2] =
        [("NOTIFY_SOCKET", evoke.path("missing")), ("WATCHDOG_USEC", "1000".into())];
    evoke.start_with(&[], &environment);
    evoke.await_ready();
    assert!(evoke.stop().success());
    assert!(evoke.log().contains("cannot notify the service manager"), "{}", evoke.log());
}

#[test]
fn the_log_is_json_on_request_and_has_no_colours_in_a_file() {
    let mut evoke = Evoke::with(ORDERS);
    evoke.set_environment(&[("EVOKE_LOG", "debug"), ("EVOKE_LOG_FORMAT", "json")]);
    evoke.up();
    assert!(evoke.stop().success());
    let log = evoke.log();
    let lines: Vec<serde_json::Value> =
        log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect();
    assert!(lines.iter().all(|line| line["at"].is_string() && line["level"].is_string()), "{log}");
    assert!(lines.iter().any(|line| line["text"].as_str().unwrap().starts_with("ready")), "{log}");

    let mut evoke = Evoke::with(ORDERS);
    evoke.set_environment(&[("EVOKE_LOG", "debug")]);
    evoke.up();
    assert!(evoke.stop().success());
    assert!(!evoke.log().contains('\u{1b}'), "{}", evoke.log());
}

#[test]
fn up_check_finds_what_would_prevent_a_start_and_starts_nothing() {
    let mut evoke = Evoke::with(ORDERS);
    let check = ["up", "--check", "evoke.yaml", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    assert_eq!(evoke.stdout(&check).trim(), "1 manifest with 3 functions: ready to start");
    assert!(!evoke.path(".evoke").exists(), "nothing was written");
    evoke.up();
    // The addresses of the Evoke that runs are no obstacle for its next start.
    let (http, admin) = (evoke.http().to_owned(), evoke.admin().to_owned());
    let addresses = ["up", "--check", "evoke.yaml", "--http", &http, "--admin", &admin];
    evoke.stdout(&addresses);
    let other = Evoke::with(ORDERS);
    let output = other.run(&addresses);
    assert!(
        !output.status.success() && String::from_utf8_lossy(&output.stderr).contains("cannot listen"),
        "{output:?}"
    );
    other.write_manifest(&ORDERS.replace(
        "allow: { publish: [\"payment.*\"]",
        "allow: { secrets: { A: { env: NOT_SET_HERE } }, publish: [\"payment.*\"]",
    ));
    let output = other.run(&check);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && message.contains("NOT_SET_HERE is not set"), "{message}");
}

#[test]
fn the_manual_has_a_page_for_each_command() {
    let evoke = Evoke::with(ORDERS);
    evoke.stdout(&["man", "pages/man1"]);
    let page = |name: &str| std::fs::read_to_string(evoke.path("pages/man1").join(name)).unwrap();
    assert!(page("evoke.1").contains("evoke\\-dead") && page("evoke-dead-list.1").contains("newest first"));
    assert!(!evoke.path("pages/man1/evoke-compile-component.1").exists(), "a hidden command");
}

#[test]
fn a_terminal_shows_events_attempts_and_log_lines_unless_it_is_quiet() {
    for (option, is_shown) in [("", true), ("--quiet", false)] {
        let evoke = Evoke::with(ORDERS);
        let program = env!("CARGO_BIN_EXE_evoke");
        // `exec`: Ctrl-C would also end a shell that waits for its command, and its exit code would not be that of Evoke.
        let up = format!("exec {program} up evoke.yaml --http 127.0.0.1:0 --admin 127.0.0.1:0 {option}");
        let mut terminal = std::process::Command::new("script");
        terminal.args(["-qefc", &up, "/dev/null"]).current_dir(evoke.path(""));
        let screen = std::fs::File::create(evoke.path("screen")).unwrap();
        let mut process = terminal.stdin(std::process::Stdio::piped()).stdout(screen).spawn().unwrap();
        let shown = || String::from_utf8_lossy(&std::fs::read(evoke.path("screen")).unwrap()).into_owned();
        crate::assert_eventually!(shown().contains("press Ctrl-C to stop"), "{}", shown());
        evoke.stdout(&[
            "emit",
            "--type",
            "order.placed",
            "--data",
            r#"{"customer":"ada","total":42,"items":["book"]}"#,
        ]);
        evoke.stdout(&["emit", "--type", "order.placed", "--data", r#"{"customer":"bob","total":0,"items":["book"]}"#]);
        evoke.settle();
        if is_shown {
            for part in ["order.placed", "payment.taken", "shop/charge in", "reject: ", "a dead letter", "ada paid 42"]
            {
                crate::assert_eventually!(shown().contains(part), "no {part}: {}", shown());
            }
        }
        // Ctrl-C, as the terminal sends it.
        std::io::Write::write_all(process.stdin.as_mut().unwrap(), b"\x03").unwrap();
        assert!(process.wait().unwrap().success(), "{}", shown());
        assert_eq!(shown().contains("payment.taken"), is_shown, "{}", shown());
    }
}

#[test]
fn up_watch_waits_for_the_correction_of_a_broken_manifest() {
    let mut evoke = Evoke::with("evoke: 1\napp: shop\nfunctoins: {}\n");
    evoke.start(&["--watch"]);
    crate::assert_eventually!(evoke.log().contains("waiting"), "{}", evoke.log());
    assert!(evoke.log().contains("functoins") && !evoke.has_ended());
    evoke.write_manifest(ORDERS);
    evoke.await_ready();
    evoke.post_accepted("/checkout", r#"{"customer":"ada","total":42,"items":["book"]}"#);
    assert!(evoke.stop().success());
}

#[test]
fn an_image_made_without_a_daemon_has_valid_digests_and_all_that_the_program_needs() {
    let evoke = Evoke::with(ORDERS);
    let script = crate::support::root().join("runtime/deploy/image.sh");
    let mut make = std::process::Command::new("bash");
    let output = make.arg(&script).arg(env!("CARGO_BIN_EXE_evoke")).arg(evoke.path("image.tar")).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let digest = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    let unpack = "mkdir layout root && tar -xf image.tar -C layout && tar -xzf layout/blobs/sha256/$1 -C root";
    // The script verifies each digest against the file that it names.
    let verify =
        "cd layout/blobs/sha256 && for blob in *; do echo \"$blob  $blob\"; done | sha256sum --check --quiet -";
    let read = |path: &str| -> serde_json::Value {
        serde_json::from_str(&std::fs::read_to_string(evoke.path(path)).unwrap()).unwrap()
    };
    crate::support::shell(&evoke.path(""), "mkdir first && tar -xf image.tar -C first");
    let index = read("first/index.json");
    assert_eq!(index["manifests"][0]["digest"], digest);
    let blob = |digest: &serde_json::Value| {
        format!("first/blobs/sha256/{}", digest.as_str().unwrap().strip_prefix("sha256:").unwrap())
    };
    let manifest = read(&blob(&index["manifests"][0]["digest"]));
    let config = read(&blob(&manifest["config"]["digest"]));
    assert_eq!(
        (&config["config"]["User"], &config["config"]["Entrypoint"][0]),
        (&"65532:65532".into(), &"/evoke".into())
    );
    let layer = manifest["layers"][0]["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
    crate::support::shell(&evoke.path(""), &unpack.replace("$1", layer));
    crate::support::shell(&evoke.path(""), verify);
    let diff_id = config["rootfs"]["diff_ids"][0].as_str().unwrap().strip_prefix("sha256:").unwrap();
    let unpacked = format!("gzip -dc layout/blobs/sha256/{layer} | sha256sum | grep -q {diff_id}");
    crate::support::shell(&evoke.path(""), &unpacked);
    // The program starts with nothing but the files of the image: its own loader finds its own libraries.
    let start = "loader=$(find root/lib64 root/lib -name 'ld-linux*' | head -n 1)
        libraries=$(find root -name libc.so.6 -printf '%h')
        \"$loader\" --library-path \"$libraries\" --inhibit-cache root/evoke --version | grep -q '^evoke '";
    crate::support::shell(&evoke.path(""), start);
}
