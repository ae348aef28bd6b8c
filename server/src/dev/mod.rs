//! `antipode dev`: several regions in one process.
pub mod folder;
pub mod ports;
