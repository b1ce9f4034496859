//! Each function has a share of the log, an equal part of its total size: a flood of one function replaces no lines of
//! another, on disk, in the queue and at followers.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use serde_json::json;

use crate::support::Evoke;

const MANIFEST: &str = "
evoke: 1
app: lab
sources:
  floods: { http: { path: /flood, type: lab.flood } }
  quiets: { http: { path: /quiet, type: lab.quiet } }
functions:
  flood:
    component: $FUNCTIONS/log-flood.wasm
    on: [{ source: floods }]
  quiet:
    component: $FUNCTIONS/command.wasm
    on: [{ source: quiets }]
";

const TOTAL_BYTES_MAX: u64 = 48 * 1024 * 1024;

/// The number of lines of the quiet function: it logs `priced` once for each event.
fn quiet_lines(evoke: &Evoke) -> usize {
    let lines = evoke.json_lines(&["logs", "--function", "lab/quiet", "--limit", "10000"]);
    assert!(lines.iter().all(|line| line["text"] == "priced" && line["function"] == "lab/quiet"), "{lines:?}");
    lines.len()
}

fn log_bytes(evoke: &Evoke) -> u64 {
    std::fs::read_dir(evoke.path(".evoke/logs")).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

#[test]
fn a_thousand_attempts_that_log_up_to_their_limit_leave_the_lines_of_another_function() {
    let mut evoke = Evoke::up_with(MANIFEST);
    let follow = &["logs", "--function", "lab/quiet", "--limit", "0", "--follow", "--json"];
    let mut follower = evoke.command(follow).stdout(Stdio::piped()).spawn().unwrap();
    let mut followed = BufReader::new(follower.stdout.take().unwrap()).lines();
    let flood = json!({ "lines": 400, "bytes": 150 }).to_string();
    for n in 0..1_000 {
        if n % 50 == 0 {
            evoke.post_accepted("/quiet", "{}");
        }
        evoke.post_accepted("/flood", &flood);
    }
    evoke.settle();
    assert_eq!(quiet_lines(&evoke), 20);
    assert!(log_bytes(&evoke) > TOTAL_BYTES_MAX / 2, "the flood was small: {} bytes", log_bytes(&evoke));
    assert!(log_bytes(&evoke) <= TOTAL_BYTES_MAX, "{} bytes", log_bytes(&evoke));
    // The follower started before or after the first lines, and misses none after that.
    evoke.post_accepted("/quiet", "{}");
    evoke.settle();
    let last = evoke.json_lines(&["logs", "--function", "lab/quiet", "--limit", "1"]);
    let mut count = 0;
    let last_followed = followed.find_map(|line| {
        let line: serde_json::Value = serde_json::from_str(&line.unwrap()).unwrap();
        assert_eq!(line["text"], "priced", "{line}");
        count += 1;
        (line == last[0]).then_some(line)
    });
    assert!(last_followed.is_some() && count >= 1);
    follower.kill().unwrap();
    follower.wait().unwrap();
    let flooded = evoke.json_lines(&["logs", "--function", "lab/flood", "--limit", "50"]);
    assert_eq!(flooded.len(), 50);
    assert!(evoke.stop().success(), "{}", evoke.log());
    evoke.up();
    assert_eq!(quiet_lines(&evoke), 21);
    evoke.post_accepted("/quiet", "{}");
    evoke.settle();
    assert_eq!(quiet_lines(&evoke), 22);
    assert_eq!(evoke.json_lines(&["logs", "--limit", "1"])[0]["function"], "lab/quiet");
}

#[test]
fn lines_of_an_earlier_version_are_shown_before_new_ones() {
    let mut evoke = Evoke::with(MANIFEST);
    std::fs::create_dir_all(evoke.path(".evoke/logs")).unwrap();
    let line = |text: &str| {
        let at = "2025-01-01T00:00:00.000Z";
        json!({ "at": at, "level": "info", "function": "lab/quiet", "delivery": 7, "attempt": 1, "text": text })
            .to_string()
    };
    for (name, text) in [("evoke.jsonl.2", "first"), ("evoke.jsonl.1", "second"), ("evoke.jsonl", "third")] {
        std::fs::write(evoke.path(".evoke/logs").join(name), line(text) + "\n").unwrap();
    }
    evoke.up();
    evoke.post_accepted("/quiet", "{}");
    evoke.settle();
    for arguments in [&["logs"][..], &["logs", "--function", "lab/quiet"]] {
        let lines = evoke.json_lines(arguments);
        let texts: Vec<_> = lines.iter().map(|line| line["text"].as_str().unwrap()).collect();
        assert_eq!(texts, ["first", "second", "third", "priced"]);
    }
    assert_eq!(evoke.json_lines(&["logs", "--delivery", "7"]).len(), 3);
}
