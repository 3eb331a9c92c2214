//! Longer explanations than an item's documentation has room for. Their code is compiled and run.

#[doc = include_str!("guide/bad_network.md")]
pub mod bad_network {}

#[doc = include_str!("guide/production.md")]
pub mod production {}

#[cfg(feature = "rules")]
#[doc = include_str!("guide/rules.md")]
pub mod rules {}
