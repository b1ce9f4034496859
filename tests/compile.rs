//! Components that are untrusted input for the compiler: each is refused with a clear error or loads within the limits,
//! and the runtime and the other functions go on.

mod bombs;
mod late;

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::assert_eventually;
use crate::orders::ORDERS;
use crate::support::{Evoke, descriptors, signal};

const ORDER: &str = r#"{"customer":"ada","total":42,"items":["book"]}"#;

/// A function of the order example with another component.
fn with_bomb(file: &str) -> String {
    format!("{ORDERS}  bomb:\n    component: {file}\n    on:\n      - events: {{ type: [bomb.requested] }}\n")
}

/// The files of bombs, each with what the error contains. All are refused by a limit or load and have no entry point.
fn bombs() -> Vec<(&'static str, Vec<u8>, &'static [&'static str])> {
    const NO_FUNCTION: &str = "exports nothing; a function must export";
    const INVALID: &str = "is not a valid component";
    vec![
        ("functions.wasm", bombs::functions(1_000_000), &["has 1000000 functions; the limit is 100000"]),
        ("data.wasm", bombs::data_segments(32_000), &[NO_FUNCTION]),
        ("core-imports.wasm", bombs::core_imports(10_000), &[NO_FUNCTION]),
        ("imports.wat", bombs::imports(10_000), &["instances count exceeds limit of 1000"]),
        ("exports.wat", bombs::exports(10_000), &["exports; the limit is 1000", "exceeds limit of 1000"]),
        ("nested.wat", bombs::nested_components(100, 9), &[MEMORY]),
        ("nested-little.wat", bombs::nested_components(10, 5), &["bytes of metadata, more than the limit", MEMORY]),
        ("branches.wasm", bombs::branch_table(5_000, 1_000), &[MEMORY]),
        ("locals.wasm", bombs::locals_and_loops(600, 1_500), &[MEMORY, "s of processor time to compile"]),
        ("code.wasm", bombs::conversions(300, 1_000), &["compiles to more than 25 MiB of code"]),
        ("table.wat", bombs::table(100_000_000), &["exceeds"]),
        ("elements.wat", bombs::passive_elements(300_000, 60), &[INSTANCES]),
        ("globals.wat", bombs::globals(30_000, 60), &[INSTANCES]),
        ("types.wat", bombs::doubling_types(200), &[INVALID]),
        ("deep.wasm", bombs::deep_nesting(20_000), &[MEMORY]),
        ("torn.wasm", bombs::functions(50_000)[..100_000].to_vec(), &[INVALID]),
        ("random-1.wasm", bombs::random(1, 100_000), &[INVALID]),
        ("random-2.wasm", bombs::random(2, 5_000_000), &[INVALID]),
    ]
}

/// A component that compiles for minutes in memory that grows slowly.
fn slow() -> Vec<u8> {
    bombs::locals_and_loops(1_500, 2_000)
}

const INSTANCES: &str =
    "KiB of host memory for its core instances, in addition to their linear memories; the limit is 8192 KiB";
const MEMORY: &str = "takes more than 512 MiB of memory to compile";
/// Limits that keep the tests short. The memory and the time of a component that they refuse have no bound.
const LIMITS: [&str; 4] = ["--compile-memory", "512MiB", "--compile-time", "15s"];

/// The running compiler processes of a process.
fn compilers(parent: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten();
    let children = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("children")).ok());
    let children = children.collect::<Vec<_>>().join(" ");
    let is_compiler = |pid: &u32| {
        let arguments = std::fs::read_to_string(format!("/proc/{pid}/cmdline"));
        arguments.is_ok_and(|arguments| arguments.contains("compile-component"))
    };
    children.split_ascii_whitespace().map(|pid| pid.parse().unwrap()).filter(is_compiler).collect()
}

/// A number in `/proc/PID/status`; `None` after the process has ended.
fn status(pid: u32, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

fn write(evoke: &Evoke, name: &str, component: &[u8]) {
    std::fs::write(evoke.path("new.tmp"), component).unwrap();
    std::fs::rename(evoke.path("new.tmp"), evoke.path(name)).unwrap();
}

#[test]
fn each_bomb_is_refused_at_its_place_in_the_manifest_and_all_at_once() {
    let evoke = Evoke::with("");
    let mut manifest = "evoke: 1\napp: lab\nfunctions:\n".to_owned();
    for (n, (file, component, _)) in bombs().iter().enumerate() {
        write(&evoke, file, component);
        manifest += &format!("  f{n}:\n    component: {file}\n    on: [{{ events: {{ type: [a] }} }}]\n");
    }
    evoke.write_manifest(&manifest);
    let output = evoke.run(&[&["validate", "--json"], &LIMITS[..]].concat());
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    for (n, (file, component, expected)) in bombs().iter().enumerate() {
        let line = 5 + 3 * n;
        let all = found.as_array().unwrap().iter();
        let error = all.clone().find(|error| error["line"] == line).unwrap_or_else(|| panic!("{file}: {found:#}"));
        let message = error["message"].as_str().unwrap();
        println!("{file} of {} bytes: {message}", component.len());
        assert!(message.contains(file), "{message}");
        assert!(expected.iter().any(|expected| message.contains(expected)), "{file}: {message}");
    }
}

#[test]
fn a_reload_with_a_bomb_leaves_the_neighbour_running_and_memory_and_descriptors_flat() {
    let mut evoke = Evoke::with(ORDERS);
    evoke.up_with_arguments(&[&["--watch"], &LIMITS[..]].concat());
    let mut orders = 0;
    let mut order = |evoke: &Evoke| {
        evoke.post_accepted("/checkout", ORDER);
        orders += 1;
    };
    (0..50).for_each(|_| order(&evoke));
    evoke.settle();
    let (pid, memory, files, before) =
        (evoke.pid(), evoke.rss_kib(), descriptors(evoke.pid()), evoke.done_count("shop/notify"));

    write(&evoke, "bomb.wat", &bombs::nested_components(100, 9));
    evoke.write_manifest(&with_bomb("bomb.wat"));
    let (mut memory_max, mut compiler_max, mut done_while_compiling) = (0, 0, 0);
    let deadline = Instant::now() + Duration::from_secs(60);
    while !evoke.log().contains("the previous manifests stay active") {
        assert!(Instant::now() < deadline, "{}", evoke.log());
        order(&evoke);
        memory_max = memory_max.max(evoke.rss_kib());
        if let Some(compiler) = compilers(pid).first() {
            compiler_max = compiler_max.max(status(*compiler, "VmHWM").unwrap_or_default());
            done_while_compiling = evoke.done_count("shop/notify") - before;
        }
    }
    println!(
        "done while compiling {done_while_compiling}, memory {memory} to {memory_max} KiB, compiler {compiler_max} KiB"
    );
    assert!(evoke.log().contains(MEMORY), "{}", evoke.log());
    assert!(evoke.log().contains("evoke.yaml:24:16"), "the log has the position: {}", evoke.log());
    assert!(evoke.log().contains("--compile-memory"), "the log says how to raise the limit: {}", evoke.log());
    assert!(done_while_compiling > 0, "deliveries go on during the compilation");
    assert!(memory_max < memory + 32 * 1024, "memory grew from {memory} to {memory_max} KiB");
    assert!(compiler_max > 100 * 1024 && compiler_max < 700 * 1024, "the compiler took {compiler_max} KiB");
    evoke.settle();
    assert_eq!(evoke.events("receipt.issued").len(), orders);
    assert!(compilers(pid).is_empty());
    // The store may have opened its next reader meanwhile.
    assert_eventually!(descriptors(pid) <= files + 2, "{} descriptors, {files} before", descriptors(pid));
}

#[test]
fn a_refused_component_is_not_tried_again_until_its_limit_is_raised() {
    let evoke = Evoke::with(&with_bomb("bomb.wat"));
    write(&evoke, "bomb.wat", &bombs::nested_components(10, 5));
    let up = |memory: &str| {
        let output = evoke.run(&[
            "up",
            "evoke.yaml",
            "--http",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
            "--compile-memory",
            memory,
        ]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let first = up("8MiB");
    assert!(first.contains("takes more than 8 MiB of memory") && !first.contains("not compiled again"), "{first}");
    for memory in ["8MiB", "4MiB"] {
        let again = up(memory);
        assert!(
            again.contains("takes more than 8 MiB of memory to compile; it was refused before and not compiled again"),
            "{again}"
        );
        assert!(again.contains("--compile-memory") && again.contains(".refused"), "{again}");
    }
    let more = up("512MiB");
    let is_other_reason = more.contains("bytes of metadata, more than the limit") || more.contains(MEMORY);
    assert!(is_other_reason && !more.contains("not tried again"), "{more}");

    // Without its record, the component is tried again.
    let record = std::fs::read_dir(evoke.path(".evoke/compiled")).unwrap().map(|entry| entry.unwrap().path());
    let record: Vec<PathBuf> = record.filter(|path| path.extension().is_some_and(|e| e == "refused")).collect();
    assert!(!record.is_empty());
    record.iter().for_each(|record| std::fs::remove_file(record).unwrap());
    let retried = up("8MiB");
    assert!(!retried.contains("not tried again"), "{retried}");
}

/// A start that compiles for long, and its compiler process once it is confined.
fn compiling() -> (Evoke, u32, u32) {
    // No other function: its compiler process could be taken for this one's.
    let only =
        "evoke: 1\napp: lab\nfunctions:\n  slow:\n    component: slow.wasm\n    on: [{ events: { type: [a] } }]\n";
    let mut evoke = Evoke::with(only);
    write(&evoke, "slow.wasm", &slow());
    evoke.start(&["--compile-memory", "8GiB", "--compile-time", "10m"]);
    let parent = evoke.pid();
    let find = || compilers(parent).into_iter().find(|pid| status(*pid, "Seccomp") == Some(2));
    assert_eventually!(find().is_some(), "no compiler process: {}", evoke.log());
    let compiler = find().unwrap();
    (evoke, parent, compiler)
}

#[test]
fn the_compiler_process_can_only_compute_and_ends_with_its_parent() {
    let (mut evoke, _, compiler) = compiling();
    let proc = PathBuf::from(format!("/proc/{compiler}"));
    let read = |name: &str| std::fs::read_to_string(proc.join(name)).unwrap();
    assert_eq!(read("environ"), "MIMALLOC_ARENA_RESERVE=65536\0", "nothing is inherited");
    assert_eq!(std::fs::read_link(proc.join("cwd")).unwrap(), Path::new("/"));
    let open: BTreeSet<String> =
        std::fs::read_dir(proc.join("fd")).unwrap().map(|fd| fd.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(open, ["0", "1", "2"].map(str::to_owned).into());
    assert_eq!((status(compiler, "Seccomp"), status(compiler, "NoNewPrivs")), (Some(2), Some(1)));
    assert_eq!(read("oom_score_adj").trim(), "1000");
    let limits = read("limits");
    let limit = |name: &str| {
        let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap()
    };
    assert_eq!((limit("Max open files"), limit("Max core file size"), limit("Max cpu time")), (3, 0, 600));
    let gib = 1 << 30;
    assert!((8 * gib..9 * gib).contains(&limit("Max address space")), "{limits}");
    assert!((8 * gib..9 * gib).contains(&limit("Max data size")), "{limits}");
    assert!(limit("Max file size") < 32 << 20, "{limits}");

    evoke.kill();
    assert_eventually!(!proc.exists() || read("stat").contains(") Z "), "the compiler outlives its parent");
}

#[test]
fn a_compiler_that_is_killed_from_outside_is_no_refusal() {
    let (mut evoke, parent, compiler) = compiling();
    signal(compiler, Signal::KILL);
    assert_eq!(evoke.wait().code(), Some(1));
    assert!(compilers(parent).is_empty());
    let log = evoke.log();
    assert!(log.contains("cannot be compiled now") && log.contains("ended from outside"), "{log}");
    let names = std::fs::read_dir(evoke.path(".evoke/compiled")).unwrap().map(|e| e.unwrap().file_name());
    let refused: Vec<_> = names.filter(|name| name.to_str().unwrap().ends_with(".refused")).collect();
    assert!(refused.is_empty(), "{refused:?}");
}

#[test]
fn a_stop_during_a_reload_ends_the_compiler_and_does_not_wait_for_it() {
    let mut evoke = Evoke::with(ORDERS);
    evoke.up_with_arguments(&["--watch", "--compile-memory", "8GiB", "--compile-time", "10m"]);
    write(&evoke, "slow.wasm", &slow());
    evoke.write_manifest(&with_bomb("slow.wasm"));
    let parent = evoke.pid();
    assert_eventually!(!compilers(parent).is_empty(), "no compiler process: {}", evoke.log());
    let compiler = compilers(parent)[0];
    assert!(evoke.stop().success(), "{}", evoke.log());
    assert!(!Path::new(&format!("/proc/{compiler}")).exists(), "the compiler outlives its parent");
}

#[test]
fn a_component_that_takes_too_long_is_refused() {
    let evoke = Evoke::with("");
    write(&evoke, "slow.wasm", &slow());
    let output = evoke.run(&["inspect", "slow.wasm", "--compile-memory", "8GiB", "--compile-time", "2s"]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("slow.wasm takes more than 2 s of processor time to compile"), "{text}");
    assert!(text.contains("--compile-time DURATION or EVOKE_COMPILE_TIME"), "{text}");
}

/// The component is not at fault, so the error says that the machine is busy.
#[test]
fn a_compiler_that_gets_no_processor_time_is_ended_by_the_clock() {
    let evoke = Evoke::with("");
    write(&evoke, "slow.wasm", &slow());
    let mut command = evoke.command(&["inspect", "slow.wasm", "--compile-memory", "8GiB", "--compile-time", "1s"]);
    let inspect = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
    let parent = inspect.id();
    assert_eventually!(!compilers(parent).is_empty(), "no compiler process");
    let compiler = compilers(parent)[0];
    signal(compiler, Signal::STOP);
    let started = Instant::now();
    let output = inspect.wait_with_output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("compiling took longer than 13 s") && text.contains("the machine is too busy"), "{text}");
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    assert!(!Path::new(&format!("/proc/{compiler}")).exists(), "the compiler outlives its parent");
}

#[test]
fn inspect_validate_and_invoke_have_the_same_limits_and_leave_no_files() {
    let mut evoke = Evoke::with(&with_bomb("bomb.wat"));
    write(&evoke, "bomb.wat", &bombs::nested_components(100, 9));
    let temporary = evoke.path("tmp");
    std::fs::create_dir(&temporary).unwrap();
    evoke.set_environment(&[("EVOKE_COMPILE_MEMORY", "64MiB"), ("TMPDIR", temporary.to_str().unwrap())]);
    for arguments in [&["inspect", "bomb.wat"][..], &["validate"], &["invoke", "bomb", "--event", "{}"]] {
        let output = evoke.run(arguments);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {text}");
        assert!(text.contains("bomb.wat takes more than 64 MiB of memory to compile"), "{arguments:?}: {text}");
        assert!(text.contains("--compile-memory SIZE or EVOKE_COMPILE_MEMORY"), "{arguments:?}: {text}");
        if arguments[0] != "invoke" {
            assert!(!evoke.path(".evoke").exists(), "{arguments:?}");
        }
    }
    assert_eq!(std::fs::read_dir(&temporary).unwrap().count(), 0);
}

#[test]
fn a_compiled_file_that_evoke_did_not_write_is_compiled_again_with_a_warning() {
    let mut evoke = Evoke::up_with(ORDERS);
    evoke.post_accepted("/checkout", ORDER);
    evoke.settle();
    evoke.stop();
    let folder = evoke.path(".evoke/compiled");
    let key = std::fs::metadata(folder.join("key")).unwrap();
    assert_eq!((key.permissions().mode() & 0o777, key.len()), (0o600, 32));
    let compiled = || -> Vec<PathBuf> {
        let paths = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
        paths.filter(|path| path.extension().is_some_and(|e| e == "compiled")).collect()
    };
    assert_eq!(compiled().len(), 3);
    evoke.up();
    evoke.stop();
    assert!(!evoke.log().contains("damaged on disk"), "{}", evoke.log());

    // Valid files of another folder have another key.
    let mut other = Evoke::up_with(ORDERS);
    other.stop();
    let contents = || compiled().into_iter().map(|path| std::fs::read(path).unwrap()).collect::<BTreeSet<_>>();
    for path in compiled() {
        std::fs::copy(other.path(".evoke/compiled").join(path.file_name().unwrap()), &path).unwrap();
    }
    let foreign = contents();
    evoke.up();
    assert_eq!(evoke.log().matches("damaged on disk, or another program wrote it").count(), 3, "{}", evoke.log());
    assert!(contents().is_disjoint(&foreign), "the files are replaced");
    evoke.post_accepted("/checkout", ORDER);
    evoke.settle();
    assert_eq!(evoke.events("receipt.issued").len(), 2);
    evoke.stop();
}

#[test]
fn the_command_for_compiling_is_not_in_the_help() {
    let evoke = Evoke::with("");
    for arguments in [&["--help"][..], &["help"]] {
        assert!(!evoke.stdout(arguments).contains("compile-component"), "{arguments:?}");
    }
    for command in ["up", "validate", "invoke", "inspect"] {
        let help = evoke.stdout(&[command, "--help"]);
        for text in ["--compile-memory", "EVOKE_COMPILE_MEMORY", "--compile-time", "EVOKE_COMPILE_TIME"] {
            assert!(help.contains(text), "{command}: {help}");
        }
    }
    // Started by hand, the command refuses to run.
    let output = evoke.run(&[
        "compile-component",
        "--memory",
        "1",
        "--cpu-seconds",
        "1",
        "--output-bytes",
        "1",
        "--threads",
        "1",
        "--parent",
        "1",
    ]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}
