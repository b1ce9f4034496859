//! Retention: events whose deliveries are all done are removed when they are old enough or the store is too large, no
//! other event is removed, and the totals stay correct.

use serde_json::json;

use crate::assert_eventually;
use crate::orders::ORDERS;
use crate::support::Evoke;

/// The number of events that retention removed.
fn removed(evoke: &Evoke) -> u64 {
    evoke.json(&["check"])["removed"]["events"].as_u64().unwrap()
}

#[test]
fn done_events_are_removed_after_their_time_dead_letters_stay_and_totals_remain_correct() {
    let mut evoke = Evoke::with(ORDERS);
    evoke.up_with_arguments(&["--retain", "1s"]);
    let unpaid = evoke.post_accepted("/checkout", r#"{"customer":"bob","total":0,"items":["book"]}"#);
    for n in 1..=50 {
        evoke.post_accepted("/checkout", &format!(r#"{{"customer":"c{n}","total":1,"items":["x"]}}"#));
    }
    evoke.settle();
    // Removed: 50 orders, 50 payments, 50 receipts, and the event that reports the dead letter. The unpaid order stays,
    // because its delivery is a dead letter.
    assert_eventually!(removed(&evoke) == 151, "{} removed", removed(&evoke));
    let check = evoke.json(&["check"]);
    assert_eq!(
        (&check["events"], &check["owed"], &check["problems"]),
        (&json!(152), &json!(151), &json!([])),
        "{check:#}"
    );
    let charge = &check["functions"]["shop/charge"];
    assert_eq!(
        (&charge["done"], &charge["dead"], &charge["removed"]),
        (&json!(50), &json!(1), &json!(50)),
        "{check:#}"
    );
    assert!(evoke.stdout(&["check"]).contains("retention removed 151 events"));

    // `status` has the same numbers as `check`, also after a restart.
    assert_eq!(evoke.done_count("shop/charge"), 50);
    assert!(evoke.stop().success());
    evoke.up_with_arguments(&["--retain", "1s"]);
    assert_eq!(evoke.done_count("shop/charge"), 50);
    assert_eq!(evoke.json_lines(&["events", "--after", "0"]).len(), 1);

    let trace = evoke.json(&["trace", &unpaid]);
    assert!(trace["missing"].as_str().unwrap().contains("retention removed events up to"), "{trace:#}");
    let gone = evoke.run(&["trace", "5"]);
    assert_eq!(gone.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&gone.stderr).contains("retention removed it"), "{gone:?}");

    // Sequence numbers are never reused.
    let next = evoke.post_accepted("/checkout", r#"{"customer":"eve","total":1,"items":["x"]}"#);
    assert_eq!(evoke.json(&["trace", &next])["seq"], 153);
    evoke.stdout(&["dead", "purge", "--all"]);
    assert_eventually!(removed(&evoke) == 155, "{} removed", removed(&evoke));
    evoke.stdout(&["check"]);
}

#[test]
fn a_store_above_its_size_limit_removes_the_oldest_events_and_shrinks() {
    let mut evoke = Evoke::with(ORDERS);
    evoke.up_with_arguments(&["--retain", "30s", "--retain-size", "8MiB"]);
    let item = "x".repeat(100_000);
    for n in 0..400 {
        evoke.post_accepted("/checkout", &format!(r#"{{"customer":"c{n}","total":1,"items":["{item}"]}}"#));
    }
    evoke.settle();
    // 8 MiB hold fewer than 42 orders with their payments. A sweep skips events that are pending when it begins; the
    // next sweep removes them.
    assert_eventually!(removed(&evoke) > 3 * 350, "{} removed", removed(&evoke));
    assert_eq!(evoke.delivery_count("done"), 1_200);
    assert!(evoke.stop().success());
    let bytes = std::fs::metadata(evoke.path(".evoke/evoke.db")).unwrap().len();
    assert!(bytes < 16 * 1024 * 1024, "{bytes} bytes");
    evoke.stdout(&["check"]);
}
