//! `emit` from standard input: lines become events, in order and once, also while Evoke is restarted.

use std::io::Write;
use std::process::{Child, Stdio};
use std::time::Instant;

use serde_json::{Value, json};

use crate::assert_eventually;
use crate::faults::random::is_long_form;
use crate::support::Evoke;

/// Nothing receives the events: the tests are about the way in.
const MANIFEST: &str = r#"
evoke: 1
app: lab
sources:
  other:
    http: { path: /other, type: other }
functions:
  sink:
    component: $FUNCTIONS/fate-done.wasm
    on: [{ source: other }]
"#;

/// Starts `evoke emit` with an open standard input.
fn start(evoke: &Evoke, arguments: &[&str]) -> Child {
    let mut command = evoke.command(&[&["emit"], arguments].concat());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Runs `evoke emit` with this input. Returns its exit code, standard output and standard error.
fn emit(evoke: &Evoke, arguments: &[&str], input: &str) -> (Option<i32>, String, String) {
    let mut process = start(evoke, arguments);
    // A command that refuses its arguments closes the pipe.
    let _ = process.stdin.take().unwrap().write_all(input.as_bytes());
    let output = process.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// The data of the stored events of type `line`, in accept order.
fn stored(evoke: &Evoke) -> Vec<i64> {
    evoke.events("line").iter().map(|event| event["data"]["n"].as_i64().unwrap()).collect()
}

fn lines(numbers: std::ops::Range<i64>) -> String {
    numbers.map(|n| format!("{{\"n\":{n}}}\n")).collect()
}

#[test]
fn lines_of_data_and_of_events_are_stored_in_order() {
    let evoke = Evoke::up_with(MANIFEST);
    let (code, out, _) = emit(&evoke, &["--type", "line", "--subject", "s", "-"], &lines(0..2_500));
    assert_eq!((code, out.trim()), (Some(0), "2500 events stored"));
    assert_eq!(stored(&evoke), (0..2_500).collect::<Vec<_>>());
    let first = &evoke.events("line")[0];
    assert_eq!((&first["source"], &first["subject"]), (&json!("/cli"), &json!("s")));

    // Events keep their attributes; an event that is sent again is a duplicate. The last line needs no end.
    let event = |id: i64| json!({ "specversion": "1.0", "id": id.to_string(), "source": "/s", "type": "line", "data": { "n": id } });
    let input = format!("{}\n\n{}\n{}", event(9_001), event(9_001), event(9_002));
    let (code, out, _) = emit(&evoke, &["-", "--json"], &input);
    let summary: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, summary), (Some(0), json!({ "stored": 2, "duplicates": 1, "refused": 0, "left": false })));
    assert_eq!(stored(&evoke)[2_500..], [9_001, 9_002]);
}

#[test]
fn a_wrong_line_ends_the_command_with_its_number_after_the_lines_before_it() {
    let evoke = Evoke::up_with(MANIFEST);
    let input = format!("{}{{\"n\":\n{}", lines(0..3), lines(4..6));
    let (code, _, error) = emit(&evoke, &["--type", "line", "-"], &input);
    assert!(code == Some(1) && error.contains("line 4: not JSON"), "{code:?} {error}");
    assert_eq!(stored(&evoke), [0, 1, 2]);
    let (code, _, error) = emit(&evoke, &["--type", "line", "--spool", "spool", "-"], &input);
    assert!(code == Some(1) && error.contains("line 4: not JSON"), "{code:?} {error}");
    assert_eq!(stored(&evoke), [0, 1, 2, 0, 1, 2]);
    // Lines are checked before the spool takes them.
    let event = r#"{"type":"line","source":"no source","data":{"n":7}}"#;
    let (code, _, error) = emit(&evoke, &["--spool", "spool", "-"], event);
    assert!(code == Some(1) && error.contains("line 1: `source` is not a URI reference"), "{code:?} {error}");
    let (code, _, error) = emit(&evoke, &["--type", "line", "--not-before", "2999-01-01T00:00:00Z", "-"], "1");
    assert!(code == Some(1) && error.contains("more than 366 days ahead"), "{code:?} {error}");
    for wrong in [&["-", "--data", "1"][..], &["--spool-max", "1GiB", "-"], &[], &["--type", "t", "x"]] {
        assert_eq!(emit(&evoke, wrong, "").0, Some(2), "{wrong:?}");
    }
}

#[test]
fn without_a_spool_the_command_fails_when_evoke_is_away() {
    let mut evoke = Evoke::up_with(MANIFEST);
    let mut process = start(&evoke, &["--type", "line", "-"]);
    let mut input = process.stdin.take().unwrap();
    input.write_all(lines(0..3).as_bytes()).unwrap();
    assert_eventually!(stored(&evoke).len() == 3, "{:?}", stored(&evoke));
    evoke.kill();
    input.write_all(lines(3..6).as_bytes()).unwrap();
    let output = process.wait_with_output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3), "{error}");
    assert!(error.contains("the events up to line 3 were stored") && error.contains("--spool DIR"), "{error}");
}

#[test]
fn lines_from_standard_input_are_stored_once_and_in_order_through_three_restarts() {
    let mut evoke = Evoke::up_with(MANIFEST);
    let count = if is_long_form() { 100_000 } else { 20_000 };
    let mut process = start(&evoke, &["--type", "line", "--spool", "spool", "--wait", "60s", "-"]);
    let mut input = process.stdin.take().unwrap();
    // The producer never waits for Evoke.
    let writer = std::thread::spawn(move || {
        for start in (0..count).step_by(1_000) {
            input.write_all(lines(start..start + 1_000).as_bytes()).unwrap();
        }
    });
    let events = |evoke: &Evoke| evoke.get_admin("/api/v1/status", &[]).json()["events"].as_i64().unwrap();
    for restart in 1..=3 {
        assert_eventually!(events(&evoke) >= restart * count / 5, "{} events: {}", events(&evoke), evoke.log());
        if restart == 2 {
            evoke.stop();
        } else {
            evoke.kill();
        }
        evoke.up();
    }
    writer.join().unwrap();
    let output = process.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(stored(&evoke), (0..count).collect::<Vec<_>>());
    let summary = String::from_utf8(output.stdout).unwrap();
    println!("{}", summary.trim());
    assert_eq!(evoke.json(&["check"])["problems"], json!([]));
}

#[test]
fn a_spool_keeps_lines_while_evoke_is_away_and_the_next_command_sends_them() {
    let mut evoke = Evoke::with(MANIFEST);
    let spool = ["--type", "line", "--spool", "spool", "--wait", "0s", "-"];
    let (code, out, error) = emit(&evoke, &spool, &lines(0..10));
    assert_eq!((code, out.trim()), (Some(0), "0 events stored"), "{error}");
    assert!(error.contains("events stay in the spool spool"), "{error}");
    // A command that is killed at any point has taken what it has written.
    let mut process = start(&evoke, &["--type", "line", "--spool", "spool", "-"]);
    let mut input = process.stdin.take().unwrap();
    input.write_all(lines(10..20).as_bytes()).unwrap();
    let spooled = || {
        let text = std::fs::read_to_string(evoke.path("spool/00000001.events")).unwrap_or_default();
        text.lines().count()
    };
    assert_eventually!(spooled() == 20, "{} lines", spooled());
    // Two emitters exclude each other.
    let (code, _, error) = emit(&evoke, &spool, "1");
    assert!(code == Some(1) && error.contains("another `evoke emit` uses it"), "{code:?} {error}");
    process.kill().unwrap();
    process.wait().unwrap();
    drop(input);
    evoke.up();
    // No new lines: the command sends the content of the spool. A single event goes the same way.
    let (code, out, error) = emit(&evoke, &["--spool", "spool"], "");
    assert_eq!((code, out.trim()), (Some(0), "20 events stored"), "{error}");
    let (code, out, _) = emit(&evoke, &["--spool", "spool", "--type", "line", "--data", "{\n\"n\": 20}"], "");
    assert_eq!((code, out.trim()), (Some(0), "1 event stored"));
    assert_eq!(stored(&evoke), (0..21).collect::<Vec<_>>());
    // A lost position sends events again, which are stored once.
    std::fs::remove_file(evoke.path("spool/position")).unwrap();
    let (_, out, _) = emit(&evoke, &["--spool", "spool"], "");
    assert_eq!(out.trim(), "0 events stored, 21 duplicates not stored again");
    assert_eq!(stored(&evoke).len(), 21);
}

#[test]
fn a_full_spool_takes_no_more_lines_and_says_so() {
    let evoke = Evoke::with(MANIFEST);
    let large = format!("{}\n", json!({ "n": 1, "text": "x".repeat(100_000) })).repeat(30);
    let arguments = ["--type", "line", "--spool", "spool", "--spool-max", "1MiB", "--wait", "0s", "-"];
    let (code, _, error) = emit(&evoke, &arguments, &large);
    assert_eq!(code, Some(1), "{error}");
    assert!(
        error.contains("it is full") && error.contains("start Evoke to empty the spool, or raise --spool-max"),
        "{error}"
    );
    let size = std::fs::metadata(evoke.path("spool/00000001.events")).unwrap().len();
    assert!(size <= 1 << 20, "{size}");
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(std::fs::metadata(evoke.path("spool")).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn an_event_that_evoke_refuses_is_set_aside_and_the_others_are_stored() {
    let evoke = Evoke::up_with(MANIFEST);
    let event = |n: i64, source: &str| format!("{}\n", json!({ "source": source, "type": "line", "data": { "n": n } }));
    // Only the runtime makes events of this source.
    let input = [event(0, "/s"), event(1, "/evoke"), event(2, "/s"), event(3, "/evoke"), event(4, "/s")].concat();
    let (code, out, error) = emit(&evoke, &["--spool", "spool", "-"], &input);
    assert_eq!((code, out.trim()), (Some(1), "3 events stored"), "{error}");
    assert!(error.contains("Evoke refused an event: ") && error.contains("moved to spool/refused.jsonl"), "{error}");
    assert_eq!(stored(&evoke), [0, 2, 4]);
    let refused = std::fs::read_to_string(evoke.path("spool/refused.jsonl")).unwrap();
    let refused: Vec<Value> = refused.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let numbers: Vec<_> = refused.iter().map(|one| one["event"]["data"]["n"].as_i64().unwrap()).collect();
    assert_eq!(numbers, [1, 3]);
}

#[test]
fn a_reading_is_an_event_only_when_it_changed_also_across_kills() {
    let mut evoke = Evoke::up_with(MANIFEST);
    let read = |evoke: &Evoke, n: i64, more: &[&str]| {
        let data = json!({ "n": n }).to_string();
        let arguments = [&["--type", "line", "--when-changed", "root disk", "--data", &data], more].concat();
        emit(evoke, &arguments, "")
    };
    for n in [1, 1, 2, 2, 1] {
        assert_eq!(read(&evoke, n, &[]).0, Some(0));
    }
    assert_eq!(stored(&evoke), [1, 2, 1]);
    evoke.kill();
    // The change of this reading is sent when Evoke is back, although the reading is over.
    let (code, _, error) = read(&evoke, 5, &[]);
    assert_eq!(code, Some(3), "{error}");
    evoke.up();
    assert_eq!(read(&evoke, 5, &[]).0, Some(0));
    assert_eq!(stored(&evoke), [1, 2, 1, 5]);
    // With a spool, a change is kept while Evoke is away.
    let spool = ["--spool", "spool", "--wait", "0s"];
    evoke.kill();
    for n in [5, 5, 6, 6] {
        assert_eq!(read(&evoke, n, &spool).0, Some(0));
    }
    evoke.up();
    let readings = format!("{}{}{}", lines(6..7).repeat(3), lines(7..9), lines(8..9));
    let (code, out, error) =
        emit(&evoke, &["--type", "line", "--when-changed", "root disk", "--spool", "spool", "-"], &readings);
    assert_eq!((code, out.trim()), (Some(0), "4 events stored"), "{error}");
    assert_eq!(stored(&evoke), [1, 2, 1, 5, 5, 6, 7, 8]);
}

#[test]
fn a_note_about_the_folder_of_a_spool_is_printed_once() {
    use std::os::unix::fs::PermissionsExt as _;
    let evoke = Evoke::up_with(MANIFEST);
    std::fs::create_dir(evoke.path("open")).unwrap();
    std::fs::set_permissions(evoke.path("open"), std::fs::Permissions::from_mode(0o777)).unwrap();
    let arguments = ["--type", "line", "--data", "{\"n\":1}", "--when-changed", "k", "--spool", "open/spool"];
    let (code, out, error) = emit(&evoke, &arguments, "");
    assert_eq!((code, out.trim()), (Some(0), "1 event stored"), "{error}");
    assert_eq!(error.matches("other users may rename or replace").count(), 1, "{error}");
    // A wrong key is reported before a folder is made.
    let (code, _, error) = emit(&evoke, &["--type", "line", "--when-changed", ".k", "--spool", "other"], "");
    assert!(code == Some(2) && error.contains("must not begin with a dot"), "{code:?} {error}");
    assert!(!evoke.path("other").exists());
}

/// The speed of lines from standard input: at least 20,000 a second on an idle machine, of which a quarter is required
/// here. The long form prints the figure for 200,000 lines.
#[test]
fn lines_are_sent_at_speed() {
    let evoke = Evoke::up_with(MANIFEST);
    let count = if is_long_form() { 200_000 } else { 20_000 };
    std::fs::write(evoke.path("lines"), lines(0..count)).unwrap();
    for spool in [&[][..], &["--spool", "spool"]] {
        let stdin = std::fs::File::open(evoke.path("lines")).unwrap();
        let started = Instant::now();
        let output = evoke.command(&[&["emit", "--type", "line", "-"], spool].concat()).stdin(stdin).output().unwrap();
        let speed = count as f64 / started.elapsed().as_secs_f64();
        assert!(output.status.success(), "{output:?}");
        println!("{count} lines, {speed:.0} a second, {spool:?}");
        assert!(speed > 5_000.0, "{speed:.0} lines a second, {spool:?}");
    }
}
