//! Origins: the sources through which events enter. Each origin has its own dedup.

use super::*;

pub async fn an_id_that_another_origin_used_is_still_free(store: &dyn Store) {
    let f = store.register(vec!["shop/a".into()]).await.unwrap()[0];
    let origins = store.register_origins(vec!["/shop/hook".into(), "/shop/nightly".into()]).await.unwrap();
    let from =
        |origin, id: &str| NewEvent { lineage: Lineage { origin, ..Lineage::default() }, ..new_event(id, vec![to(f)]) };
    let both = || vec![from(origins[0], "1"), from(origins[1], "1"), from(Origin::OPERATOR, "1")];
    let new = vec![Accepted::New(Seq(1)), Accepted::New(Seq(2)), Accepted::New(Seq(3))];
    assert_eq!(store.accept(both(), vec![]).await.unwrap(), new);
    let known = vec![Accepted::Duplicate(Seq(1)), Accepted::Duplicate(Seq(2)), Accepted::Duplicate(Seq(3))];
    assert_eq!(store.accept(both(), vec![]).await.unwrap(), known);
    // When a function publishes an event with the same source and id, it is a fourth event. When a function of another
    // chain publishes the same event, it is a duplicate.
    for (delivery, origin) in [(1, origins[0]), (2, origins[1])] {
        let lineage = Lineage { cause: Some(DeliveryId(delivery)), root: Some(Seq(delivery)), hops: 1, origin };
        let publishes = vec![NewEvent { lineage, ..new_event("1", vec![]) }];
        store.complete(Arc::new(Completion { publishes, ..Arc::unwrap_or_clone(done(delivery, 1)) })).await.unwrap();
    }
    assert_eq!(store.totals().await.unwrap().events, 4);
    assert_eq!(store.event(Seq(4)).await.unwrap().unwrap().unwrap().lineage.origin, origins[0]);
}

pub async fn origins_keep_their_numbers_and_uris(store: &dyn Store) {
    let register =
        async |uris: &[&str]| store.register_origins(uris.iter().map(|uri| (*uri).to_owned()).collect()).await.unwrap();
    let first = register(&["/shop/a", "/shop/b", "/evoke", "/evoke/emit"]).await;
    assert_eq!(first[2..], [Origin::RUNTIME, Origin::OPERATOR]);
    assert!(first[0] != first[1] && !first[..2].contains(&Origin::default()));
    assert_eq!(register(&["/shop/b", "/shop/a"]).await, [first[1], first[0]]);
    for (origin, uri) in first.iter().zip(["/shop/a", "/shop/b", "/evoke", "/evoke/emit"]) {
        assert_eq!(store.origin_uri(*origin).as_deref(), Some(uri));
    }
    assert_eq!(store.origin_uri(Origin(77)), None);
    assert_eq!(store.origin_uri(Origin::default()), None);
}

pub async fn the_principal_of_an_event_is_read_back_and_not_inherited(store: &dyn Store) {
    let f = store.register(vec!["shop/a".into()]).await.unwrap()[0];
    let with = |principal: Option<&str>, new: NewEvent| {
        let event = Event { principal: principal.map(Arc::from), ..Arc::unwrap_or_clone(new.event) };
        NewEvent { event: Arc::new(event), ..new }
    };
    let entered = vec![
        with(Some("github:new"), new_event("1", vec![to(f)])),
        with(Some("basic:ada"), new_event("2", vec![])),
        with(None, new_event("3", vec![])),
    ];
    store.accept(entered, vec![]).await.unwrap();
    let lineage = Lineage { cause: Some(DeliveryId(1)), root: Some(Seq(1)), hops: 1, ..Lineage::default() };
    let publishes = vec![NewEvent { lineage, ..new_event("4", vec![]) }];
    let claimed = store.claim(f, Stream::Live, DeliveryId(0), LoadLimit::of(9)).await.unwrap();
    assert_eq!(claimed[0].event.as_ref().unwrap().event.principal.as_deref(), Some("github:new"));
    store.complete(Arc::new(Completion { publishes, ..Arc::unwrap_or_clone(done(1, 1)) })).await.unwrap();
    let mut principals = Vec::new();
    for seq in 1..=4 {
        principals
            .push(store.event(Seq(seq)).await.unwrap().unwrap().unwrap().event.principal.as_deref().map(str::to_owned));
    }
    let expected = [Some("github:new"), Some("basic:ada"), None, None].map(|principal| principal.map(str::to_owned));
    assert_eq!(principals, expected);
    let listed = store.events(EventFilter { after: Some(Seq(0)), limit: 10, ..EventFilter::default() }).await.unwrap();
    assert_eq!(listed[1].as_ref().unwrap().event.principal.as_deref(), Some("basic:ada"));
    let senders = store.senders(vec![Seq(2), Seq(3), Seq(9)]).await.unwrap();
    assert_eq!(senders, BTreeMap::from([(Seq(2), Some("basic:ada".into())), (Seq(3), None)]));
    // The same id from another principal is a duplicate, because the event came through the same source.
    let again = vec![with(Some("basic:eve"), new_event("2", vec![]))];
    assert_eq!(store.accept(again, vec![]).await.unwrap(), [Accepted::Duplicate(Seq(2))]);
}
