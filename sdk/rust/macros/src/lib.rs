//! The `#[evoke::function]` attribute; used through the crate `evoke-sdk`.

mod expand;

use proc_macro::TokenStream;

/// Makes a Rust function the component's `handle`.
///
/// It takes any of these, in any order, and returns `Result<(), evoke::Failure>`, `Result<(), E>` of an error
/// that converts into a `Failure`, or nothing:
///
/// | parameter | is |
/// |---|---|
/// | `evoke::Event` | the event |
/// | `evoke::Json<T>` | its data, as JSON; data that is no `T` is rejected before the function runs |
/// | `evoke::FileEvent`, `evoke::TimerTick` | an event of a `files:` or `timer:` source |
/// | `evoke::Delivery` | the delivery: its id, the number of the attempt, the deadline |
///
/// ```ignore
/// #[evoke::function]
/// fn handle(order: Json<Order>, delivery: Delivery) -> Result<(), Failure> { … }
/// ```
///
/// Only one function of a crate can carry it, and the SDK has to be named `evoke` in `Cargo.toml`.
#[proc_macro_attribute]
pub fn function(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand::function(&arguments.into(), item.into()).unwrap_or_else(|error| error.to_compile_error()).into()
}
