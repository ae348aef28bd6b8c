//! The record as it is stored and sent. Encoding is canonical: everything is sorted and every register present, so equal
//! records are equal bytes (I08). Decoding checks and sorts, so that what a peer sends cannot make two forms of one value.

use antipode_proto::core as wire;
use bytes::Bytes;
use prost::Message;

use super::{Config, Durability, Entry, Failover, History, Info, Lww, Members, Phase, Record, Stamp};
use crate::ids::{FailoverVersion, Incarnation, RegionId, Timestamp};

/// Why bytes are not a namespace record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Not a message of this type.
    #[error("namespace record does not decode: {0}")]
    Decode(String),
    /// A field that no region writes.
    #[error("namespace record field {field} {why}")]
    Field {
        /// Which.
        field: &'static str,
        /// What is wrong.
        why: &'static str,
    },
}

fn field(field: &'static str, why: &'static str) -> Malformed {
    Malformed::Field { field, why }
}

impl Stamp {
    /// Wire form.
    #[must_use]
    pub fn to_wire(self) -> wire::Stamp {
        wire::Stamp { counter: self.counter, region: self.region.0 }
    }

    /// From the wire form.
    #[must_use]
    pub fn from_wire(stored: &wire::Stamp) -> Self {
        Self { counter: stored.counter, region: RegionId(stored.region) }
    }
}

/// A register without stamp was never written.
fn stamp(stored: Option<&wire::Stamp>) -> Stamp {
    stored.map(Stamp::from_wire).unwrap_or_default()
}

impl Record {
    /// Stored form; equal for equal records, in every region.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        Bytes::from(self.to_wire().encode_to_vec())
    }

    /// From the stored form.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        let stored =
            wire::NamespaceRecord::decode(bytes).map_err(|error| Malformed::Decode(error.to_string()))?;
        Self::from_wire(&stored)
    }

    /// Wire form.
    #[must_use]
    pub fn to_wire(&self) -> wire::NamespaceRecord {
        let added = self
            .members
            .added
            .iter()
            .map(|(region, dot)| wire::MemberAdd { region: region.clone(), dot: Some(dot.to_wire()) });
        wire::NamespaceRecord {
            id: self.id.to_string(),
            name: Some(wire::NameRegister {
                name: self.name.value.clone(),
                stamp: Some(self.name.stamp.to_wire()),
            }),
            info: Some(wire::InfoRegister {
                description: self.info.value.description.clone(),
                owner_email: self.info.value.owner_email.clone(),
                data: self.info.value.data.clone(),
                stamp: Some(self.info.stamp.to_wire()),
            }),
            config: Some(wire::ConfigRegister {
                retention_seconds: self.config.value.retention_seconds,
                stamp: Some(self.config.stamp.to_wire()),
            }),
            global: self.global,
            members_added: added.collect(),
            members_removed: self.members.removed.iter().map(|dot| dot.to_wire()).collect(),
            failover: Some(failover_to_wire(&self.failover)),
            history: self.history.iter().map(|(version, entry)| entry_to_wire(*version, entry)).collect(),
            deleted: self.deleted,
            fold: Some(wire::FoldVersionRegister {
                fold_version: self.fold.value,
                stamp: Some(self.fold.stamp.to_wire()),
            }),
            durability: Some(wire::DurabilityRegister {
                peers: self.durability.value.peers,
                degrade: self.durability.value.degrade,
                stamp: Some(self.durability.stamp.to_wire()),
            }),
            home: self.home.clone(),
        }
    }

    /// From the wire form.
    ///
    /// # Errors
    /// [`Malformed`] names the field.
    pub fn from_wire(stored: &wire::NamespaceRecord) -> Result<Self, Malformed> {
        let id = stored.id.parse().map_err(|_| field("id", "is not a UUID"))?;
        let name = stored.name.as_ref().ok_or_else(|| field("name", "is missing"))?;
        if name.name.is_empty() {
            return Err(field("name", "is empty"));
        }
        let failover = stored.failover.as_ref().ok_or_else(|| field("failover", "is missing"))?;
        let failover = failover_from_wire(failover)?;
        if stored.global == failover.version.is_local() {
            return Err(field("failover.version", "is 0 exactly for a local namespace"));
        }
        let info = stored.info.clone().unwrap_or_default();
        let config = stored.config.unwrap_or_default();
        if config.retention_seconds < 0 {
            return Err(field("config.retention_seconds", "is negative"));
        }
        let fold = stored.fold.unwrap_or_default();
        let durability = stored.durability.unwrap_or_default();
        let settings = Config { retention_seconds: config.retention_seconds };
        let policy = Durability { peers: durability.peers, degrade: durability.degrade };
        let texts = Info { description: info.description, owner_email: info.owner_email, data: info.data };
        Ok(Self {
            id,
            name: Lww::new(name.name.clone(), stamp(name.stamp.as_ref())),
            info: Lww::new(texts, stamp(info.stamp.as_ref())),
            config: Lww::new(settings, stamp(config.stamp.as_ref())),
            fold: Lww::new(fold.fold_version, stamp(fold.stamp.as_ref())),
            durability: Lww::new(policy, stamp(durability.stamp.as_ref())),
            global: stored.global,
            deleted: stored.deleted,
            home: stored.home.clone(),
            members: members_from_wire(stored)?,
            failover,
            history: history_from_wire(stored)?,
        })
    }
}

fn members_from_wire(stored: &wire::NamespaceRecord) -> Result<Members, Malformed> {
    let mut members = Members::default();
    for add in &stored.members_added {
        let dot = add.dot.as_ref().ok_or_else(|| field("members_added.dot", "is missing"))?;
        if add.region.is_empty() {
            return Err(field("members_added.region", "is empty"));
        }
        members.add(&add.region, Stamp::from_wire(dot));
    }
    members.removed.extend(stored.members_removed.iter().map(Stamp::from_wire));
    members.settle();
    Ok(members)
}

fn failover_to_wire(failover: &Failover) -> wire::FailoverRegister {
    let mut stored = wire::FailoverRegister {
        version: failover.version.0,
        step: failover.step,
        active: failover.active.clone(),
        incarnation: failover.life.0,
        ..Default::default()
    };
    match &failover.phase {
        Phase::Active => stored.set_phase(wire::FailoverPhase::Active),
        Phase::Draining { target, operation, deadline } => {
            stored.set_phase(wire::FailoverPhase::Draining);
            stored.target.clone_from(target);
            stored.operation_id.clone_from(operation);
            stored.deadline_unix_nanos = deadline.0;
        }
        Phase::Released { target, target_version, operation } => {
            stored.set_phase(wire::FailoverPhase::Released);
            stored.target.clone_from(target);
            stored.operation_id.clone_from(operation);
            stored.target_version = target_version.0;
        }
    }
    stored
}

fn failover_from_wire(stored: &wire::FailoverRegister) -> Result<Failover, Malformed> {
    if stored.active.is_empty() {
        return Err(field("failover.active", "is empty"));
    }
    if stored.version < 0 {
        return Err(field("failover.version", "is negative"));
    }
    let (target, operation) = (stored.target.clone(), stored.operation_id.clone());
    let phase = match stored.phase() {
        wire::FailoverPhase::Active => Phase::Active,
        wire::FailoverPhase::Draining => {
            Phase::Draining { target, operation, deadline: Timestamp(stored.deadline_unix_nanos) }
        }
        wire::FailoverPhase::Released => {
            let target_version = FailoverVersion(stored.target_version);
            Phase::Released { target, target_version, operation }
        }
        wire::FailoverPhase::Unspecified => return Err(field("failover.phase", "is unknown")),
    };
    if phase.target() == Some("") {
        return Err(field("failover.target", "is empty"));
    }
    Ok(Failover {
        version: FailoverVersion(stored.version),
        step: stored.step,
        active: stored.active.clone(),
        phase,
        life: Incarnation(stored.incarnation),
    })
}

fn entry_to_wire(version: FailoverVersion, entry: &Entry) -> wire::FailoverEntry {
    wire::FailoverEntry {
        version: version.0,
        from: entry.from.clone(),
        to: entry.to.clone(),
        who: entry.who.clone(),
        why: entry.why.clone(),
        at_unix_nanos: entry.at.0,
        forced: entry.forced,
        unavailable_millis: entry.unavailable_millis,
        predicted_loss_runs: entry
            .predicted_loss_runs
            .map_or(-1, |runs| i64::try_from(runs).unwrap_or(i64::MAX)),
        not_asked: entry.not_asked.iter().cloned().collect(),
        stamp: Some(entry.stamp.to_wire()),
    }
}

fn history_from_wire(stored: &wire::NamespaceRecord) -> Result<History, Malformed> {
    let mut history = History::new();
    for entry in &stored.history {
        if entry.version < 1 {
            return Err(field("history.version", "is less than 1"));
        }
        let typed = Entry {
            stamp: stamp(entry.stamp.as_ref()),
            from: entry.from.clone(),
            to: entry.to.clone(),
            who: entry.who.clone(),
            why: entry.why.clone(),
            at: Timestamp(entry.at_unix_nanos),
            forced: entry.forced,
            unavailable_millis: entry.unavailable_millis,
            predicted_loss_runs: u64::try_from(entry.predicted_loss_runs).ok(),
            not_asked: entry.not_asked.iter().cloned().collect(),
        };
        let one = History::from([(FailoverVersion(entry.version), typed)]);
        super::registers::merge_history(&mut history, &one);
    }
    Ok(history)
}
