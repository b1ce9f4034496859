//! The order example: three functions in a chain behind an HTTP source, with a retry and a rejection.

use serde_json::{Value, json};

use crate::support::Evoke;

pub(crate) const ORDERS: &str = r#"
evoke: 1
app: shop
sources:
  checkout:
    http: { path: /checkout, type: order.placed }
functions:
  charge:
    component: $FUNCTIONS/charge.wasm
    on:
      - events: { type: [order.placed] }
    retry: { backoff: 10ms }
    allow: { publish: ["payment.*"], config: { CURRENCY: EUR } }
  receipt:
    component: $FUNCTIONS/receipt.wasm
    on:
      - events: { type: [payment.taken] }
    allow: { publish: ["receipt.*"] }
  notify:
    component: $FUNCTIONS/notify.wasm
    on:
      - events: { type: [receipt.issued] }
"#;

const ORDER: &str = r#"{"customer":"ada","total":42,"items":["book"]}"#;

/// The deliveries of a trace without branches, as function, status and number of attempts.
fn delivery_chain(trace: &Value) -> Vec<(String, String, usize)> {
    let mut steps = Vec::new();
    let mut node = trace;
    while let Some([delivery]) = node["deliveries"].as_array().map(Vec::as_slice) {
        let text = |key: &str| delivery[key].as_str().unwrap().to_owned();
        steps.push((text("function"), text("state"), delivery["attempts"].as_array().unwrap().len()));
        node = &delivery["published"][0];
    }
    steps
}

#[test]
fn one_post_appears_as_a_tree_of_three_functions() {
    let evoke = Evoke::up_with(ORDERS);
    let id = evoke.post_accepted("/checkout", ORDER);
    evoke.settle();
    let trace = evoke.json(&["trace", &id]);
    let step = |name: &str| (name.to_owned(), "done".to_owned(), 1);
    assert_eq!(
        delivery_chain(&trace),
        vec![step("shop/charge"), step("shop/receipt"), step("shop/notify")],
        "{trace:#}"
    );
    assert_eq!(trace["event"]["data"], json!({"customer": "ada", "total": 42, "items": ["book"]}));
    assert_eq!(trace["event"]["source"], "/shop/checkout");

    let text = evoke.stdout(&["trace", &id]);
    let places = ["order.placed", "shop/charge", "payment.taken", "shop/receipt", "receipt.issued", "shop/notify"]
        .map(|word| text.find(word).unwrap_or_else(|| panic!("no {word} in {text}")));
    assert!(places.is_sorted(), "{text}");
    assert!(evoke.stdout(&["logs", "--function", "shop/notify"]).contains("ada"));
}

#[test]
fn a_failing_gateway_is_retried_until_it_succeeds() {
    let evoke = Evoke::up_with(ORDERS);
    let id = evoke.post_accepted("/checkout", r#"{"customer":"ada","total":42,"items":["book"],"gateway_failures":2}"#);
    evoke.settle();
    let trace = evoke.json(&["trace", &id]);
    assert_eq!(delivery_chain(&trace)[0], ("shop/charge".to_owned(), "done".to_owned(), 3), "{trace:#}");
    assert_eq!(trace["deliveries"][0]["attempts"][0]["outcome"], "retry");
    assert_eq!(evoke.events("payment.taken").len(), 1);
}

#[test]
fn an_order_that_cannot_be_paid_becomes_a_dead_letter_with_its_cause() {
    let evoke = Evoke::up_with(ORDERS);
    let id = evoke.post_accepted("/checkout", r#"{"customer":"ada","total":0,"items":["book"]}"#);
    evoke.settle();
    let trace = evoke.json(&["trace", &id]);
    assert_eq!(delivery_chain(&trace), vec![("shop/charge".to_owned(), "dead".to_owned(), 1)], "{trace:#}");
    assert!(evoke.stdout(&["dead", "list"]).contains("total is 0"));
    let number = trace["deliveries"][0]["id"].to_string();
    let shown = evoke.stdout(&["dead", "show", &number]);
    assert!(shown.contains("total is 0") && shown.contains("ada"), "{shown}");

    evoke.stdout(&["dead", "redrive", &number]);
    evoke.settle();
    let trace = evoke.json(&["trace", &id]);
    assert_eq!(delivery_chain(&trace), vec![("shop/charge".to_owned(), "dead".to_owned(), 2)], "{trace:#}");
    evoke.stdout(&["dead", "purge", "--all"]);
    assert_eq!((evoke.delivery_count("dead"), evoke.delivery_count("purged")), (0, 1));
}
