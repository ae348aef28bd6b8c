//! Registers: state of a run that has no event (A1, A5, A6). Each hangs on an event of the run's *tree* by (id, version) and the
//! chain value of the batch that holds the event, because two lives of a store can give one pair to two events (G2). It merges by a total order, so that any order of arrival gives the same bytes. Which of them count is a pure function of
//! the current branch and is decided by the run (A7), never here.

use std::{borrow::Cow, cmp::Ordering, collections::BTreeMap, fmt};

use antipode_proto::core as wire;
use bytes::Bytes;
use prost::Message;

use crate::{
    chain::ChainValue,
    ids::{EventId, FailoverVersion},
};

/// Facts with different owners have different kinds (A6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Kind {
    /// [`wire::ActivityAttempt`]: attempt, start, failure.
    ActivityAttempt = 1,
    /// [`wire::ActivityHeartbeat`].
    ActivityHeartbeat = 2,
    /// [`wire::WorkflowTaskAttempt`]: a transient workflow task, which has no events of its own.
    WorkflowTaskAttempt = 3,
    /// Options, pause, reset of an activity, with the stamp that they raise.
    ActivityOptions = 4,
}

impl Kind {
    /// From the stored number.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            1 => Self::ActivityAttempt,
            2 => Self::ActivityHeartbeat,
            3 => Self::WorkflowTaskAttempt,
            4 => Self::ActivityOptions,
            _ => return None,
        })
    }
}

/// Merges registers; grows with each change. Neither Temporal's stamp nor the start version of an attempt (A5).
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Order {
    /// Version under which it was written.
    pub version: FailoverVersion,
    /// Count of changes under that version.
    pub count: u64,
}

impl Order {
    /// The order of a change made now under `version`: above this one, if the version has not fallen.
    #[must_use]
    pub fn next(self, version: FailoverVersion) -> Self {
        match version.cmp(&self.version) {
            Ordering::Equal => Self { version, count: self.count + 1 },
            Ordering::Greater | Ordering::Less => Self { version, count: 1 },
        }
    }
}

/// The event a register hangs on: the same id may exist on several branches (A1), and with the same version in two lives of the
/// store that wrote it (G2).
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Anchor {
    /// Event.
    pub event: EventId,
    /// Its version.
    pub version: FailoverVersion,
    /// Chain value of its batch. [`ChainValue::NONE`]: a version wrote it that named an event by the pair alone.
    pub chain: ChainValue,
}

impl Anchor {
    /// Stands for the chain value of a batch that is being written, which has none yet. Never stored and never sent.
    pub(crate) const DRAFTED: ChainValue = ChainValue([0xff; 16]);

    /// The same by the pair alone.
    #[must_use]
    pub fn bare(self) -> Self {
        Self { chain: ChainValue::NONE, ..self }
    }
}

/// One register.
#[derive(Clone, PartialEq, Eq)]
pub struct Register {
    /// Event it hangs on.
    pub anchor: Anchor,
    /// What it says.
    pub kind: Kind,
    /// Order of the last change.
    pub order: Order,
    /// Newest order of another version that the writer had seen: what the value replaces knowingly (A6).
    pub base: Order,
    /// Encoded message, by kind.
    pub value: Bytes,
}

/// Why stored or received bytes are not a register.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A kind that this server does not know.
    #[error("register field kind: {0} is unknown")]
    Kind(u32),
    /// An anchor that is no event, or a negative version.
    #[error("register field {0} is out of range")]
    Range(&'static str),
    /// The value does not decode.
    #[error("register field value does not decode as {kind:?}: {why}")]
    Value {
        /// Expected message.
        kind: Kind,
        /// The decoder's words.
        why: String,
    },
}

/// What a merge did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Merged {
    /// The stored value is another one now.
    pub changed: bool,
    /// Two different values of equal order: one owner wrote twice, as after a restore. Alarm (A6, G2).
    pub fork: bool,
    /// The value that lost to one whose writer had not seen it: for the rollback record (A6).
    pub lost: Option<Register>,
}

impl Register {
    /// Attempt state of an activity.
    #[must_use]
    pub fn activity_attempt(anchor: Anchor, order: Order, value: &wire::ActivityAttempt) -> Self {
        let value = Bytes::from(value.encode_to_vec());
        Self { anchor, kind: Kind::ActivityAttempt, order, base: Order::default(), value }
    }

    /// Last heartbeat of an activity.
    #[must_use]
    pub fn heartbeat(anchor: Anchor, order: Order, value: &wire::ActivityHeartbeat) -> Self {
        let value = Bytes::from(value.encode_to_vec());
        Self { anchor, kind: Kind::ActivityHeartbeat, order, base: Order::default(), value }
    }

    /// A transient workflow task.
    #[must_use]
    pub fn workflow_task_attempt(anchor: Anchor, order: Order, value: &wire::WorkflowTaskAttempt) -> Self {
        let value = Bytes::from(value.encode_to_vec());
        Self { anchor, kind: Kind::WorkflowTaskAttempt, order, base: Order::default(), value }
    }

    /// The value as a message.
    ///
    /// # Errors
    /// [`Malformed::Value`].
    pub fn decode<M: Message + Default>(&self) -> Result<M, Malformed> {
        M::decode(&*self.value).map_err(|error| Malformed::Value { kind: self.kind, why: error.to_string() })
    }

    /// Wire form.
    #[must_use]
    pub fn to_wire(&self) -> wire::Register {
        wire::Register {
            anchor_event_id: self.anchor.event.0,
            anchor_version: self.anchor.version.0,
            kind: self.kind as u32,
            order_version: self.order.version.0,
            order_count: self.order.count,
            value: self.value.clone(),
            base_version: self.base.version.0,
            base_count: self.base.count,
            anchor_chain: self.anchor.chain.to_bytes(),
        }
    }

    /// From the wire form.
    ///
    /// # Errors
    /// [`Malformed`] names the field.
    pub fn from_wire(stored: &wire::Register) -> Result<Self, Malformed> {
        let kind = Kind::from_number(stored.kind).ok_or(Malformed::Kind(stored.kind))?;
        for (field, value, least) in [
            ("anchor_event_id", stored.anchor_event_id, 1),
            ("anchor_version", stored.anchor_version, 0),
            ("order_version", stored.order_version, 0),
            ("base_version", stored.base_version, 0),
        ] {
            if value < least {
                return Err(Malformed::Range(field));
            }
        }
        let anchor = Anchor {
            event: EventId(stored.anchor_event_id),
            version: FailoverVersion(stored.anchor_version),
            chain: ChainValue::from_bytes(&stored.anchor_chain).ok_or(Malformed::Range("anchor_chain"))?,
        };
        let register = Self {
            anchor,
            kind,
            order: Order { version: FailoverVersion(stored.order_version), count: stored.order_count },
            base: Order { version: FailoverVersion(stored.base_version), count: stored.base_count },
            value: stored.value.clone(),
        };
        match kind {
            Kind::ActivityAttempt => register.decode::<wire::ActivityAttempt>().map(drop)?,
            Kind::ActivityHeartbeat => register.decode::<wire::ActivityHeartbeat>().map(drop)?,
            Kind::WorkflowTaskAttempt => {
                register.decode::<wire::WorkflowTaskAttempt>().map(drop)?;
            }
            Kind::ActivityOptions => register.decode::<wire::ActivityCancel>().map(drop)?,
        }
        Ok(register)
    }

    /// Joins another value of the same register into this one.
    fn merge(&mut self, other: Self) -> Merged {
        if *self == other {
            return Merged::default();
        }
        let (mine, theirs) = (Rank::of(self), Rank::of(&other));
        let comparison = mine.cmp_total(&theirs, self, &other);
        // The attempt itself is joined, so it is no evidence of a fork.
        let fork = mine.order == theirs.order && mine.bare_value != theirs.bare_value;
        // A6: within one stamp generation the attempt never falls, whoever wins.
        let attempt = (mine.stamp == theirs.stamp).then(|| mine.attempt.max(theirs.attempt));
        let before = self.clone();
        let mut lost = other;
        if comparison == Ordering::Less {
            std::mem::swap(self, &mut lost);
        }
        if let Some(attempt) = attempt {
            self.raise_attempt(attempt);
        }
        // A value that the winner's writer had seen was replaced, not lost.
        let unseen = lost.order.version != self.order.version && lost.order > self.base;
        let lost = (unseen || fork).then_some(lost);
        Merged { changed: *self != before, fork, lost }
    }

    fn raise_attempt(&mut self, attempt: i32) {
        if self.kind != Kind::ActivityAttempt {
            return;
        }
        // Bytes that do not decode never come from the wire; they merge as they are.
        if let Ok(mut value) = self.decode::<wire::ActivityAttempt>()
            && value.attempt < attempt
        {
            value.attempt = attempt;
            self.value = Bytes::from(value.encode_to_vec());
        }
    }
}

/// What decides between two values: the stamp generation first, because a later one invalidates every task and attempt of an
/// earlier one (A5) and because only then is the join of attempts associative; then the order; then the hash (A6).
struct Rank {
    stamp: u32,
    order: Order,
    attempt: i32,
    /// The value without the attempt, which is joined separately.
    bare_value: Bytes,
}

impl Rank {
    fn of(register: &Register) -> Self {
        let order = register.order;
        if register.kind == Kind::ActivityAttempt
            && let Ok(mut value) = register.decode::<wire::ActivityAttempt>()
        {
            let (stamp, attempt) = (value.stamp, value.attempt);
            value.attempt = 0;
            return Self { stamp, order, attempt, bare_value: Bytes::from(value.encode_to_vec()) };
        }
        Self { stamp: 0, order, attempt: 0, bare_value: register.value.clone() }
    }

    fn cmp_total(&self, other: &Self, mine: &Register, theirs: &Register) -> Ordering {
        (self.stamp, self.order).cmp(&(other.stamp, other.order)).then_with(|| {
            if self.bare_value == other.bare_value {
                // Equal but for the attempt, the base, or the encoding. The base goes first: the attempt is joined, so
                // what is decided by it would depend on which values were joined before.
                let encoding = || mine.value.cmp(&theirs.value);
                return mine
                    .base
                    .cmp(&theirs.base)
                    .then(self.attempt.cmp(&other.attempt))
                    .then_with(encoding);
            }
            let hash = |bytes: &Bytes| *blake3::hash(bytes).as_bytes();
            hash(&self.bare_value).cmp(&hash(&other.bare_value))
        })
    }
}

impl fmt::Debug for Register {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (anchor, order) = (self.anchor, self.order);
        write!(f, "{:?} of {}{} {}.{}", self.kind, anchor.event.0, anchor.version, order.version, order.count)
    }
}

/// The registers of a run, live and dormant, keyed by (anchor, kind). Nothing here removes one because of a branch (A1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegisterSet(BTreeMap<(Anchor, Kind), Register>);

impl RegisterSet {
    /// The set of these registers, merged.
    ///
    /// # Errors
    /// [`Malformed`] names the field of the first that is bad.
    pub fn from_wire(stored: &[wire::Register]) -> Result<Self, Malformed> {
        let mut set = Self::default();
        for register in stored {
            set.merge(Register::from_wire(register)?);
        }
        Ok(set)
    }

    /// Wire form, in order of (anchor, kind).
    #[must_use]
    pub fn to_wire(&self) -> Vec<wire::Register> {
        self.0.values().map(Register::to_wire).collect()
    }

    /// What is known of an event: its register, joined with one of an older version, which names the event by the pair alone.
    #[must_use]
    pub fn at(&self, anchor: Anchor, kind: Kind) -> Option<Cow<'_, Register>> {
        let bare = if anchor == anchor.bare() { None } else { self.get(anchor.bare(), kind) };
        match (self.get(anchor, kind), bare) {
            (Some(register), Some(bare)) => {
                let mut joined = register.clone();
                joined.merge(bare.clone());
                Some(Cow::Owned(Register { anchor, ..joined }))
            }
            (one, other) => one.or(other).map(Cow::Borrowed),
        }
    }

    /// The batch that was being written from this event on has got its chain value.
    pub(crate) fn sealed(&mut self, first: EventId, chain: ChainValue) {
        let from = Anchor { event: first, ..Anchor::default() };
        let drafted = self.0.range((from, Kind::ActivityAttempt)..);
        let drafted = drafted.filter(|((anchor, _), _)| anchor.chain == Anchor::DRAFTED);
        let drafted: Vec<_> = drafted.map(|(key, _)| *key).collect();
        for key in drafted {
            if let Some(register) = self.0.remove(&key) {
                self.merge(Register { anchor: Anchor { chain, ..key.0 }, ..register });
            }
        }
    }

    /// The set as a version has it that names an event by the pair alone.
    #[must_use]
    pub fn by_pair(&self) -> Self {
        let mut set = Self::default();
        for register in self.iter() {
            set.merge(Register { anchor: register.anchor.bare(), ..register.clone() });
        }
        set
    }

    /// Registers of events that share their pair with an event of another life of the store (G2).
    pub fn of_several_lives(&self) -> impl Iterator<Item = &Register> {
        self.iter().filter(|register| {
            let pair = register.anchor.bare();
            let others = self.0.range((pair, Kind::ActivityAttempt)..).map(|((anchor, _), _)| *anchor);
            let of_pair = others.take_while(|anchor| anchor.bare() == pair);
            register.anchor != pair
                && of_pair.into_iter().any(|anchor| anchor != pair && anchor != register.anchor)
        })
    }

    /// One register.
    #[must_use]
    pub fn get(&self, anchor: Anchor, kind: Kind) -> Option<&Register> {
        self.0.get(&(anchor, kind))
    }

    /// Merges one register in.
    pub fn merge(&mut self, register: Register) -> Merged {
        match self.0.get_mut(&(register.anchor, register.kind)) {
            Some(stored) => stored.merge(register),
            None => {
                self.0.insert((register.anchor, register.kind), register);
                Merged { changed: true, ..Merged::default() }
            }
        }
    }

    /// All registers in order of (anchor, kind).
    pub fn iter(&self) -> impl Iterator<Item = &Register> {
        self.0.values()
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// None at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Keeps what `keep` says. For registers that can never be live again on any branch, such as those of a deleted branch
    /// (A1): the caller must decide from the tree, not from the order of arrival.
    pub fn retain(&mut self, mut keep: impl FnMut(&Register) -> bool) {
        self.0.retain(|_, register| keep(register));
    }
}

#[cfg(test)]
#[path = "register_tests.rs"]
mod tests;
