//! Log lines of a function. `evoke logs` shows them with their delivery.
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

/// Logs one line at `level`. `context` groups lines; the macros use the module path.
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

/// Logs a step of the function in detail.
#[doc(hidden)]
#[macro_export]
macro_rules! __log_trace {
    ($($part:tt)+) => { $crate::__log!(Trace $($part)+) };
}

/// Logs details for debugging.
#[doc(hidden)]
#[macro_export]
macro_rules! __log_debug {
    ($($part:tt)+) => { $crate::__log!(Debug $($part)+) };
}

/// Logs normal operation.
#[doc(hidden)]
#[macro_export]
macro_rules! __log_info {
    ($($part:tt)+) => { $crate::__log!(Info $($part)+) };
}

/// Logs a problem after which the function continues.
#[doc(hidden)]
#[macro_export]
macro_rules! __log_warn {
    ($($part:tt)+) => { $crate::__log!(Warn $($part)+) };
}

/// Logs a failure.
#[doc(hidden)]
#[macro_export]
macro_rules! __log_error {
    ($($part:tt)+) => { $crate::__log!(Error $($part)+) };
}

/// Logs a failure after which the function cannot continue.
#[doc(hidden)]
#[macro_export]
macro_rules! __log_critical {
    ($($part:tt)+) => { $crate::__log!(Critical $($part)+) };
}
