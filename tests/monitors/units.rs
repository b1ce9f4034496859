//! Units of systemd, over a real bus daemon with a stand-in for systemd.

mod mock;

use serde_json::json;

use self::mock::{Bus, Systemd, Units};
use super::{await_states, changes, manifest, shown};
use crate::assert_eventually;
use crate::support::Evoke;

/// Starts a bus with a stand-in for systemd, and Evoke with one monitor of units.
fn up(monitor: &str, units: &Units) -> (Systemd, Bus, Evoke) {
    let mut evoke = Evoke::with(&manifest(monitor));
    let bus = Bus::start(&evoke.path(""));
    let systemd = Systemd::start(&bus, units);
    evoke.set_environment(&[("DBUS_SYSTEM_BUS_ADDRESS", &bus.address())]);
    evoke.up();
    (systemd, bus, evoke)
}

fn detail(evoke: &Evoke) -> String {
    shown(evoke)["detail"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_unit_that_fails_recovers_and_disappears_is_reported_each_time() {
    let units = Units::default();
    units.set("shop.service", "active", "running");
    let (_systemd, _bus, evoke) = up("{ every: 100ms, unit: { name: shop.service } }", &units);
    assert_eventually!(shown(&evoke)["state"] == "ok", "{}\n{}", shown(&evoke), evoke.log());
    units.set("shop.service", "failed", "failed");
    await_states(&evoke, "shop.service", &["critical"]);
    assert_eq!(detail(&evoke), "the unit is failed (failed)");
    units.set("shop.service", "activating", "auto-restart");
    await_states(&evoke, "shop.service", &["critical", "warning"]);
    units.set("shop.service", "active", "running");
    await_states(&evoke, "shop.service", &["critical", "warning", "ok"]);
    units.unload("shop.service");
    await_states(&evoke, "shop.service", &["critical", "warning", "ok", "critical"]);
    let event = evoke.events("evoke.monitor.changed").pop().unwrap();
    assert_eq!(event["data"]["detail"], "there is no such unit");
    assert_eq!(event["data"]["monitor"], "unit");
}

#[test]
fn a_bus_that_goes_away_is_unknown_and_a_bus_that_returns_is_used_again() {
    let units = Units::default();
    units.set("shop.service", "active", "running");
    units.set("shop@a.service", "active", "running");
    let (systemd, bus, evoke) = up("{ every: 100ms, unit: { name: [shop.service, \"shop@*.service\"] } }", &units);
    let states = || {
        let all = evoke.json_lines(&["monitors"]).into_iter();
        all.map(|one| one["state"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eventually!(states() == ["ok", "ok"], "{:?}\n{}", states(), evoke.log());
    // First systemd leaves the bus, then the bus ends.
    drop(systemd);
    await_states(&evoke, "shop.service", &["unknown"]);
    await_states(&evoke, "shop@a.service", &["unknown"]);
    assert!(detail(&evoke).contains("systemd did not return the states of its units"), "{}", detail(&evoke));
    drop(bus);
    assert_eventually!(detail(&evoke).contains("cannot connect to the bus at"), "{}", detail(&evoke));
    let bus = Bus::start(&evoke.path(""));
    let _systemd = Systemd::start(&bus, &units);
    await_states(&evoke, "shop.service", &["unknown", "ok"]);
    await_states(&evoke, "shop@a.service", &["unknown", "ok"]);
    assert_eq!(changes(&evoke, "shop@*.service"), []);
}

#[test]
fn each_unit_that_matches_is_a_subject_and_only_a_failed_one_is_critical() {
    let units = Units::default();
    units.set("shop@a.service", "active", "running");
    units.set("shop@b.service", "inactive", "dead");
    units.set("other.service", "failed", "failed");
    let (_systemd, _bus, evoke) = up("{ every: 100ms, unit: { name: \"shop@*.service\" } }", &units);
    let subjects = || {
        let all = evoke.json_lines(&["monitors"]).into_iter();
        all.map(|one| format!("{} {}", one["subject"].as_str().unwrap(), one["state"].as_str().unwrap()))
            .collect::<Vec<_>>()
    };
    assert_eventually!(subjects() == ["shop@a.service ok", "shop@b.service ok"], "{:?}", subjects());
    units.set("shop@b.service", "failed", "failed");
    await_states(&evoke, "shop@b.service", &["critical"]);
    // A unit that systemd unloads is inactive, and is no subject any more.
    units.unload("shop@b.service");
    await_states(&evoke, "shop@b.service", &["critical", "ok"]);
    assert_eventually!(subjects() == ["shop@a.service ok"], "{:?}", subjects());
    assert_eq!(changes(&evoke, "other.service"), []);
}

#[test]
fn restarts_of_a_service_are_counted() {
    let units = Units::default();
    units.set_restarts("shop.service", "active", "running", 3);
    let monitor = "{ every: 100ms, unit: { name: shop.service, of: restarts }, warning: \"> 0\" }";
    let (_systemd, _bus, evoke) = up(monitor, &units);
    assert_eventually!(shown(&evoke)["value"] == json!(0.0), "{}\n{}", shown(&evoke), evoke.log());
    units.set_restarts("shop.service", "active", "running", 5);
    await_states(&evoke, "shop.service", &["warning", "ok"]);
    let events = evoke.events("evoke.monitor.changed");
    assert_eq!(events[0]["data"]["value"], json!(2.0), "{events:?}");
}

#[test]
fn a_systemd_that_does_not_reply_is_unknown_after_five_seconds() {
    let units = Units::default();
    units.set("shop.service", "active", "running");
    let (_systemd, _bus, evoke) = up("{ every: 100ms, unit: { name: shop.service } }", &units);
    assert_eventually!(shown(&evoke)["state"] == "ok", "{}\n{}", shown(&evoke), evoke.log());
    units.set_hangs(true);
    await_states(&evoke, "shop.service", &["unknown"]);
    assert_eq!(detail(&evoke), "systemd did not reply within 5s");
    units.set_hangs(false);
    await_states(&evoke, "shop.service", &["unknown", "ok"]);
}
