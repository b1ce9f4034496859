//! Small things that users met: messages, names and files that were in the way.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::json;

use crate::orders::ORDERS;
use crate::support::Evoke;

const ORDER: &str = r#"{"customer":"ada","total":42,"items":["book"]}"#;

#[test]
fn short_names_of_functions_work_in_every_command() {
    let evoke = Evoke::up_with(ORDERS);
    let id = evoke.post_accepted("/checkout", ORDER);
    evoke.settle();
    assert!(evoke.stdout(&["explain", &id, "--function", "charge"]).contains("shop/charge"));
    assert!(!evoke.stdout(&["logs", "--function", "charge"]).is_empty());
    assert!(evoke.stdout(&["replay", "--function", "charge", "--dry-run"]).contains("shop/charge"));
    evoke.stdout(&["pause", "charge"]);
    assert!(evoke.stdout(&["status"]).contains("shop/charge is paused"));
    evoke.stdout(&["resume", "charge"]);
    for command in [&["logs", "--function", "chagre"][..], &["explain", &id, "--function", "chagre"]] {
        let output = evoke.run(command);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(4), "{command:?}: {message}");
        assert!(message.contains("did you mean `shop/charge`?"), "{command:?}: {message}");
    }
}

#[test]
fn a_failed_attempt_is_among_the_log_lines_of_its_function() {
    let evoke = Evoke::up_with(ORDERS);
    evoke.post_accepted("/checkout", r#"{"customer":"ada","total":42,"items":["book"],"gateway_failures":1}"#);
    evoke.settle();
    let lines = evoke.json_lines(&["logs", "--function", "charge", "--since", "1h"]);
    let failed = lines.iter().find(|line| line["text"].as_str().unwrap().starts_with("the attempt failed: retry"));
    let failed = failed.unwrap_or_else(|| panic!("{lines:#?}"));
    assert_eq!((&failed["level"], &failed["attempt"], &failed["delivery"]), (&json!("error"), &json!(1), &json!(1)));
    assert_eq!(evoke.json_lines(&["logs", "--since", "2100-01-01T00:00:00Z"]).len(), 0);
}

#[test]
fn the_data_folder_is_found_in_the_folders_above() {
    let evoke = Evoke::up_with(ORDERS);
    std::fs::create_dir_all(evoke.path("a/b")).unwrap();
    let run = |folder: &str| evoke.command(&["status"]).current_dir(evoke.path(folder)).output().unwrap();
    let found = run("a/b");
    assert!(found.status.success() && String::from_utf8_lossy(&found.stdout).contains("shop/charge"), "{found:?}");
    // One that has nothing of Evoke is not taken.
    std::fs::create_dir(evoke.path("a/.evoke")).unwrap();
    assert!(run("a/b").status.success());
    // Not those of others, who could lead the command to their own Evoke.
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(evoke.path(".evoke"), Some(12_345), None).unwrap();
        let refused = run("a/b");
        assert_eq!(refused.status.code(), Some(3), "{refused:?}");
        let here = run(".");
        assert!(String::from_utf8_lossy(&here.stderr).contains("belongs to the user with id 12345"), "{here:?}");
        std::os::unix::fs::chown(evoke.path(".evoke"), Some(0), None).unwrap();
    }
    // Not one whose `listen.json` others could replace.
    std::fs::set_permissions(evoke.path(".evoke"), std::fs::Permissions::from_mode(0o777)).unwrap();
    assert_eq!(run("a/b").status.code(), Some(3));
    let here = run(".");
    assert!(String::from_utf8_lossy(&here.stderr).contains("other users may write to .evoke"), "{here:?}");
    let emitted = evoke.run(&["emit", "--type", "t", "--when-changed", "k", "--admin", evoke.admin()]);
    assert!(String::from_utf8_lossy(&emitted.stderr).contains("other users may write to .evoke"), "{emitted:?}");
    assert!(!evoke.path(".evoke/emit").exists());
}

#[test]
fn emit_says_who_takes_the_event_and_errors_name_no_index_for_a_single_event() {
    let evoke = Evoke::up_with(ORDERS);
    let taken = evoke.stdout(&["emit", "--type", "order.placed", "--data", ORDER]);
    assert!(taken.trim_end().ends_with("for shop/charge"), "{taken}");
    let ignored = evoke.stdout(&["emit", "--type", "nobody.wants", "--data", "{}"]);
    assert!(ignored.contains("for no function; `evoke explain"), "{ignored}");
    let output = evoke.run(&["emit", "--event", r#"{"type":""}"#]);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && !message.contains("event 0"), "{message}");
    let output = evoke.run(&["emit", "--event", r#"[{"type":"t"},{"type":""}]"#]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("event 1: "), "{output:?}");
}

#[test]
fn explain_gives_the_verdict_once() {
    let evoke = Evoke::up_with(ORDERS);
    let id = evoke.post_accepted("/checkout", ORDER);
    let text = evoke.stdout(&["explain", &id, "--function", "charge"]);
    assert_eq!(text.matches("matches").count(), 1, "{text}");
    let text = evoke.stdout(&["explain", &id, "--function", "receipt"]);
    assert_eq!(text.matches("does not match\n").count(), 1, "{text}");
}

#[test]
fn the_start_names_the_functions_and_the_responses_end_with_a_line_break() {
    let evoke = Evoke::up_with(ORDERS);
    assert!(evoke.log().contains("loading shop/charge, shop/receipt, shop/notify"), "{}", evoke.log());
    let response = evoke.post("/checkout", ORDER);
    assert!(response.body.ends_with('\n'), "{response:?}");
    let refused = evoke.post("/nowhere", ORDER);
    assert!(refused.status == 404 && refused.body.ends_with('\n'), "{refused:?}");
    for path in ["/api/v1", "/api/v1/status", "/api/v1/trace/1", "/api/v1/events/999", "/readyz"] {
        assert!(evoke.get_admin(path, &[]).body.ends_with('\n'), "{path}");
    }
    let index = evoke.get_admin("/api/v1", &[]).json();
    assert!(index["requests"].as_array().unwrap().contains(&json!("GET /api/v1/events")), "{index}");
}

#[test]
fn no_dead_letters_yet_is_said_with_the_number_of_pending_deliveries() {
    let evoke = Evoke::up_with(ORDERS);
    evoke.stdout(&["pause", "charge"]);
    evoke.post_accepted("/checkout", r#"{"customer":"ada","total":0,"items":["book"]}"#);
    assert_eq!(evoke.stdout(&["dead", "list"]).trim(), "no dead letters; 1 delivery pending");
    evoke.stdout(&["resume", "charge"]);
    evoke.settle();
    assert!(evoke.stdout(&["dead", "list"]).contains("total is 0"));
}

#[test]
fn an_empty_list_of_events_says_so() {
    let evoke = Evoke::up_with(ORDERS);
    let output = evoke.run(&["events"]);
    assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&b""[..], &b"no events\n"[..]));
    assert_eq!(evoke.run(&["events", "--json"]).stderr, b"");
}

#[test]
fn hidden_files_in_a_folder_of_manifests_are_left_out() {
    let evoke = Evoke::with(ORDERS);
    std::fs::create_dir(evoke.path("apps")).unwrap();
    std::fs::copy(evoke.path("evoke.yaml"), evoke.path("apps/shop.yaml")).unwrap();
    std::fs::write(evoke.path("apps/._shop.yaml"), [0, 5, 22, 7, 0, 2]).unwrap();
    std::fs::write(evoke.path("apps/.draft.yaml"), "not a manifest").unwrap();
    assert!(evoke.stdout(&["validate", "apps"]).contains("1 manifest with 3 functions"));
}

#[test]
fn a_secret_that_is_not_set_is_a_warning_of_validate_and_an_error_of_up() {
    let manifest = "
evoke: 1
app: lab
functions:
  reader:
    component: $FUNCTIONS/config-read.wasm
    allow: { publish: ['*'], secrets: { TOKEN: { env: TOKEN_THAT_IS_NOT_SET } } }
    on: [{ events: { type: [x] } }]
";
    let mut evoke = Evoke::with(manifest);
    let output = evoke.run(&["validate"]);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{message}");
    assert!(message.contains("warning") && message.contains("TOKEN_THAT_IS_NOT_SET is not set"), "{message}");
    assert!(evoke.try_up(&[], &[]).is_err());
    assert!(evoke.log().contains("TOKEN_THAT_IS_NOT_SET is not set"), "{}", evoke.log());
}

#[test]
fn a_removed_function_with_pending_deliveries_is_reported_and_they_move_to_its_successor() {
    let mut evoke = Evoke::up_with(ORDERS);
    evoke.stdout(&["pause", "charge"]);
    for _ in 0..3 {
        evoke.post_accepted("/checkout", ORDER);
    }
    let refused = evoke.run(&["pending", "move", "charge", "notify"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("shop/charge is active"), "{refused:?}");
    evoke.write_manifest(&ORDERS.replace("  charge:\n", "  pay:\n"));
    crate::support::signal(evoke.pid(), rustix::process::Signal::HUP);
    let note = "3 deliveries of shop/charge wait, but no active manifest has this function";
    crate::assert_eventually!(evoke.log().contains(note), "{}", evoke.log());
    assert_eq!(evoke.stdout(&["pending", "move", "charge", "pay", "--dry-run"]).trim(), "3 deliveries would be moved");
    assert_eq!(evoke.json(&["pending", "move", "shop/charge", "shop/pay"])["count"], 3);
    evoke.settle();
    assert_eq!(evoke.events("payment.taken").len(), 3);
    evoke.stdout(&["check"]);
    evoke.kill();
    evoke.up();
    evoke.stdout(&["check"]);
}
