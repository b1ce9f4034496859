//! The web console in a browser, on the real program and real functions.

mod incident;
mod large;
mod rates;
mod security;
mod shots;
mod support;
mod views;
