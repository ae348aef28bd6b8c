//! What the tests of the whole project share: the RPCs of the public API by name. The tests of the house stand in
//! `tests/house`, those of the running cluster in `e2e` (Python, because the clients that it must serve are Python and the
//! `temporal` command line).

/// Names of the RPCs, from the descriptor set of the public API.
pub mod rpcs {
    include!(concat!(env!("OUT_DIR"), "/rpcs.rs"));
}
