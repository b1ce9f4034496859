//! What is over is removed after its time, nothing else is, and the numbers still add up.

use serde_json::json;

use crate::assert_eventually;
use crate::orders::ORDERS;
use crate::support::Evoke;

fn removed(evoke: &Evoke) -> u64 {
    evoke.json(&["check"])["removed"]["events"].as_u64().unwrap()
}

#[test]
fn what_is_done_goes_after_its_time_and_dead_letters_stay_with_all_numbers_right() {
    let mut evoke = Evoke::with(ORDERS);
    evoke.up_and(&["--retain", "1s"]);
    let unpaid = evoke.accepted("/checkout", r#"{"customer":"bob","total":0,"items":["book"]}"#);
    for n in 1..=50 {
        evoke.accepted("/checkout", &format!(r#"{{"customer":"c{n}","total":1,"items":["x"]}}"#));
    }
    evoke.settle();
    // An order, a payment and a receipt, fifty times, and the word that an order cannot be paid; that waits for a person.
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

    // The numbers of status are those of check, and go on after a restart.
    assert_eq!(evoke.done("shop/charge"), 50);
    assert!(evoke.stop().success());
    evoke.up_and(&["--retain", "1s"]);
    assert_eq!(evoke.done("shop/charge"), 50);
    assert_eq!(evoke.json_lines(&["events", "--after", "0"]).len(), 1);

    let trace = evoke.json(&["trace", &unpaid]);
    assert!(trace["missing"].as_str().unwrap().contains("retention removed events up to"), "{trace:#}");
    let gone = evoke.run(&["trace", "5"]);
    assert_eq!(gone.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&gone.stderr).contains("retention removed it"), "{gone:?}");

    // Numbers of events and deliveries are never given out again.
    let next = evoke.accepted("/checkout", r#"{"customer":"eve","total":1,"items":["x"]}"#);
    assert_eq!(evoke.json(&["trace", &next])["seq"], 153);
    evoke.stdout(&["dead", "purge", "--all"]);
    assert_eventually!(removed(&evoke) == 155, "{} removed", removed(&evoke));
    evoke.stdout(&["check"]);
}

#[test]
fn a_store_that_grows_beyond_its_size_gives_up_the_oldest_and_the_space() {
    let mut evoke = Evoke::with(ORDERS);
    evoke.up_and(&["--retain", "30s", "--retain-size", "8MiB"]);
    let item = "x".repeat(100_000);
    for n in 0..400 {
        evoke.accepted("/checkout", &format!(r#"{{"customer":"c{n}","total":1,"items":["{item}"]}}"#));
    }
    evoke.settle();
    // 8 MiB are kept, less than 42 orders with their payments. A sweep that began earlier leaves what was pending then to
    // the next one.
    assert_eventually!(removed(&evoke) > 3 * 350, "{} removed", removed(&evoke));
    assert_eq!(evoke.deliveries("done"), 1_200);
    assert!(evoke.stop().success());
    let bytes = std::fs::metadata(evoke.path(".evoke/evoke.db")).unwrap().len();
    assert!(bytes < 16 * 1024 * 1024, "{bytes} bytes");
    evoke.stdout(&["check"]);
}
