//! The `#[evoke::function]` attribute, re-exported by the crate `evoke-sdk`.

mod expand;

use proc_macro::TokenStream;

/// Exports a Rust function as the component's `handle`, which Evoke calls once per attempt.
///
/// The function takes any of these parameters, in any order, and returns `Result<(), evoke::Failure>`, `Result<(), E>`
/// with an error that converts into a `Failure`, or nothing:
///
/// | parameter | value |
/// |---|---|
/// | `evoke::Event` | the event |
/// | `evoke::Json<T>` | the event's data as JSON; data that does not parse as `T` is rejected before the call |
/// | `evoke::FileEvent`, `evoke::TimerTick` | an event of a `files:` or `timer:` source |
/// | `evoke::Delivery` | the delivery: its id, the number of the attempt, the deadline |
///
/// ```ignore
/// #[evoke::function]
/// fn handle(order: Json<Order>, delivery: Delivery) -> Result<(), Failure> { … }
/// ```
///
/// Only one function of a crate can have this attribute. In `Cargo.toml`, the dependency on the SDK must have the name
/// `evoke`.
#[proc_macro_attribute]
pub fn function(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand::function(&arguments.into(), item.into()).unwrap_or_else(|error| error.to_compile_error()).into()
}
