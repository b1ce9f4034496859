//! Ends a compilation whose result is no longer needed, so that a shutdown does not wait for a slow component.

use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd, BorrowedFd};

/// Dropping the guard cancels the compilation.
pub(crate) struct CancelGuard {
    _writer: PipeWriter,
}

/// Becomes readable when the guard is dropped.
pub(crate) struct Cancelled(PipeReader);

/// Returns a guard, and a descriptor that becomes readable when the guard is dropped. Fails if the process has no free
/// descriptors.
pub(crate) fn cancellation() -> io::Result<(CancelGuard, Cancelled)> {
    let (reader, writer) = io::pipe()?;
    Ok((CancelGuard { _writer: writer }, Cancelled(reader)))
}

impl AsFd for Cancelled {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
