//! Takes the one kind of reply that an operation has; any other is a defect of this node, reported as such.

/// Matches a reply of a shard, or fails with INTERNAL naming the kind that was expected.
macro_rules! expect_reply {
    ($reply:expr, $pattern:pat => $value:expr) => {
        match $reply {
            $pattern => Ok($value),
            _ => Err($crate::route::Failure::from($crate::errors::unexpected(stringify!($pattern)))),
        }
    };
}

pub(crate) use expect_reply;
