use std::collections::BTreeMap;
use std::sync::Mutex;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use super::*;
use evoke_model::state::{Entry, Version};

/// Stored state in a map. Records the keys whose values were read.
#[derive(Default)]
struct Map {
    entries: BTreeMap<String, Entry>,
    /// True if a page of keys has at most two keys, as for large values.
    short_pages: bool,
    reads: Mutex<Vec<String>>,
}

impl StateSource for Map {
    fn get(&self, bucket: &str, key: &str) -> BoxFuture<'static, Result<Option<Entry>, String>> {
        self.reads.lock().unwrap().push(format!("{bucket} {key}"));
        let found =
            if key == "broken" { Err("the store is closed".into()) } else { Ok(self.entries.get(key).cloned()) };
        std::future::ready(found).boxed()
    }

    fn size(&self, _: &str, key: &str) -> BoxFuture<'static, Result<Option<usize>, String>> {
        std::future::ready(Ok(self.entries.get(key).map(|entry| entry.value.len()))).boxed()
    }

    fn keys(&self, _: &str, after: Option<&str>, limit: usize) -> BoxFuture<'static, Result<Keys, String>> {
        let after = after.unwrap_or_default().to_owned();
        let limit = if self.short_pages { 2 } else { limit };
        let keys: Vec<String> = self.entries.keys().filter(|key| **key > after).take(limit).cloned().collect();
        std::future::ready(Ok(Keys { is_last: keys.len() < limit, keys, version: 7 })).boxed()
    }

    fn usage(&self, _: &str) -> Usage {
        let bytes = self.entries.iter().map(|(key, entry)| (key.len() + entry.value.len()) as u64).sum();
        Usage { keys: self.entries.len() as u64, bytes }
    }
}

fn map(entries: impl IntoIterator<Item = (String, Vec<u8>)>) -> Arc<Map> {
    let entry =
        |(n, (key, value)): (usize, (String, Vec<u8>))| (key, Entry { value: value.into(), version: n as Version + 1 });
    Arc::new(Map { entries: entries.into_iter().enumerate().map(entry).collect(), ..Map::default() })
}

fn session(map: &Arc<Map>, shared: bool, quota: Quota) -> Session {
    let source: Arc<dyn StateSource> = map.clone();
    let mut session = Session::new(
        Some(source),
        Some(StateGrant { shared, value_bytes_max: 1 << 20, quota }),
        Arc::new(HostBudget::of_delivery()),
    );
    assert_eq!(session.open(&"shop/charge".into(), ""), Some(BucketName::Own));
    session
}

fn refused<T: std::fmt::Debug>(result: Result<T>, words: &str) {
    let error = result.unwrap_err();
    assert!(error.to_string().contains(words), "{error:?}");
}

#[tokio::test]
async fn a_key_is_read_once_and_its_first_version_counts() {
    let map = map([("a".to_owned(), b"1".to_vec())]);
    let mut session = session(&map, true, Quota::NONE);
    assert_eq!(session.open(&"shop/charge".into(), "app"), Some(BucketName::Shared));
    for _ in 0..3 {
        assert_eq!(session.get(BucketName::Own, "a").await.unwrap().unwrap(), "1");
        assert_eq!(session.get(BucketName::Shared, "b").await.unwrap(), None);
    }
    session.set(BucketName::Own, "new", b"x".to_vec()).await.unwrap();
    assert_eq!(session.get(BucketName::Own, "new").await.unwrap().unwrap(), "x");
    session.delete(BucketName::Own, "a").await.unwrap();
    assert_eq!(session.get(BucketName::Own, "a").await.unwrap(), None);
    assert_eq!(*map.reads.lock().unwrap(), ["shop/charge a", "shop b"]);
    let touched =
        |bucket: &str, key: &str, seen, change| Touched { bucket: bucket.into(), key: key.into(), seen, change };
    let expected = [
        touched("shop/charge", "a", Some(1), Some(Change::Delete)),
        touched("shop/charge", "new", None, Some(Change::Set("x".into()))),
        touched("shop", "b", Some(0), None),
    ];
    let transaction = session.finish();
    assert_eq!((transaction.keys.as_slice(), transaction.lists.len()), (&expected[..], 0));
}

#[tokio::test]
async fn only_granted_buckets_can_be_opened() {
    let map = map([]);
    let name: Arc<str> = "shop/charge".into();
    let mut alone = session(&map, false, Quota::NONE);
    assert_eq!(alone.open(&name, "default"), Some(BucketName::Own));
    assert_eq!((alone.open(&name, "app"), alone.open(&name, "shop/other")), (None, None));
    let mut none = Session::new(Some(map), None, Arc::new(HostBudget::of_delivery()));
    assert_eq!((none.open(&name, ""), none.finish().is_empty()), (None, true));
}

#[tokio::test]
async fn an_attempt_reads_and_writes_a_bounded_number_of_keys_and_bytes() {
    let map = map([]);
    let mut one = session(&map, false, Quota::NONE);
    for n in 0..READS_MAX {
        one.get(BucketName::Own, &n.to_string()).await.unwrap();
    }
    refused(one.get(BucketName::Own, "more").await, "read at most 10000 keys");
    one.get(BucketName::Own, "7").await.unwrap();
    for n in 0..WRITES_MAX {
        one.set(BucketName::Own, &n.to_string(), Vec::new()).await.unwrap();
    }
    refused(one.delete(BucketName::Own, "more").await, "write at most 4096 keys");
    one.set(BucketName::Own, "7", b"again".to_vec()).await.unwrap();

    let mut other = session(&map, false, Quota::NONE);
    let half = vec![0; WRITE_BYTES_MAX / 8 - 1];
    for key in ["a", "b", "c", "d", "e", "f", "g", "h", "h"] {
        other.set(BucketName::Own, key, half.clone()).await.unwrap();
    }
    refused(other.set(BucketName::Own, "i", Vec::new()).await, "bytes of state in total");
    refused(other.set(BucketName::Own, "a", vec![0; (1 << 20) + 1]).await, "max_value");

    let mut third = session(&map, false, Quota::NONE);
    for _ in 0..READS_MAX {
        refused(third.get(BucketName::Own, "broken").await, "the store is closed");
    }
    refused(third.get(BucketName::Own, "broken").await, "read at most 10000 keys");
}

#[tokio::test]
async fn refused_reads_do_not_go_on_reading_the_store() {
    let map = map((0..40).map(|n| (n.to_string(), vec![0; 1 << 20])));
    for (budget, granted) in [(HostBudget::of_delivery(), 15), (HostBudget::of_http_request(), 3)] {
        map.reads.lock().unwrap().clear();
        let mut session = Session { budget: Arc::new(budget), ..session(&map, false, Quota::NONE) };
        for n in 0..40 {
            let read = session.get(BucketName::Own, &n.to_string()).await;
            assert_eq!(read.is_ok(), n < granted, "{n}");
        }
        assert_eq!(map.reads.lock().unwrap().len(), 16);
    }
}

#[tokio::test]
async fn a_write_past_the_quota_is_refused_before_the_commit() {
    let map = map([("a".to_owned(), b"1".to_vec()), ("b".to_owned(), b"1".to_vec())]);
    let mut session = session(&map, false, Quota { keys: 2, bytes: 8 });
    session.set(BucketName::Own, "a", b"22".to_vec()).await.unwrap();
    refused(session.set(BucketName::Own, "c", Vec::new()).await, "max_keys");
    let too_large = session.set(BucketName::Own, "a", vec![b'1'; 6]).await.unwrap_err();
    assert!(matches!(&too_large, StateError::Quota(message) if message.contains("max_total")));
    assert_eq!(session.own.as_ref().unwrap().accesses.len(), 1, "a refused key is not kept in memory");
    session.delete(BucketName::Own, "b").await.unwrap();
    session.set(BucketName::Own, "c", b"333".to_vec()).await.unwrap();
    let changes: Vec<_> = session.finish().keys.into_iter().map(|touched| touched.key).collect();
    assert_eq!(changes.iter().map(|key| &**key).collect::<Vec<_>>(), ["a", "b", "c"]);
}

#[tokio::test]
async fn a_write_near_the_quota_reads_sizes_only_and_yields_to_others() {
    let map = map((0..20).map(|n| (n.to_string(), vec![0; 100])));
    let mut session = session(&map, false, Quota { keys: 20, bytes: 1 << 20 });
    for n in 0..20 {
        session.delete(BucketName::Own, &n.to_string()).await.unwrap();
    }
    let mut set = std::pin::pin!(session.set(BucketName::Own, "new", Vec::new()));
    assert!(futures_util::poll!(&mut set).is_pending());
    set.await.unwrap();
    assert!(map.reads.lock().unwrap().is_empty());
}

#[tokio::test]
async fn increment_accepts_only_numbers() {
    let map = map([("n".to_owned(), b"41".to_vec()), ("word".to_owned(), b"\"41\"".to_vec())]);
    let mut session = session(&map, false, Quota::NONE);
    assert_eq!(session.increment(BucketName::Own, "n", 1).await.unwrap(), 42);
    assert_eq!(session.increment(BucketName::Own, "new", 0).await.unwrap(), 0);
    refused(session.increment(BucketName::Own, "word", 1).await, "not a number");
    refused(session.increment(BucketName::Own, "n", u64::MAX).await, "exceeds 64 bits");
    assert_eq!(session.get(BucketName::Own, "n").await.unwrap().unwrap(), "42");
    refused(session.get(BucketName::Own, "broken").await, "closed");
}

#[tokio::test]
async fn a_list_continues_only_from_its_own_cursors() {
    let map = map((0..PAGE_MAX + 10).map(|n| (format!("{n:04}"), Vec::new())));
    let mut session = session(&map, false, Quota::NONE);
    session.delete(BucketName::Own, "0003").await.unwrap();
    session.set(BucketName::Own, "9", Vec::new()).await.unwrap();
    for _ in 0..3 {
        let (first, cursor) = session.list(BucketName::Own, None).await.unwrap();
        assert_eq!((first.len(), cursor), (PAGE_MAX - 1, Some(0)));
        let (second, cursor) = session.list(BucketName::Own, cursor).await.unwrap();
        assert_eq!((second.len(), second.last().unwrap().as_str(), cursor), (11, "9", None));
    }
    refused(session.list(BucketName::Own, Some(1)).await, "not a cursor");
    assert_eq!(session.finish().lists, [("shop/charge".into(), 7)]);
}

#[tokio::test]
async fn a_list_continues_after_a_page_that_is_short_because_of_large_values() {
    let map = Arc::into_inner(map((0..5).map(|n| (n.to_string(), Vec::new())))).unwrap();
    let map = Arc::new(Map { short_pages: true, ..map });
    let mut session = session(&map, false, Quota::NONE);
    session.set(BucketName::Own, "9", Vec::new()).await.unwrap();
    let (mut keys, mut cursor) = session.list(BucketName::Own, None).await.unwrap();
    while cursor.is_some() {
        let page = session.list(BucketName::Own, cursor).await.unwrap();
        keys.extend(page.0);
        cursor = page.1;
    }
    assert_eq!(keys, ["0", "1", "2", "3", "4", "9"]);
}
