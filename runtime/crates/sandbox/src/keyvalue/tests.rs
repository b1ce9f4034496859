use futures_util::FutureExt as _;

use super::*;
use crate::budget::HostBudget;

/// Stored state without any key.
struct Nothing;

impl StateSource for Nothing {
    fn get(&self, _: &str, _: &str) -> BoxFuture<'static, Result<Option<Entry>, String>> {
        std::future::ready(Ok(None)).boxed()
    }

    fn size(&self, _: &str, _: &str) -> BoxFuture<'static, Result<Option<usize>, String>> {
        std::future::ready(Ok(None)).boxed()
    }

    fn keys(&self, _: &str, _: Option<&str>, _: usize) -> BoxFuture<'static, Result<Keys, String>> {
        std::future::ready(Err("the store is closed".into())).boxed()
    }

    fn usage(&self, _: &str) -> Usage {
        Usage { keys: 0, bytes: 0 }
    }
}

#[tokio::test]
async fn the_latest_operation_is_recorded_if_it_was_refused() {
    use store::{Host as _, HostBucket as _};
    let grant = StateGrant { shared: false, value_bytes_max: 4, quota: Quota { keys: 1, bytes: 100 } };
    let budget = Arc::new(HostBudget::of_delivery());
    let (mut session, mut resources) =
        (Session::new(Some(Arc::new(Nothing)), Some(grant), budget), ResourceTable::new());
    let (function, mut refusals) = ("shop/charge".into(), Refusals::default());
    let grant_use = GrantUse::default();
    let mut state = KeyValue {
        function: &function,
        grant_use: &grant_use,
        session: &mut session,
        resources: &mut resources,
        refusals: &mut refusals,
    };
    assert!(state.open("shop/other".into()).is_err());
    let bucket = state.open(String::new()).unwrap();
    let bucket = || Resource::new_borrow(bucket.rep());

    state.set(bucket(), "a".into(), b"12345".to_vec()).await.unwrap_err();
    assert!(matches!(state.refusals.cause(), Some(Refusal::Denied(reason)) if reason.contains("max_value")));
    state.set(bucket(), "a".into(), b"1".to_vec()).await.unwrap();
    assert_eq!(state.refusals.cause(), None);
    state.set(bucket(), "b".into(), b"1".to_vec()).await.unwrap_err();
    assert!(matches!(state.refusals.cause(), Some(Refusal::Quota(reason)) if reason.contains("max_keys")));
    // A failure of the store is not a refusal.
    state.list_keys(bucket(), None).await.unwrap_err();
    assert_eq!(state.refusals.cause(), None);
}

/// Stored state in which every key has a value of 1 MiB.
struct Large;

impl StateSource for Large {
    fn get(&self, _: &str, _: &str) -> BoxFuture<'static, Result<Option<Entry>, String>> {
        std::future::ready(Ok(Some(Entry { value: vec![0; 1 << 20].into(), version: 1 }))).boxed()
    }

    fn size(&self, _: &str, _: &str) -> BoxFuture<'static, Result<Option<usize>, String>> {
        std::future::ready(Ok(Some(1 << 20))).boxed()
    }

    fn keys(&self, _: &str, _: Option<&str>, _: usize) -> BoxFuture<'static, Result<Keys, String>> {
        std::future::ready(Err("the store is closed".into())).boxed()
    }

    fn usage(&self, _: &str) -> Usage {
        Usage { keys: 0, bytes: 0 }
    }
}

#[tokio::test]
async fn a_list_that_names_a_key_many_times_is_bounded() {
    use {batch::Host as _, store::Host as _};
    let grant = StateGrant { shared: false, value_bytes_max: 4, quota: Quota { keys: 1, bytes: 100 } };
    let budget = Arc::new(HostBudget::of_delivery());
    let (mut session, mut resources) = (Session::new(Some(Arc::new(Large)), Some(grant), budget), ResourceTable::new());
    let (function, mut refusals) = ("shop/charge".into(), Refusals::default());
    let grant_use = GrantUse::default();
    let mut state = KeyValue {
        function: &function,
        grant_use: &grant_use,
        session: &mut session,
        resources: &mut resources,
        refusals: &mut refusals,
    };
    let bucket = state.open(String::new()).unwrap();
    let bucket = || Resource::new_borrow(bucket.rep());
    assert_eq!(state.get_many(bucket(), vec!["a".into(); 16]).await.unwrap().len(), 16);
    let refused = state.get_many(bucket(), vec!["a".into(); 100_000]).await;
    assert!(
        matches!(&refused, Err(Error::Other(message)) if message.contains("16777216 bytes")),
        "get-many returns more than its limit"
    );
}

/// Stored state that is full of keys, each with a value of one byte.
struct Full;

impl StateSource for Full {
    fn get(&self, _: &str, _: &str) -> BoxFuture<'static, Result<Option<Entry>, String>> {
        std::future::ready(Ok(Some(Entry { value: b"1".as_slice().into(), version: 1 }))).boxed()
    }

    fn size(&self, _: &str, _: &str) -> BoxFuture<'static, Result<Option<usize>, String>> {
        std::future::ready(Ok(Some(1))).boxed()
    }

    fn keys(&self, _: &str, _: Option<&str>, _: usize) -> BoxFuture<'static, Result<Keys, String>> {
        std::future::ready(Err("the store is closed".into())).boxed()
    }

    fn usage(&self, _: &str) -> Usage {
        Usage { keys: 20_000, bytes: 200_000 }
    }
}

#[tokio::test]
async fn a_list_of_writes_near_the_quota_ends_at_a_time_limit() {
    use {batch::Host as _, store::Host as _};
    let grant = StateGrant { shared: false, value_bytes_max: 4, quota: Quota { keys: 20_000, bytes: 1 << 20 } };
    let budget = Arc::new(HostBudget::of_delivery());
    let (mut session, mut resources) = (Session::new(Some(Arc::new(Full)), Some(grant), budget), ResourceTable::new());
    let (function, mut refusals) = ("shop/charge".into(), Refusals::default());
    let grant_use = GrantUse::default();
    let mut state = KeyValue {
        function: &function,
        grant_use: &grant_use,
        session: &mut session,
        resources: &mut resources,
        refusals: &mut refusals,
    };
    let bucket = state.open(String::new()).unwrap();
    let bucket = || Resource::new_borrow(bucket.rep());
    let keys: Vec<String> = (0..10_000).map(|n| n.to_string()).collect();
    state.get_many(bucket(), keys).await.unwrap();
    // Each write checks the 10,000 keys that were read, and the list names one key many times.
    let values = vec![("0".to_owned(), b"2".to_vec()); 100_000];
    let limited = tokio::time::timeout(std::time::Duration::from_millis(100), state.set_many(bucket(), values)).await;
    assert!(limited.is_err(), "the list was not interrupted");
}
