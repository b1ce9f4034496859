use std::path::Path;

use serde_json::{Value, json};

use super::*;
use crate::control::kinds::registry;
use evoke_manifest::{Checked, load_str};
use evoke_model::GrantKind;
use evoke_sandbox::Secrets;

const HOUR_MS: i64 = 3_600_000;
const KEEP: Duration = Duration::from_secs(24 * 3600);

/// A manifest with one function, which has these grants.
fn manifest(allow: &str) -> Vec<Checked> {
    let text = format!(
        "evoke: 1\napp: a\nfunctions:\n  f:\n    component: f.wasm\n    build: make\n    on: [{{ events: {{ type: [t] }} }}]\n    \
         allow: {allow}\n"
    );
    vec![load_str(&text, Path::new("/m/a.yaml"), &registry()).unwrap()]
}

/// Declares the grants of this manifest. Returns the object in which the function records its uses.
fn declare(records: &GrantRecords, allow: &str, now_ms: UnixMs) -> Arc<GrantUse> {
    let manifests = manifest(allow);
    let grants = &manifests[0].manifest.functions[0].allow;
    let globs: Vec<_> = grants.publish.iter().map(|glob| glob.as_str().to_owned()).collect();
    let http: Vec<_> = grants.http.iter().map(|grant| evoke_egress::Grant::new(grant.url.clone())).collect();
    let config = grants.config.keys().map(String::as_str);
    let grant_use = Arc::new(GrantUse::new(&globs, &http, config, &Secrets::default()));
    let loaded = BTreeMap::from([("a/f".to_owned(), (grant_use.clone(), Vec::new()))]);
    records.declare(declared(&manifests, loaded), now_ms);
    grant_use
}

fn record(records: &GrantRecords) -> Record {
    records.lock().records["a/f"].record.clone()
}

fn writes(records: &GrantRecords, now_ms: UnixMs, all: bool) -> usize {
    records.take_writes(now_ms, KEEP, all).len()
}

#[test]
fn a_record_is_written_for_a_new_use_and_once_an_hour_for_a_known_one() {
    let records = GrantRecords::default();
    let grant_use = declare(&records, "{ http: [\"https://a.example\"] }", 0);
    assert_eq!((writes(&records, 0, false), writes(&records, 0, true)), (1, 0));
    grant_use.request(0, "https://a.example");
    assert_eq!((writes(&records, 10, false), writes(&records, 10, true)), (1, 0));
    grant_use.request(0, "https://a.example");
    assert_eq!(writes(&records, 20, false), 0, "the use is already recorded");
    grant_use.request(0, "https://a.example");
    assert_eq!(writes(&records, HOUR_MS + 10, false), 1);
    assert_eq!(record(&records).grants[0].last_ms(), Some(HOUR_MS + 10));
    // A record in which only the number of attempts changes is written once a minute and at the stop.
    grant_use.attempt();
    assert_eq!(writes(&records, HOUR_MS + 20, false), 0);
    assert_eq!(writes(&records, HOUR_MS + ATTEMPTS_INTERVAL_MS + 10, false), 1);
    grant_use.attempt();
    assert_eq!(writes(&records, HOUR_MS + ATTEMPTS_INTERVAL_MS + 20, true), 1);
    assert_eq!(record(&records).attempts, 2);
}

#[test]
fn what_could_not_be_written_is_written_later_and_restored() {
    let records = GrantRecords::default();
    let grant_use = declare(&records, "{ publish: [\"t.*\"] }", 5);
    grant_use.request(0, "x");
    grant_use.attempt();
    let marks = records.take_writes(10, KEEP, false);
    records.put_back(&marks);
    assert_eq!(records.take_writes(20, KEEP, false), marks);
    let restored = GrantRecords::default();
    let stored = marks.into_iter().map(|mark| (mark.key, mark.value.unwrap())).collect();
    restored.restore(stored, Some(30));
    let mut expected = record(&records);
    expected.unclean_ms = Some(30);
    assert_eq!(record(&restored), expected);
    assert_eq!(writes(&restored, 30, false), 1, "the unclean end is stored");
    restored.restore(BTreeMap::from([("a/g".to_owned(), b"{\"v\":2}".to_vec())]), None);
    assert!(!restored.lock().records.contains_key("a/g"), "a record of a later version is ignored");
}

#[test]
fn attempts_of_a_replaced_function_are_recorded_until_the_last_one_ends() {
    let records = GrantRecords::default();
    let old = declare(&records, "{ http: [\"https://a.example\"] }", 0);
    let new = declare(&records, "{ http: [\"https://a.example\"] }", 1);
    old.request(0, "https://a.example");
    old.attempt();
    new.attempt();
    writes(&records, 2, false);
    assert_eq!((record(&records).attempts, record(&records).grants[0].is_used()), (2, true));
    assert_eq!(records.lock().records["a/f"].grant_uses.len(), 2);
    drop(old);
    writes(&records, 3, false);
    assert_eq!(records.lock().records["a/f"].grant_uses.len(), 1);
}

#[test]
fn a_renamed_function_takes_over_the_record_with_uses_that_are_not_stored() {
    let take_over = |from: &str, to: &str| TakeOver { from: from.into(), to: to.into() };
    let records = GrantRecords::default();
    let grant_use = declare(&records, "{ http: [\"https://a.example\"] }", 5);
    writes(&records, 5, false);
    grant_use.request(0, "https://a.example");
    records.rename(&[take_over("a/e", "a/g"), take_over("a/f", "a/g")]);
    let marks = records.take_writes(10, KEEP, false);
    assert_eq!(marks.iter().map(|mark| &*mark.key).collect::<Vec<_>>(), ["a/g"]);
    let record = Record::from_mark(marks[0].value.as_deref().unwrap()).unwrap();
    assert_eq!((record.since_ms, record.grants[0].last_ms()), (5, Some(10)));
    // If the present name already has a record, this record stays. The store does the same.
    declare(&records, "{}", 20);
    records.rename(&[take_over("a/f", "a/g")]);
    assert!(!records.lock().records.contains_key("a/f"));
    assert_eq!(records.lock().records["a/g"].record.since_ms, 5);
}

#[test]
fn a_function_that_is_declared_again_keeps_its_record_although_an_earlier_one_is_to_be_removed() {
    let keep_ms = i64::try_from(KEEP.as_millis()).unwrap();
    let records = GrantRecords::default();
    declare(&records, "{}", 0);
    records.remove_others(&BTreeMap::<String, ()>::new(), 0);
    let removal = records.take_writes(keep_ms, KEEP, false);
    assert_eq!(removal, [mark("a/f", None)]);
    records.put_back(&removal);
    declare(&records, "{}", keep_ms);
    let marks = records.take_writes(keep_ms, KEEP, false);
    assert!(marks.len() == 1 && marks[0].value.is_some(), "{marks:?}");
}

#[test]
fn removed_grants_and_functions_expire() {
    let keep_ms = i64::try_from(KEEP.as_millis()).unwrap();
    let records = GrantRecords::default();
    declare(&records, "{ publish: [one, two] }", 0);
    declare(&records, "{ publish: [two] }", 10);
    assert_eq!((record(&records).grants.len(), record(&records).current().count()), (2, 1));
    writes(&records, 10 + keep_ms - 1, false);
    assert_eq!(record(&records).grants.len(), 2);
    assert_eq!(writes(&records, 10 + keep_ms, false), 1);
    assert_eq!(record(&records).grants.len(), 1);
    let gone_ms = 20 + keep_ms;
    records.remove_others(&BTreeMap::<String, ()>::new(), gone_ms);
    assert_eq!(writes(&records, gone_ms, false), 1);
    let removal = records.take_writes(gone_ms + keep_ms, KEEP, false);
    assert_eq!(removal, [mark("a/f", None)]);
    records.put_back(&removal);
    assert_eq!(records.take_writes(gone_ms + keep_ms, KEEP, false), removal);
}

#[test]
fn many_grants_have_records_of_bounded_size() {
    let many: Vec<String> = (0..1_000).map(|n| format!("K{n}: \"{}\"", "x".repeat(100))).collect();
    let records = GrantRecords::default();
    declare(&records, &format!("{{ config: {{ {} }} }}", many.join(", ")), 0);
    let record = record(&records);
    assert_eq!((record.grants.len(), record.allow.is_none()), (256, true));
    assert!(record.to_mark().len() < 64 << 10);
    assert_eq!(propose(&record), None);
}

/// Records uses of grants, and returns the proposal for them.
fn proposal(allow: &str, uses: &[(GrantKind, &str, &[&str])]) -> Option<Value> {
    let records = GrantRecords::default();
    declare(&records, allow, 0);
    let mut record = record(&records);
    for (kind, name, values) in uses {
        let values = values.iter().map(|value| (*value).to_owned()).collect();
        let used = evoke_sandbox::Used { key: kind.key(*name), values, more: false };
        record.add(evoke_sandbox::Uses { attempts: 1, used: vec![used], refused: Vec::new() }, &BTreeMap::new(), 1);
    }
    propose(&record)
}

#[test]
fn the_proposal_has_only_what_was_used() {
    use GrantKind::{Config, Http, Publish, Secret, SharedState, State};
    let all = "{ publish: [\"p.*\", \"q.*\"], state: { shared: true }, http: [\"https://*.a.example\", { url: \"https://b.example\", \
        ca: ./a.yaml }], config: { K: 7, L: x }, secrets: { S: { file: ./s }, T: { credential: t } } }";
    let all = &all.replace(", ca: ./a.yaml", "");
    assert_eq!(proposal(all, &[]), None, "the function has not run");
    assert_eq!(proposal(all, &[(State, "", &[])]), Some(json!({})));
    let used: &[(GrantKind, &str, &[&str])] = &[
        (Publish, "p.*", &["p.b", "p.a"]),
        (State, "", &["open"]),
        (Http, "https://*.a.example", &["https://x.a.example"]),
        (Config, "K", &["read"]),
        (Secret, "S", &["read"]),
    ];
    let expected = json!({
        "publish": ["p.a", "p.b"], "state": true, "http": ["https://x.a.example"], "config": { "K": "7" },
        "secrets": { "S": { "file": "s" } },
    });
    assert_eq!(proposal(all, used), Some(expected));

    // Five types replace a glob; six do not, nor does a type with a star.
    let types = ["p.1", "p.2", "p.3", "p.4", "p.5", "p.6"];
    let five = proposal("{ publish: [\"p.*\"] }", &[(Publish, "p.*", &types[..5])]);
    assert_eq!(five, Some(json!({ "publish": types[..5] })));
    assert_eq!(proposal("{ publish: [\"p.*\"] }", &[(Publish, "p.*", &types)]), None);
    assert_eq!(proposal("{ publish: [\"p.*\"] }", &[(Publish, "p.*", &["p.*x"])]), None);
    // Two hosts do not replace a wildcard.
    let hosts: &[&str] = &["https://x.a.example", "https://y.a.example"];
    assert_eq!(proposal("{ http: [\"https://*.a.example\"] }", &[(Http, "https://*.a.example", hosts)]), None);
    let shared: &[(GrantKind, &str, &[&str])] = &[(State, "", &["open"]), (SharedState, "", &["open"])];
    assert_eq!(proposal("{ state: { shared: true, max_keys: 5 } }", shared), None);
    let limits = proposal("{ state: { shared: true, max_keys: 5 } }", &shared[..1]);
    assert_eq!(limits, Some(json!({ "state": { "max_keys": 5 } })));
}
