//! Each view shows the stored rows, live, and can be used by the keyboard alone.

use serde_json::json;
use thirtyfour::Key;

use crate::support::{Browser, Evoke, SHOP, eventually, post_json};

#[tokio::test(flavor = "multi_thread")]
async fn a_first_visit_shows_how_to_send_an_event_and_then_the_event_appears() {
    let evoke = Evoke::up(SHOP).await;
    let browser = Browser::start().await;
    browser.open(&evoke, "operator", "events").await;
    browser.read(".empty", "evoke emit --type hello").await;
    evoke.stdout(&["emit", "--type", "hello", "--data", r#"{"from":"me"}"#]);
    let row = browser.read("tbody tr", "hello").await;
    assert!(row.contains(r#"{"from":"me"}"#) && row.contains("no function"), "{row}");
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn new_events_wait_while_the_list_is_read_and_filters_find_old_ones() {
    let evoke = Evoke::up(SHOP).await;
    for n in 0..60 {
        evoke.order(&json!({ "customer": format!("Kim-{n}-Q"), "total": 1, "items": ["pen"] }));
    }
    let browser = Browser::start().await;
    browser.open(&evoke, "operator", "events").await;
    browser.read("tbody tr:nth-child(50)", "done").await;
    browser.run("document.querySelector('.view').scrollTop = 400").await;
    eventually("a new event waits", async || {
        evoke.stdout(&["emit", "--type", "late"]);
        let held = browser.run("return document.querySelector('.newer')?.textContent ?? ''").await;
        held.as_str()?.contains("new").then_some(())
    })
    .await;
    browser.click(".newer").await;
    browser.read("tbody tr:nth-child(1)", "late").await;
    // Text in data, a type with a star, a function, and a state.
    browser.fill("[data-search]", "kim-17-q").await;
    browser.read("tbody tr:nth-child(1)", "Kim-17-Q").await;
    browser.go("events?type=payment.*&fn=shop/receipt").await;
    let rows = browser.read("tbody", "payment.taken").await;
    assert!(!rows.contains("order.placed") && !rows.contains("late"), "{rows}");
    evoke.order(&json!({ "customer": "bob", "total": 0, "items": ["book"] }));
    browser.go("events?state=failed").await;
    browser.read("tbody tr:nth-child(1)", "1 dead").await;
    assert_eq!(browser.run("return document.querySelectorAll('tbody tr').length").await, json!(1));
    browser.close().await;
}

/// Holds each request for a stream of events until `window.release()`. `window.isHeld` is then true.
const HOLD_STREAMS: &str = "
    const fetched = window.fetch;
    const released = new Promise((resolve) => { window.release = resolve; });
    window.fetch = async (url, options) => {
      if (String(url).includes('events=true')) {
        window.isHeld = true;
        await released;
      }
      return fetched(url, options);
    };";

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_arrives_between_the_list_and_its_stream_is_shown() {
    let evoke = Evoke::up(SHOP).await;
    let browser = Browser::start().await;
    browser.before_each_page(HOLD_STREAMS).await;
    browser.open(&evoke, "operator", "events?type=late").await;
    browser.read(".empty", "").await;
    eventually("the stream is requested", async || browser.run("return window.isHeld").await.as_bool()).await;
    evoke.stdout(&["emit", "--type", "late"]);
    browser.run("window.release()").await;
    browser.read("tbody tr", "late").await;
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_shows_who_received_it_and_why_others_did_not_and_is_sent_again() {
    let evoke = Evoke::up(SHOP).await;
    evoke.order(&json!({ "customer": "ada", "total": 42, "items": ["book"] }));
    let browser = Browser::start().await;
    browser.open(&evoke, "operator", "events?event=1").await;
    let panel = browser.read("[data-drawer]", "NOT RECEIVED BY").await;
    for words in ["shop/charge", "done", "/shop/checkout", "customer: \"ada\"", "fails at", "payment.taken"] {
        assert!(panel.contains(words), "{words}: {panel}");
    }
    browser.press("[data-drawer]", "Emit again").await;
    eventually("the event is stored again", async || {
        (evoke.stdout(&["events", "--type", "order.placed", "--json"]).lines().count() == 2).then_some(())
    })
    .await;
    browser.press("[data-drawer]", "Pattern from this").await;
    browser.read("main", "match").await;
    let pattern = browser.run("return document.querySelector('textarea').value").await;
    assert!(pattern.as_str().unwrap().contains("\"customer\""), "{pattern}");
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pattern_is_checked_while_it_is_typed_and_finds_matches_and_near_misses() {
    let evoke = Evoke::up(SHOP).await;
    for total in [1, 2, 300] {
        evoke.order(&json!({ "customer": "ada", "total": total, "items": ["book"] }));
    }
    let browser = Browser::start().await;
    browser.open(&evoke, "operator", "patterns").await;
    browser.fill("textarea", "type: [order.placed]\ndata: { total: [{ numerc: ['>', 100] }] }").await;
    browser.read("#mistakes", "2:").await;
    browser.read("#mistakes", "numerc").await;
    browser.fill("textarea", "type: [order.placed]\ndata: { total: [{ numeric: ['>', 100] }] }").await;
    browser.read("#mistakes", "The pattern is valid").await;
    browser.read("main", "1 match in").await;
    browser.read("main", "NEAR MISSES").await;
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_flow_graph_draws_the_manifest_and_explains_an_edge() {
    let evoke = Evoke::up(SHOP).await;
    evoke.order(&json!({ "customer": "ada", "total": 42, "items": ["book"] }));
    let browser = Browser::start().await;
    browser.open(&evoke, "operator", "flow").await;
    browser.read(".graph", "/shop/checkout").await;
    let edge = "[aria-label^='from /shop/checkout to shop/charge, order.placed']";
    browser.see(edge).await;
    eventually("the edge counts the event", async || {
        let label = browser.run(&format!("return document.querySelector({edge:?}).ariaLabel")).await;
        label.as_str()?.contains("/s").then_some(())
    })
    .await;
    browser
        .run(&format!("document.querySelector({edge:?}).dispatchEvent(new MouseEvent('click', {{ bubbles: true }}))"))
        .await;
    let panel = browser.read("[data-drawer]", "evoke.yaml:").await;
    assert!(panel.contains("type: [order.placed]") && panel.contains("event 1"), "{panel}");
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_keyboard_reaches_the_views_the_rows_and_the_panel() {
    let evoke = Evoke::up(SHOP).await;
    evoke.order(&json!({ "customer": "bob", "total": 0, "items": ["book"] }));
    let browser = Browser::start().await;
    browser.open(&evoke, "operator", "events").await;
    browser.read("tbody", "order.placed").await;
    browser.keys("gd").await;
    browser.read("h1", "Dead letters").await;
    browser.read("tbody tr[data-row]", "must be more than 0").await;
    browser.keys("j").await;
    browser.keys(&Key::Enter.value().to_string()).await;
    browser.read("tbody", "bob").await;
    browser.keys("j").await;
    browser.keys("x").await;
    browser.read("main", "1 dead letter selected").await;
    browser.run("document.activeElement.blur()").await;
    browser.keys("j").await;
    browser.keys(&Key::Enter.value().to_string()).await;
    browser.read("[data-drawer]", "customer: \"bob\"").await;
    browser.keys(&Key::Escape.value().to_string()).await;
    eventually("the panel is closed", async || {
        (browser.run("return !document.querySelector('[data-drawer]')").await == json!(true)).then_some(())
    })
    .await;
    browser.keys("?").await;
    browser.read("dialog", "next or previous row").await;
    browser.keys(&Key::Escape.value().to_string()).await;
    browser.keys("ge").await;
    browser.read("h1", "Events").await;
    browser.keys("/").await;
    let focused = browser.run("return document.activeElement.getAttribute('aria-label')").await;
    assert_eq!(focused, json!("Text"));
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sources_show_their_next_times_what_they_watch_and_what_they_refused() {
    let evoke = Evoke::up(
        r#"
evoke: 1
app: shop
sources:
  small: { http: { path: /small, type: small, max_body: 1KiB } }
  nightly: { timer: { cron: "0 2 * * *", timezone: Europe/Berlin } }
  disk: { monitor: { every: 1s, disk: { path: / }, critical: 100% } }
functions: {}
"#,
    )
    .await;
    let (status, _) = post_json(&evoke.http, "/small", &json!("x".repeat(2_000)));
    assert_eq!(status, 413);
    let browser = Browser::start().await;
    browser.open(&evoke, "operator", "sources").await;
    browser.read("thead", "Refused").await;
    browser.go("sources?source=/shop/small").await;
    let refused = browser.read("[data-drawer]", "REFUSED").await;
    assert!(refused.contains("1 request since the start") && refused.contains("413: the body is larger"), "{refused}");
    browser.go("sources?source=/shop/nightly").await;
    let times = browser.read("[data-drawer]", "NEXT TIMES").await;
    assert!(times.matches(":00:00.000Z)").count() == 3, "{times}");
    browser.go("sources?source=/shop/disk").await;
    browser.read("[data-drawer]", "critical 100%").await;
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recorded_attempt_is_shown_as_a_test_and_another_says_how_to_record() {
    let evoke = Evoke::up(&SHOP.replacen("    order_by", "    record: true\n    order_by", 1)).await;
    evoke.order(&json!({ "customer": "ada", "total": 42, "items": ["book"] }));
    let browser = Browser::start().await;
    browser.open(&evoke, "operator", "events?event=1").await;
    browser.read("[data-drawer]", "done").await;
    browser.click("[data-act=save-test]").await;
    let file = browser.read("dialog [data-test-file]", "delivery 1, attempt 1:").await;
    assert!(file.contains("function: charge") && file.contains("payment.taken"), "{file}");
    let link = browser.run("return document.querySelector('dialog a[download]').download").await;
    assert_eq!(link, json!("delivery-1.test.yaml"));
    browser.click("dialog .buttons button").await;
    browser.go("events?event=2").await;
    browser.read("[data-drawer]", "shop/receipt").await;
    browser.click("[data-act=save-test]").await;
    browser.read(".toasts", "record: true").await;
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_counts_what_a_replay_would_deliver_and_then_it_runs() {
    let evoke = Evoke::up(SHOP).await;
    for customer in ["ada", "bob"] {
        evoke.order(&json!({ "customer": customer, "total": 42, "items": ["book"] }));
    }
    let browser = Browser::start().await;
    browser.open(&evoke, "operator", "replays").await;
    browser.fill("[aria-label=Source]", "/shop/checkout").await;
    browser.press("main", "Dry run").await;
    let plan = browser.read(".notice.ok", "2 events, 2 deliveries").await;
    assert!(plan.contains("shop/charge") && !plan.contains("counting"), "{plan}");
    browser.press("main", "Start it").await;
    browser.read("tbody tr", "done").await;
    eventually("each order is paid once more", async || {
        (evoke.stdout(&["events", "--type", "payment.taken", "--json"]).lines().count() == 4).then_some(())
    })
    .await;
    browser.close().await;
}
