//! `build:` commands: what they get from Evoke, and how they end.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::assert_eventually;
use crate::support::{Evoke, signal};

/// A function that is built by `$BUILD`.
const BUILT: &str = r#"
evoke: 1
app: lab
functions:
  f:
    component: ./f.wat
    build: $BUILD
    on: [{ events: { type: [x] } }]
"#;

fn building(build: &str) -> Evoke {
    Evoke::with(&BUILT.replace("$BUILD", build))
}

#[test]
fn a_build_gets_no_variable_that_neither_tools_need_nor_the_manifest_names() {
    let command = "env > variables; echo '(component)' > f.wat";
    let map = format!("{{ run: \"{command}\", env: [CC, MY_FLAGS, NOT_SET] }}");
    for (build, named) in [(format!("\"{command}\""), false), (map, true)] {
        let mut evoke = building(&build);
        evoke.set_environment(&[
            ("PAYMENT_KEY", "secret-1"),
            ("CARGO_REGISTRY_TOKEN", "secret-2"),
            ("CC", "mycc"),
            ("MY_FLAGS", "-O2"),
            ("LC_MESSAGES", "C"),
            ("CARGO_HOME", "/my/cargo"),
        ]);
        evoke.stdout(&["build"]);
        let variables = std::fs::read_to_string(evoke.path("variables")).unwrap();
        let has = |line: &str| variables.lines().any(|found| found == line);
        assert!(!variables.contains("secret-"), "{variables}");
        assert!(has("LC_MESSAGES=C") && has("CARGO_HOME=/my/cargo"), "{variables}");
        assert!(variables.contains("PATH=") && variables.contains("HOME="), "{variables}");
        assert_eq!((has("CC=mycc"), has("MY_FLAGS=-O2")), (named, named), "{variables}");
        assert!(!variables.contains("NOT_SET"), "{variables}");
    }
}

#[test]
fn a_build_inherits_no_open_file_and_no_umask_of_evoke() {
    let evoke =
        building("\"readlink /proc/$$/fd/* > open; readlink /proc/$$/fd/0 > stdin; echo '(component)' > f.wat\"");
    std::fs::write(evoke.path("secret"), "secret").unwrap();
    // Evoke itself inherits two open files that it knows nothing of.
    let mut command = Command::new("bash");
    command.args(["-c", "exec 9<secret 77<secret; exec \"$@\"", "bash", env!("CARGO_BIN_EXE_evoke"), "build"]);
    let output = command.current_dir(evoke.path(".")).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let read = |name: &str| std::fs::read_to_string(evoke.path(name)).unwrap();
    assert!(!read("open").contains("secret") && !read("open").is_empty(), "{}", read("open"));
    assert_eq!(read("stdin").trim(), "/dev/null");
    let mode = |name: &str| std::fs::metadata(evoke.path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("f.wat"), mode("secret"), "as the user's shell makes it");
}

#[test]
fn a_cancelled_build_ends_with_all_its_children() {
    let script = "sleep 1000 & echo $! > new; mv new child; wait";
    for arguments in [&["up", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0"][..], &["build"]] {
        let evoke = building(&format!("\"{script}\""));
        let mut process = evoke.command(arguments).stderr(Stdio::null()).spawn().unwrap();
        assert_eventually!(evoke.path("child").exists(), "the build did not start");
        let child = std::fs::read_to_string(evoke.path("child")).unwrap();
        signal(process.id(), Signal::TERM);
        assert_eventually!(process.try_wait().unwrap().is_some(), "{arguments:?} goes on");
        // A process that has ended and that no parent has waited for is in state Z.
        let is_running = || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.trim())).unwrap_or_default();
            stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with('Z'))
        };
        assert_eventually!(!is_running(), "the child {child} of the build goes on");
    }
}
