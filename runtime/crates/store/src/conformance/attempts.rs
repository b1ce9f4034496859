//! Records of attempts.

use super::*;

pub async fn a_successful_attempt_keeps_its_message(store: &dyn Store) {
    let f = store.register(vec!["shop/a".into()]).await.unwrap()[0];
    store.accept(vec![new_event("1", vec![to(f), to(f)])], vec![]).await.unwrap();
    let with_message = |attempt| {
        let mut completion = Arc::unwrap_or_clone(done(1, attempt));
        completion.record.message = Some("204 No Content".into());
        Arc::new(completion)
    };
    store.complete(ended(1, 1, "retry", Verdict::RetryAt(NOW_MS))).await.unwrap();
    assert_eq!(store.complete(with_message(2)).await.unwrap(), Completed::Committed);
    assert_eq!(store.complete(with_message(2)).await.unwrap(), Completed::Superseded);
    store.complete(done(2, 1)).await.unwrap();
    let attempts = async |number| {
        let record = store.delivery(DeliveryId(number)).await.unwrap().unwrap().unwrap();
        let attempts = record.attempts.into_iter();
        attempts.map(|one| (one.attempt, one.outcome.into_owned(), one.message)).collect::<Vec<_>>()
    };
    let why = |text: &str| Some(text.to_owned());
    assert_eq!(attempts(1).await, [(1, "retry".into(), why("why")), (2, "done".into(), why("204 No Content"))]);
    assert_eq!(attempts(2).await, [(1, "done".to_owned(), None)]);
    assert_eq!(store.check().await.unwrap().problems, Vec::<String>::new());
}
