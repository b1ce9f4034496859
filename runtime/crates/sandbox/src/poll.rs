//! `wasi:io/poll`, with a limit on the pollables of one call.

use wasmtime::component::{HasData, Linker, Resource, ResourceTable};
use wasmtime_wasi::p2::DynPollable;
use wasmtime_wasi::p2::bindings::io::poll::{self, Host, HostPollable};

/// Limit on the pollables of one call. A guest cannot hold more handles, but its list can name a handle many times, and
/// the host keeps a record of each entry while it waits.
const POLLABLES_MAX: usize = 1_000;

/// The host's side of `wasi:io/poll`.
pub(super) struct Pollables<'a>(pub(super) &'a mut ResourceTable);

/// Tells the generated bindings that `wasi:io/poll` works on [`Pollables`].
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
            wasmtime::bail!("polled {} pollables in one call; the limit is {POLLABLES_MAX}", pollables.len());
        }
        Host::poll(&mut *self.0, pollables).await
    }
}

impl HostPollable for Pollables<'_> {
    async fn block(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<()> {
        HostPollable::block(&mut *self.0, pollable).await
    }

    async fn ready(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<bool> {
        HostPollable::ready(&mut *self.0, pollable).await
    }

    fn drop(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<()> {
        HostPollable::drop(&mut *self.0, pollable)
    }
}
