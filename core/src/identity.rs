//! Identities of external events: the client's own key where it has one, else minted at acceptance (B3). "Already
//! applied" is the set of identities on the current branch and its chain; there are no marks (A3).

use std::fmt;

use antipode_proto::core as wire;

use crate::ids::{RegionId, RunId};

/// What an identity's key is scoped by, together with the chain (B3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum ExternalKind {
    /// WorkflowExecutionSignaled.
    Signal = 1,
    /// WorkflowExecutionCancelRequested.
    Cancel = 2,
    /// WorkflowExecutionTerminated by a client.
    Terminate = 3,
    /// WorkflowExecutionUpdateAdmitted or Accepted.
    Update = 4,
    /// WorkflowExecutionOptionsUpdated.
    Options = 5,
    /// The start of a run: kept to answer a repeated request; never re-applied.
    Start = 6,
    /// Outcome of an activity that arrived while a workflow task was started; region-internal, never re-applied.
    ActivityOutcome = 100,
}

impl ExternalKind {
    /// Whether an event of this kind is carried over from a branch that lost (R500).
    #[must_use]
    pub fn is_reapplied(self) -> bool {
        !matches!(self, Self::Start | Self::ActivityOutcome)
    }

    /// From the stored number.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            1 => Self::Signal,
            2 => Self::Cancel,
            3 => Self::Terminate,
            4 => Self::Update,
            5 => Self::Options,
            6 => Self::Start,
            100 => Self::ActivityOutcome,
            _ => return None,
        })
    }
}

/// Identity of an external event within its chain of runs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// Scope of the key.
    pub kind: ExternalKind,
    /// Key, unique by construction.
    pub key: Key,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.key {
            Key::Client(key) => write!(f, "{:?} {key:?}", self.kind),
            Key::Minted { region, epoch, sequence, ordinal, .. } => {
                write!(f, "{:?} of {region} at {epoch}.{sequence}.{ordinal}", self.kind)
            }
        }
    }
}

/// Key of an identity.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// Request id or update id of the client.
    Client(String),
    /// Made at acceptance: origin region, run, shard epoch, sequence, ordinal in the transition.
    Minted {
        /// Accepting region.
        region: RegionId,
        /// Run that took it.
        run: RunId,
        /// Range id of the accepting shard.
        epoch: u64,
        /// Log sequence of the accepting transition.
        sequence: u64,
        /// Position within that transition.
        ordinal: u32,
    },
}

impl Identity {
    /// With the client's key.
    #[must_use]
    pub fn client(kind: ExternalKind, key: impl Into<String>) -> Self {
        Self { kind, key: Key::Client(key.into()) }
    }

    /// Stored and wire form.
    #[must_use]
    pub fn to_wire(&self) -> wire::Identity {
        let key = match &self.key {
            Key::Client(key) => wire::identity::Key::Client(key.clone()),
            Key::Minted { region, run, epoch, sequence, ordinal } => {
                wire::identity::Key::Minted(wire::Minted {
                    region: region.0,
                    run_id: run.to_string(),
                    epoch: *epoch,
                    sequence: *sequence,
                    ordinal: *ordinal,
                })
            }
        };
        wire::Identity { kind: self.kind as u32, key: Some(key) }
    }

    /// From the stored form; none when the kind is unknown or the key is missing or malformed.
    #[must_use]
    pub fn from_wire(stored: &wire::Identity) -> Option<Self> {
        let kind = ExternalKind::from_number(stored.kind)?;
        let key = match stored.key.as_ref()? {
            wire::identity::Key::Client(key) => Key::Client(key.clone()),
            wire::identity::Key::Minted(minted) => Key::Minted {
                region: RegionId(minted.region),
                run: minted.run_id.parse().ok()?,
                epoch: minted.epoch,
                sequence: minted.sequence,
                ordinal: minted.ordinal,
            },
        };
        Some(Self { kind, key })
    }
}
