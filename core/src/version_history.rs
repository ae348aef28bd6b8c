//! Version histories (R300–R318): per branch the list of (last event id, version), strictly increasing in both columns.

use std::{fmt, sync::Arc};

use antipode_proto::core as wire;

use crate::ids::{EventId, FailoverVersion};

/// One item: events after the previous item's up to and including `event` have `version` (R300).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Item {
    /// Last event of the span.
    pub event: EventId,
    /// Version of the span.
    pub version: FailoverVersion,
}

/// A list broke R300 or R303.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("version history items must strictly increase in event id and version: {next:?} after {last:?}")]
pub struct NotIncreasing {
    /// Item before.
    pub last: Item,
    /// Item that does not fit.
    pub next: Item,
}

/// Two branches of one run without a joint point (R307).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the version histories have no joint point")]
pub struct NoJointPoint;

/// The items of one branch. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct VersionHistory(Arc<[Item]>);
