//! What one crate of a node offers, in the shape in which another one wants it. No decisions here.

pub(crate) mod forwarded;
pub(crate) mod namespaces;
pub(crate) mod operations;
pub(crate) mod peers;
