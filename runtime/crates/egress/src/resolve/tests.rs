use std::future::{pending, ready};
use std::net::Ipv4Addr;

use tokio::task::yield_now;
use tokio::time::sleep;

use super::*;

const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// Starts lookups of this many names, which never end.
async fn hang(resolver: &Resolver, owner: &Arc<OwnerLookups>, names: usize) {
    for name in 0..names {
        resolver.join(&Handle::current(), owner, &format!("{name}.hangs.example"), pending());
        yield_now().await;
    }
}

/// A lookup that takes some time.
async fn after(time: Duration) -> io::Result<Vec<IpAddr>> {
    sleep(time).await;
    Ok(vec![ADDRESS])
}

/// Resolves a name whose lookup ends at once.
async fn resolve(resolver: &Resolver, owner: &Arc<OwnerLookups>, host: &str) -> Result<Vec<IpAddr>, Error> {
    let deadline = Instant::now() + DNS_MAX;
    resolver.resolve_by(&Handle::current(), owner, host, deadline, ready(Ok(vec![ADDRESS]))).await
}

fn owners(count: usize) -> Vec<Arc<OwnerLookups>> {
    std::iter::repeat_with(Arc::default).take(count).collect()
}

fn no_place(host: &str) -> Result<Vec<IpAddr>, Error> {
    Err(Error::TooManyLookups { host: host.to_owned() })
}

#[tokio::test(start_paused = true)]
async fn an_owner_has_a_place_at_once_while_all_lookups_of_a_hundred_other_owners_hang() {
    let resolver = Resolver::default();
    let hanging = owners(100);
    for owner in &hanging {
        hang(&resolver, owner, OWNER_FURTHER_MAX + 1).await;
    }
    assert_eq!(resolver.own.all.available_permits(), OWN_MAX - hanging.len());
    assert_eq!(resolver.further.all.available_permits(), 0);
    let (other, started) = (Arc::default(), Instant::now());
    for host in ["a.example", "b.example", "a.example"] {
        assert_eq!(resolve(&resolver, &other, host).await, Ok(vec![ADDRESS]));
    }
    assert_eq!(started.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn slow_owners_leave_half_of_the_places_and_without_a_place_a_lookup_fails_at_once() {
    let resolver = Resolver::default();
    let (slow, other) = (owners(OWN_MAX), Arc::default());
    for owner in &slow {
        resolver.join(&Handle::current(), owner, "slow.example", after(2 * SLOW_MIN));
        yield_now().await;
    }
    let started = Instant::now();
    assert_eq!(resolve(&resolver, &other, "a.example").await, no_place("a.example"));
    assert_eq!(started.elapsed(), Duration::ZERO);
    sleep(3 * SLOW_MIN).await;
    assert_eq!(resolver.own.all.available_permits(), OWN_MAX);
    for owner in &slow {
        hang(&resolver, owner, 1).await;
    }
    assert_eq!(resolver.own.all.available_permits(), OWN_MAX / 2);
    assert_eq!(resolver.further.all.available_permits(), FURTHER_MAX / 2);
    let started = Instant::now();
    assert_eq!(resolve(&resolver, &other, "a.example").await, Ok(vec![ADDRESS]));
    assert_eq!(started.elapsed(), Duration::ZERO);
    assert_eq!(resolve(&resolver, slow.last().unwrap(), "b.example").await, no_place("b.example"));
}

#[tokio::test(start_paused = true)]
async fn calls_for_the_same_name_share_a_lookup_which_continues_without_its_first_caller() {
    let (resolver, owner, io) = (Resolver::default(), Arc::default(), Handle::current());
    let deadline = Instant::now() + DNS_MAX * 9;
    let first = resolver.resolve_by(&io, &owner, "a.example", deadline, after(DNS_MAX / 2 + SLOW_MIN));
    assert!(timeout(DNS_MAX / 2, first).await.is_err());
    assert_eq!(resolver.own.all.available_permits(), OWN_MAX - 1);
    // A lookup of its own would not end.
    let found = resolver.resolve_by(&io, &owner, "a.example", deadline, pending()).await;
    assert_eq!(found, Ok(vec![ADDRESS]));
    assert_eq!(resolver.own.all.available_permits(), OWN_MAX);
    // The result is not used again.
    let gone = ready(Err(io::Error::other("no such host")));
    let found = resolver.resolve_by(&io, &owner, "a.example", deadline, gone).await;
    assert_eq!(found, Err(Error::Dns { host: "a.example".into(), message: "no such host".into() }));
}

#[tokio::test(start_paused = true)]
async fn a_lookup_that_hangs_is_not_shared_for_longer_than_a_call_waits() {
    let (resolver, owner, io) = (Resolver::default(), Arc::default(), Handle::current());
    let deadline = Instant::now() + DNS_MAX * 9;
    let found = resolver.resolve_by(&io, &owner, "a.example", deadline, pending()).await;
    assert_eq!(found, Err(Error::DnsTimeout { host: "a.example".into(), after: DNS_MAX }));
    let found = resolver.resolve_by(&io, &owner, "a.example", deadline, after(SLOW_MIN / 2)).await;
    assert_eq!(found, Ok(vec![ADDRESS]));
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_a_lookup_is_no_time_out_of_the_name_and_ends_at_the_deadline() {
    let (resolver, owner) = (Resolver::default(), Arc::default());
    hang(&resolver, &owner, OWNER_FURTHER_MAX + 1).await;
    for (host, time, limit) in [("a.example", DNS_MAX * 9, DNS_MAX), ("b.example", DNS_MAX / 5, DNS_MAX / 5)] {
        let started = Instant::now();
        let found = resolver.resolve_by(&Handle::current(), &owner, host, started + time, pending()).await;
        assert_eq!(found, no_place(host));
        assert!(!found.unwrap_err().is_timeout());
        assert!(started.elapsed() >= limit && started.elapsed() < limit * 2, "{:?}", started.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn the_lookups_of_an_owner_that_wait_are_bounded() {
    let (resolver, owner) = (Resolver::default(), Arc::default());
    hang(&resolver, &owner, CALLS_MAX).await;
    let started = Instant::now();
    assert_eq!(resolve(&resolver, &owner, "a.example").await, no_place("a.example"));
    assert_eq!(started.elapsed(), Duration::ZERO);
    // The lookups that wait end after a while, although no call waits for them.
    sleep(DNS_MAX * 2).await;
    assert_eq!(owner.lock().lookups.len(), OWNER_FURTHER_MAX + 1);
}
