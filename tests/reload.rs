//! `up --watch`: a good change is taken up, a bad one never replaces what runs.

use crate::assert_eventually;
use crate::orders::ORDERS;
use crate::support::Evoke;

const ORDER: &str = r#"{"customer":"ada","total":42,"items":["book"]}"#;

#[test]
fn a_changed_manifest_is_taken_up_and_a_bad_one_is_not() {
    let mut evoke = Evoke::with(ORDERS);
    evoke.up_and(&["--watch"]);
    assert_eq!(evoke.post("/checkout", ORDER).status, 202);

    evoke.write_manifest(&ORDERS.replace("path: /checkout", "path: checkout"));
    assert_eventually!(evoke.log().contains("the previous manifests stay active"), "{}", evoke.log());
    assert!(evoke.log().contains("evoke.yaml:6:"), "it says where: {}", evoke.log());
    assert_eq!(evoke.post("/checkout", ORDER).status, 202, "{}", evoke.log());

    evoke.write_manifest(&ORDERS.replace("path: /checkout", "path: /orders"));
    assert_eventually!(evoke.post("/orders", ORDER).status == 202, "{}", evoke.log());
    assert_eq!(evoke.post("/checkout", ORDER).status, 404);
    evoke.settle();
    assert_eq!(evoke.events("receipt.issued").len(), 3);
}

#[test]
fn what_waits_for_a_function_that_is_taken_away_waits_until_it_is_back() {
    let mut evoke = Evoke::up_with(ORDERS);
    // Down, and up again without the function: what it was owed stays.
    let slow = r#"{"customer":"ada","total":42,"items":["book"],"gateway_failures":1}"#;
    let patient = ORDERS.replace("backoff: 10ms", "backoff: 1h, max_backoff: 1h");
    evoke.stop();
    evoke.write_manifest(&patient);
    evoke.up();
    evoke.accepted("/checkout", slow);
    assert_eventually!(evoke.deliveries("retrying") == 1, "{}", evoke.stdout(&["check"]));
    evoke.stop();
    evoke.write_manifest(
        "evoke: 1\napp: shop\nsources:\n  checkout:\n    http: { path: /checkout, type: order.placed }\n",
    );
    evoke.up();
    assert!(evoke.stdout(&["status"]).contains("in no manifest"));
    assert_eq!(evoke.deliveries("retrying"), 1);
    evoke.stop();
    evoke.stdout(&["check"]);
}
