//! (to be written)
pub mod api;
