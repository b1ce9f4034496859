//! Log lines of a function: `evoke logs` shows them, with the delivery they belong to.
//!
//! ```no_run
//! # extern crate evoke_sdk as evoke;
//! # let (customer, total) = ("ada", 3);
//! evoke::log::info!("{customer} pays {total}");
//! ```

pub use crate::bindings::wasi::logging::logging::Level;
#[doc(inline)]
pub use crate::{
    __log_critical as critical, __log_debug as debug, __log_error as error, __log_info as info, __log_trace as trace,
    __log_warn as warn,
};

/// One line at `level`; `context` groups lines. The macros give the module's path as context.
pub fn log(level: Level, context: &str, message: &str) {
    crate::bindings::wasi::logging::logging::log(level, context, message);
}

#[doc(hidden)]
#[macro_export]
macro_rules! __log {
    ($level:ident $($part:tt)+) => {
        $crate::log::log($crate::log::Level::$level, ::core::module_path!(), &::std::format!($($part)+))
    };
}

/// How values and control move within the function.
#[doc(hidden)]
#[macro_export]
macro_rules! __log_trace {
    ($($part:tt)+) => { $crate::__log!(Trace $($part)+) };
}

/// Of interest to who looks for a mistake.
#[doc(hidden)]
#[macro_export]
macro_rules! __log_debug {
    ($($part:tt)+) => { $crate::__log!(Debug $($part)+) };
}

/// Of interest to who watches the function.
#[doc(hidden)]
#[macro_export]
macro_rules! __log_info {
    ($($part:tt)+) => { $crate::__log!(Info $($part)+) };
}

/// Something is not as it should be; the function goes on.
#[doc(hidden)]
#[macro_export]
macro_rules! __log_warn {
    ($($part:tt)+) => { $crate::__log!(Warn $($part)+) };
}

/// Something failed.
#[doc(hidden)]
#[macro_export]
macro_rules! __log_error {
    ($($part:tt)+) => { $crate::__log!(Error $($part)+) };
}

/// Nothing works any more.
#[doc(hidden)]
#[macro_export]
macro_rules! __log_critical {
    ($($part:tt)+) => { $crate::__log!(Critical $($part)+) };
}
