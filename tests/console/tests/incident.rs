//! An operator finds out what happened, and mends it.

use serde_json::json;

use crate::support::{Browser, Evoke, SHOP, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_fails_is_found_edited_and_redriven_and_its_trace_shows_it_done() {
    let evoke = Evoke::up(SHOP).await;
    evoke.order(&json!({ "customer": "ada", "total": 42, "items": ["book"] }));
    evoke.order(&json!({ "customer": "bob", "total": 0, "items": ["book"] }));
    let browser = Browser::start().await;
    browser.open(&evoke, "operator", "events").await;
    // The strip says that something is wrong, and leads to its cause in one click.
    browser.read(".vital.bad", "dead letters").await;
    browser.click(".vital.bad").await;
    let group = browser.read("tbody tr[data-row]", "must be more than 0").await;
    assert!(group.contains("shop/charge") && group.contains("order.placed"), "{group}");
    browser.press("tbody tr[data-row]", "reject: the order's total is 0; it must be more than 0").await;
    browser.click("tbody tr[data-row] td a").await;
    browser.read("[data-drawer]", "customer: \"bob\"").await;

    browser.click("[data-act=edit]").await;
    let text = browser.run("return document.querySelector('[data-edit]').value").await;
    let text = text.as_str().unwrap();
    assert!(text.contains("\"total\": 0"), "{text}");
    browser.fill("[data-edit]", &text.replace("\"total\": 0", "\"total\": 7.10")).await;
    browser.click("[data-confirm]").await;
    browser.read("[data-drawer] dl", "purged").await;
    browser.read("nav.side", "Actions (1)").await;

    // The corrected order went the whole way; its number kept its digits.
    browser.go("events?text=7.10").await;
    browser.click("td a.mono").await;
    browser.press("[data-drawer]", "Trace").await;
    let trace = browser.read(".trace", "shop/notify").await;
    browser.read("main", "all done").await;
    for step in ["order.placed", "shop/charge", "payment.taken", "shop/receipt", "receipt.issued"] {
        assert!(trace.contains(step), "{trace}");
    }
    let events = evoke.stdout(&["events", "--type", "order.placed", "--json"]);
    assert!(events.lines().last().unwrap().contains("\"total\":7.10"), "{events}");
    assert!(evoke.dead().is_empty());
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_of_one_cause_are_redriven_together_and_purged_after_a_question() {
    let evoke = Evoke::up(SHOP).await;
    for n in 0..12 {
        evoke.order(&json!({ "customer": n.to_string(), "total": 0, "items": ["book"] }));
    }
    let browser = Browser::start().await;
    browser.open(&evoke, "operator", "dead").await;
    browser.press("tbody", "Redrive all 12").await;
    browser.read("dialog", "Redrive 12 dead letters of shop/charge").await;
    browser.click("dialog [data-confirm]").await;
    browser.read("dialog", "12 of 12 redriven; finished").await;
    browser.press("dialog", "Close").await;
    // They fail again: the same orders are still wrong.
    eventually("they are dead again", async || (evoke.dead().len() == 12).then_some(())).await;
    browser.read("tbody", "Redrive all 12").await;
    browser.press("tbody", "Purge").await;
    browser.read("dialog", "Purge 12 dead letters of shop/charge").await;
    browser.press("dialog", "Cancel").await;
    assert_eq!(evoke.dead().len(), 12);
    browser.press("tbody", "Purge").await;
    browser.click("dialog [data-confirm]").await;
    browser.read("main", "No dead letters").await;
    assert!(evoke.dead().is_empty());
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_is_paused_and_resumed_and_what_waits_is_cancelled() {
    let evoke = Evoke::up(SHOP).await;
    let browser = Browser::start().await;
    browser.open(&evoke, "operator", "functions?function=shop/charge").await;
    browser.press("[data-drawer]", "Pause").await;
    browser.read("[data-drawer] .notice", "Paused since").await;
    for customer in ["ada", "bob"] {
        evoke.order(&json!({ "customer": customer, "total": 1, "items": ["pen"] }));
    }
    browser.read("[data-drawer] .notice", "2 deliveries wait").await;
    browser.go("pending?fn=shop/charge").await;
    browser.read("tbody tr:nth-child(2)", "its function is paused").await;
    browser.click("tbody tr:nth-child(1) input[type=checkbox]").await;
    browser.press("main header", "Cancel selected (1)").await;
    browser.click("dialog [data-confirm]").await;
    browser.read(".vital.bad", "1").await;
    browser.go("functions?function=shop/charge").await;
    browser.press("[data-drawer]", "Resume").await;
    browser.go("events?type=receipt.issued").await;
    browser.read("tbody tr", "done").await;
    let dead = evoke.dead();
    assert_eq!(dead[0]["delivery"]["cause"], "cancelled: an operator cancelled the delivery", "{dead:?}");
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_that_waits_for_its_next_attempt_is_retried_now() {
    let evoke = Evoke::up(
        r#"
evoke: 1
app: shop
functions:
  later:
    component: $FUNCTIONS/fate-retry.wasm
    on: [{ events: { type: [order.placed] } }]
    order_by: data.customer
    retry: { attempts: 2, backoff: 1h, max_backoff: 1h }
"#,
    )
    .await;
    for _ in 0..2 {
        evoke.stdout(&["emit", "--type", "order.placed", "--data", r#"{"customer":"ada"}"#]);
    }
    let browser = Browser::start().await;
    browser.open(&evoke, "operator", "pending").await;
    browser.read("tbody tr:nth-child(1)", "retrying").await;
    browser.read("tbody tr:nth-child(2)", "waits for delivery 1 of the key").await;
    browser.press("tbody", "Retry now").await;
    browser.read(".toasts", "1 delivery retried now").await;
    // Its last attempt fails, too. The second one still waits, now for a dead letter.
    browser.read("tbody tr:nth-child(1)", "waits for the dead letter 1 of the key").await;
    assert_eq!(evoke.dead()[0]["delivery"]["attempts"].as_array().unwrap().len(), 2);
    browser.close().await;
}
