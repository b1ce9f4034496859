//! The tests are in the folder `tests`.
