//! A type for every id, version and position, each with a compact `Display`. Nothing here decides anything.

use std::{fmt, str::FromStr, sync::Arc};

use uuid::Uuid;

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub Uuid);

        impl $name {
            /// From 16 random bytes (RFC 9562 version 4 bits are set here).
            #[must_use]
            pub fn from_random(bytes: [u8; 16]) -> Self {
                Self(uuid::Builder::from_random_bytes(bytes).into_uuid())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map(Self)
            }
        }
    };
}

uuid_id! {
    /// Id of a namespace; its name is a register (F4).
    NamespaceId
}
uuid_id! {
    /// Id of a run.
    RunId
}

/// The user's id of a workflow, unique among the open runs of a namespace (V06).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkflowId(pub Arc<str>);

impl WorkflowId {
    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for WorkflowId {
    fn from(text: &str) -> Self {
        Self(Arc::from(text))
    }
}

impl From<String> for WorkflowId {
    fn from(text: String) -> Self {
        Self(Arc::from(text))
    }
}

impl fmt::Display for WorkflowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for WorkflowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// Namespace and workflow id: the unit of order on a link and of the current record (B6, B8).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkflowKey {
    /// Namespace.
    pub namespace: NamespaceId,
    /// Workflow id.
    pub workflow: WorkflowId,
}

impl WorkflowKey {
    /// The key of one run of this workflow id.
    #[must_use]
    pub fn run(&self, run: RunId) -> RunKey {
        RunKey { namespace: self.namespace, workflow: self.workflow.clone(), run }
    }
}

/// One run.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunKey {
    /// Namespace.
    pub namespace: NamespaceId,
    /// Workflow id.
    pub workflow: WorkflowId,
    /// Run id.
    pub run: RunId,
}

impl RunKey {
    /// Without the run.
    #[must_use]
    pub fn workflow_key(&self) -> WorkflowKey {
        WorkflowKey { namespace: self.namespace, workflow: self.workflow.clone() }
    }
}

impl fmt::Display for RunKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.workflow, self.run)
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty), $format:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, $format, self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, $format, self.0)
            }
        }
    };
}

number! {
    /// Id of an event on its branch, from 1 without gap (V01). 0 is "none" (R100).
    EventId(i64), "#{}"
}
number! {
    /// Failover version (R100–R112). 0 is "local, nobody's".
    FailoverVersion(i64), "@{}"
}
number! {
    /// A region's number everywhere in storage and transport: its initial version (R109).
    RegionId(u32), "r{}"
}
number! {
    /// A shard of one region, from 1. Shard counts of two regions may differ in any way (I06).
    ShardId(u32), "s{}"
}
number! {
    /// Position in the log of one shard (C1), from 1; 0 is "before the first".
    Sequence(u64), "={}"
}
number! {
    /// Fencing token of a shard; grows at each acquisition.
    RangeId(u64), "range {}"
}
number! {
    /// Identity of one life of a store (E2).
    Incarnation(u64), "i{:x}"
}

impl EventId {
    /// The id after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl Sequence {
    /// The position after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Position of a write at its writer; comparable where failover versions are equal, because equal versions mean one
/// region and one shard (B7).
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Range id of the shard at the writer.
    pub epoch: u64,
    /// Log sequence of the shard at the writer.
    pub sequence: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.sequence)
    }
}

/// Order of the runs of one workflow id: the greatest owns the id, everywhere (B7). Keys only grow.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunOrder {
    /// Last write version.
    pub version: FailoverVersion,
    /// Place of the last event batch.
    pub place: Place,
}

/// Nanoseconds since the Unix epoch.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Seconds and nanoseconds, as the API has them.
    #[must_use]
    pub fn to_proto(self) -> prost_types::Timestamp {
        prost_types::Timestamp {
            seconds: self.0.div_euclid(1_000_000_000),
            nanos: i32::try_from(self.0.rem_euclid(1_000_000_000)).unwrap_or(0),
        }
    }

    /// From the API's form; saturates.
    #[must_use]
    pub fn from_proto(time: &prost_types::Timestamp) -> Self {
        Self(time.seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(time.nanos)))
    }

    /// This time and so much later; saturates.
    #[must_use]
    pub fn plus(self, duration: Nanos) -> Self {
        Self(self.0.saturating_add(duration.0))
    }
}

/// A length of time in nanoseconds.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nanos(pub i64);

impl Nanos {
    /// Whole seconds.
    #[must_use]
    pub const fn seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1_000_000_000))
    }

    /// Milliseconds.
    #[must_use]
    pub const fn millis(millis: i64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    /// From the API's form; saturates.
    #[must_use]
    pub fn from_proto(duration: &prost_types::Duration) -> Self {
        Self(duration.seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(duration.nanos)))
    }

    /// As the API has it.
    #[must_use]
    pub fn to_proto(self) -> prost_types::Duration {
        prost_types::Duration {
            seconds: self.0 / 1_000_000_000,
            nanos: i32::try_from(self.0 % 1_000_000_000).unwrap_or(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_count_and_tell_their_text() {
        assert_eq!(EventId(4).next(), EventId(5));
        assert_eq!(Sequence(4).next(), Sequence(5));
        assert_eq!(WorkflowId::from("order-7").as_str(), "order-7");
    }
}
