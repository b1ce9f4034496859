use super::*;
use evoke_model::event::Event;

fn glob(text: &str) -> TypeGlob {
    TypeGlob::parse(text).unwrap()
}

fn policy(types: &[&str], sources: &[&str]) -> ClaimPolicy {
    let sources = sources.iter().map(|source| SourceGlob::parse(source).unwrap()).collect();
    let accept = Accept { types: types.iter().map(|type_| glob(type_)).collect(), sources };
    ClaimPolicy::new("/shop/hook".into(), Some("hook.called".into()), accept)
}

fn router() -> Router {
    let mut router = Router::default();
    router.add_app("shop");
    router.add_app("depot");
    router
}

/// Returns the status and the message of the refusal; the status is 0 for an accepted event.
fn check(policy: &ClaimPolicy, type_: &str, source: &str) -> (u16, String) {
    let event = Event { id: "1".into(), type_: type_.into(), source: source.into(), ..Event::default() };
    match policy.check(&router(), &event, None) {
        Ok(()) => (0, String::new()),
        Err(problem) => (problem.status.as_u16(), problem.detail),
    }
}

#[test]
fn without_globs_only_the_type_and_the_source_of_the_http_source_are_accepted() {
    let policy = policy(&[], &[]);
    assert_eq!(check(&policy, "hook.called", "/shop/hook").0, 0);
    let (status, detail) = check(&policy, "payment.taken", "/shop/hook");
    assert_eq!(status, 403);
    let expected = "does not accept the type `payment.taken`; it accepts `hook.called`";
    assert!(detail.contains(expected) && detail.contains(r#"`accept: { types: ["payment.taken"] }`"#), "{detail}");
    let (status, detail) = check(&policy, "hook.called", "https://partner.example/a");
    assert_eq!(status, 403);
    assert!(detail.contains(r#"`accept: { sources: ["https://partner.example/a"] }`"#), "{detail}");
}

#[test]
fn globs_accept_what_they_match() {
    let policy = policy(&["order.*", "bestellt.größe"], &["https://partner.example/*", "urn:partner:*"]);
    for (type_, source) in [
        ("order.placed", "/shop/hook"),
        ("hook.called", "https://partner.example/a"),
        ("order.", "urn:partner:7"),
        ("bestellt.größe", "/shop/hook"),
        // `accept.sources` names this host, so paths on this host do not count as sources of apps.
        ("order.x", "https://partner.example/shop/charge"),
    ] {
        assert_eq!(check(&policy, type_, source), (0, String::new()), "{type_} {source}");
    }
    for (type_, source) in [
        ("orders", "/shop/hook"),
        ("Order.placed", "/shop/hook"),
        ("order.größe", "/shop/hook"),
        ("bestellt.gro\u{308}ße", "/shop/hook"),
        ("order. ", "/shop/hook"),
        ("order.x", "https://partner.example.evil.example/"),
        ("order.x", "https://PARTNER.example/a"),
    ] {
        assert_eq!(check(&policy, type_, source).0, 403, "{type_} {source}");
    }
}

#[test]
fn no_glob_accepts_a_source_of_an_app_or_of_the_runtime() {
    let policy = policy(&["*"], &["*"]);
    for source in [
        "/shop/charge",
        "/shop",
        "/shop/hook/",
        "/depot/nightly",
        "/evoke",
        "/evoke/emit",
        "/EVOKE",
        "//depot/nightly",
        "/%64epot/nightly",
        "/x/../depot/nightly",
        "http://localhost:8080/depot/nightly",
        "https://other.example/depot/nightly",
        "https://other.example/evoke",
    ] {
        let (status, detail) = check(&policy, "order.placed", source);
        assert!(status == 403 && detail.contains("no producer can claim it"), "{source}: {status} {detail}");
    }
    for type_ in ["evoke.timer.tick", "Evoke.Delivery.Dead", "evoke%2Ex"] {
        let (status, detail) = check(&policy, type_, "/shop/hook");
        assert!(status == 403 && detail.contains("belongs to the runtime"), "{type_}: {status} {detail}");
    }
    for source in ["/dépot/nightly", "/ѕhop/charge", "/shop /charge", "/shop\\charge", "%", "/a%2", "", "/a\"b", "/<a>"]
    {
        let (status, detail) = check(&policy, "order.placed", source);
        assert!(status == 400 && detail.contains("URI reference"), "{source}: {status} {detail}");
    }
    assert_eq!(check(&policy, "order.placed", "/elsewhere/x").0, 0);
    assert_eq!(check(&policy, "order.placed", "https://other.example/x").0, 0);
}

#[test]
fn a_refusal_names_the_attribute_and_the_event_of_a_batch() {
    let event = Event { id: "1".into(), type_: "x".into(), source: "/y".into(), ..Event::default() };
    let problem = policy(&[], &[]).check(&router(), &event, Some(3)).unwrap_err();
    assert!(problem.detail.starts_with("event 3: this source does not accept the type `x`"), "{}", problem.detail);
}

#[test]
fn a_glob_belongs_to_an_app_if_it_only_matches_sources_of_that_app() {
    for (glob, app) in [
        ("/shop/*", Some("shop")),
        ("/shop/charge", Some("shop")),
        ("/shop", Some("shop")),
        ("//SHOP/*", Some("shop")),
        ("http://localhost/shop/*", Some("shop")),
        ("/shop*", None),
        ("/sh*", None),
        ("*", None),
        ("/*", None),
        ("https://partner.example/shop/*", None),
        ("urn:shop:*", None),
    ] {
        assert_eq!(SourceGlob::parse(glob).unwrap().app().as_deref(), app, "{glob}");
    }
}
