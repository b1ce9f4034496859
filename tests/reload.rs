//! `up --watch`: a valid new manifest is loaded; an invalid one never replaces the active one.

use crate::assert_eventually;
use crate::orders::ORDERS;
use crate::support::Evoke;

const ORDER: &str = r#"{"customer":"ada","total":42,"items":["book"]}"#;

#[test]
fn a_changed_manifest_is_loaded_and_an_invalid_one_is_rejected() {
    let mut evoke = Evoke::with(ORDERS);
    evoke.up_with_arguments(&["--watch"]);
    assert_eq!(evoke.post("/checkout", ORDER).status, 202);

    evoke.write_manifest(&ORDERS.replace("path: /checkout", "path: checkout"));
    assert_eventually!(evoke.log().contains("the previous manifests stay active"), "{}", evoke.log());
    assert!(evoke.log().contains("evoke.yaml:6:"), "the log has the position: {}", evoke.log());
    assert_eq!(evoke.post("/checkout", ORDER).status, 202, "{}", evoke.log());

    evoke.write_manifest(&ORDERS.replace("path: /checkout", "path: /orders"));
    assert_eventually!(evoke.post("/orders", ORDER).status == 202, "{}", evoke.log());
    assert_eq!(evoke.post("/checkout", ORDER).status, 404);
    evoke.settle();
    assert_eq!(evoke.events("receipt.issued").len(), 3);
}

/// The function is built by a script, which gets the path of a component.
const BUILT: &str = "
evoke: 1
app: lab
functions:
  witness:
    component: ./built.wasm
    build: \"sh build.sh $FUNCTIONS/witness.wasm\"
    on: [{ http: { path: /one, type: a.b } }]
";

/// Corrects the manifest while the second build runs.
const BUILD: &str = "
number=$(cat number 2>/dev/null || echo 0)
echo $((number + 1)) > number
[ $number = 1 ] && sed -i s,/one,/two, evoke.yaml
cp \"$1\" built.wasm
";

#[test]
fn a_manifest_that_changes_during_a_reload_is_loaded_after_it_and_a_built_component_is_no_change() {
    let mut evoke = Evoke::with(BUILT);
    std::fs::write(evoke.path("build.sh"), BUILD).unwrap();
    evoke.up_with_arguments(&["--watch"]);
    assert_eq!(evoke.post("/one", "1").status, 202);
    let builds = || std::fs::read_to_string(evoke.path("number")).unwrap().trim().to_owned();
    evoke.write_manifest(&format!("{BUILT}# changed\n"));
    assert_eventually!(evoke.post("/two", "1").status == 202, "{}", evoke.log());
    // The build of the third reload has ended, and caused no fourth one: the next change is the next reload.
    assert_eq!(builds(), "3");
    evoke.write_manifest(&BUILT.replace("/one", "/three"));
    assert_eventually!(evoke.post("/three", "1").status == 202, "{}", evoke.log());
    assert_eq!(builds(), "4", "{}", evoke.log());
}

#[test]
fn a_reload_with_one_broken_component_changes_nothing_and_registers_no_function() {
    let mut evoke = Evoke::with(ORDERS);
    std::fs::write(evoke.path("broken.wasm"), "not a component").unwrap();
    evoke.up_with_arguments(&["--watch"]);
    evoke.post_accepted("/checkout", ORDER);
    evoke.settle();
    let active = |evoke: &Evoke| {
        let status = evoke.json(&["status"]);
        let names = |list: &str, name: &str| {
            let all = status[list].as_array().unwrap().iter();
            all.map(|one| one[name].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        (names("functions", "name"), names("sources", "uri"))
    };
    let before = active(&evoke);

    let functions = "
  first:
    component: $FUNCTIONS/notify.wasm
    on: [{ events: { type: [order.placed] } }]
  broken:
    component: broken.wasm
    on: [{ events: { type: [order.placed] } }]
  last:
    component: $FUNCTIONS/notify.wasm
    on: [{ timer: { every: 1s } }]
";
    evoke.write_manifest(&(ORDERS.replace("path: /checkout", "path: /orders") + functions));
    assert_eventually!(evoke.log().contains("the previous manifests stay active"), "{}", evoke.log());
    assert!(evoke.log().contains("broken.wasm"), "the log names the component: {}", evoke.log());
    assert_eq!(active(&evoke), before);
    assert_eq!(evoke.post("/orders", ORDER).status, 404);
    evoke.post_accepted("/checkout", ORDER);
    evoke.settle();
    assert_eq!(evoke.events("receipt.issued").len(), 2);
    evoke.stop();

    let store = rusqlite::Connection::open(evoke.path(".evoke/evoke.db")).unwrap();
    let mut names = store.prepare("SELECT name FROM functions ORDER BY name").unwrap();
    let names: Vec<String> = names.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    assert_eq!(names, ["shop/charge", "shop/notify", "shop/receipt"]);
}

#[test]
fn deliveries_of_a_removed_function_stay_pending() {
    let mut evoke = Evoke::up_with(ORDERS);
    // Evoke restarts without the function: its deliveries stay pending.
    let slow = r#"{"customer":"ada","total":42,"items":["book"],"gateway_failures":1}"#;
    let patient = ORDERS.replace("backoff: 10ms", "backoff: 1h, max_backoff: 1h");
    evoke.stop();
    evoke.write_manifest(&patient);
    evoke.up();
    evoke.post_accepted("/checkout", slow);
    assert_eventually!(evoke.delivery_count("retrying") == 1, "{}", evoke.stdout(&["check"]));
    evoke.stop();
    evoke.write_manifest(
        "evoke: 1\napp: shop\nsources:\n  checkout:\n    http: { path: /checkout, type: order.placed }\n",
    );
    evoke.up();
    assert!(evoke.stdout(&["status"]).contains("in no manifest"));
    assert_eq!(evoke.delivery_count("retrying"), 1);
    evoke.stop();
    evoke.stdout(&["check"]);
}

#[test]
fn a_reload_prints_what_changed_the_routes_and_what_waits_in_the_old_order() {
    let mut evoke = Evoke::with(ORDERS);
    evoke.up_with_arguments(&["--watch"]);
    assert!(evoke.log().contains("route POST /checkout to /shop/checkout"), "{}", evoke.log());
    evoke.stdout(&["pause", "charge"]);
    evoke.post_accepted("/checkout", ORDER);
    evoke.post_accepted("/checkout", ORDER);

    let changed = ORDERS
        .replace("path: /checkout", "path: /orders")
        .replace("    retry: { backoff: 10ms }", "    order_by: data.customer\n    retry: { backoff: 10ms }");
    let (kept, notify) = changed.split_once("  notify:").unwrap();
    evoke.write_manifest(&format!("{kept}  inform:{notify}"));
    assert_eventually!(evoke.log().contains("reloaded"), "{}", evoke.log());
    for line in [
        "added shop/inform",
        "removed shop/notify",
        "changed /shop/checkout, shop/charge",
        "2 deliveries of shop/charge wait in the order of the old `order_by`",
        "route POST /orders to /shop/checkout",
    ] {
        assert!(evoke.log().contains(line), "{line}: {}", evoke.log());
    }
    // A change of the order alone changes no route.
    evoke.write_manifest(&format!("{kept}  inform:{notify}").replace("data.customer", "data.total"));
    assert_eventually!(evoke.log().matches("2 deliveries of shop/charge wait").count() == 2, "{}", evoke.log());
    assert_eq!(evoke.log().matches("route POST").count(), 2, "{}", evoke.log());
}
