//! `wasi:io/poll`: a guest waits for pollables, which are timers, streams and responses. The number of pollables in one
//! call is limited. If a guest waits for several pollables, timing outside of the guest decides which of them are ready
//! first. Therefore a recording of an attempt contains the results of polls. In a test that plays the recording back,
//! polls return these results.

use wasmtime::component::{HasData, Linker, Resource, ResourceTable};
use wasmtime_wasi::p2::DynPollable;
use wasmtime_wasi::p2::bindings::io::poll::{self, Host, HostPollable};

use super::outside::Outside;

/// Limit on the pollables in one call. The limit on handles does not bound this number, because a list can contain one
/// handle many times, and the host needs memory for each entry while it waits.
const POLLABLES_MAX: usize = 1_000;

/// The host's side of `wasi:io/poll`.
pub(super) struct Pollables<'a> {
    pub(super) table: &'a mut ResourceTable,
    pub(super) outside: &'a Outside,
}

/// Connects the generated bindings of `wasi:io/poll` to [`Pollables`].
struct PollHost;

impl HasData for PollHost {
    type Data<'a> = Pollables<'a>;
}

pub(super) fn add_to_linker<T: Send + 'static>(
    linker: &mut Linker<T>,
    view: fn(&mut T) -> Pollables<'_>,
) -> wasmtime::Result<()> {
    poll::add_to_linker::<T, PollHost>(linker, view)
}

impl Host for Pollables<'_> {
    async fn poll(&mut self, pollables: Vec<Resource<DynPollable>>) -> wasmtime::Result<Vec<u32>> {
        if pollables.len() > POLLABLES_MAX {
            wasmtime::bail!(
                "waited for {} timers, streams and responses in one call of `wasi:io/poll`; the limit is \
                 {POLLABLES_MAX}",
                pollables.len()
            );
        }
        // With one pollable, the result is always the same, so it is neither recorded nor taken from a recording.
        if pollables.len() <= 1 {
            return Host::poll(self.table, pollables).await;
        }
        if let Some(ready) = self.outside.given_poll() {
            return self.wait_for(&pollables, ready).await;
        }
        let ready = Host::poll(self.table, pollables).await?;
        self.outside.record_poll(&ready);
        Ok(ready)
    }
}

impl Pollables<'_> {
    /// Waits until the pollables at all indexes in `ready` are ready, and returns `ready`, which is the result of a
    /// recorded poll.
    async fn wait_for(&mut self, pollables: &[Resource<DynPollable>], ready: Vec<u32>) -> wasmtime::Result<Vec<u32>> {
        for index in &ready {
            let pollable = usize::try_from(*index).ok().and_then(|index| pollables.get(index));
            let Some(pollable) = pollable else {
                wasmtime::bail!(
                    "the recorded `polls` of the test do not fit the function: a result contains index {index}, but \
                     the list that the function polls has length {}; record the attempt again, and make the test from \
                     the new recording (`evoke test --from`)",
                    pollables.len()
                )
            };
            HostPollable::block(self.table, Resource::new_borrow(pollable.rep())).await?;
        }
        Ok(ready)
    }
}

impl HostPollable for Pollables<'_> {
    async fn block(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<()> {
        HostPollable::block(self.table, pollable).await
    }

    async fn ready(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<bool> {
        if let Some(ready) = self.outside.given_poll() {
            return Ok(!self.wait_for(&[pollable], ready).await?.is_empty());
        }
        let is_ready = HostPollable::ready(self.table, pollable).await?;
        self.outside.record_poll(if is_ready { &[0] } else { &[] });
        Ok(is_ready)
    }

    fn drop(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<()> {
        HostPollable::drop(self.table, pollable)
    }
}
