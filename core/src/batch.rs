//! A batch: the events of one transition of one run, with its envelope. Immutable, stored, sent, fetched and seeded whole,
//! as the bytes its origin wrote (G1). Batches of a run form a tree through the chain value each names as its predecessor.

use antipode_proto::{api::history::v1 as history, core as wire};
use bytes::Bytes;
use prost::Message;

use crate::{
    chain::ChainValue,
    identity::Identity,
    ids::{
        EventId, FailoverVersion, Incarnation, Place, RegionId, RunId, RunKey, Sequence, ShardId, Timestamp,
        WorkflowId,
    },
    version_history::VersionHistory,
};

/// Why bytes are not a batch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Not a protobuf message of the expected type.
    #[error("{what} does not decode: {why}")]
    Decode {
        /// Which part.
        what: &'static str,
        /// The decoder's words.
        why: String,
    },
    /// A field has a value that no origin writes (R401).
    #[error("envelope field {field} {why}")]
    Field {
        /// Field of `BatchEnvelope`.
        field: &'static str,
        /// What is wrong.
        why: &'static str,
    },
    /// It is not the batch whose chain value came with it (G1).
    #[error("its bytes have the chain value {found}, and {named} came with it")]
    Chain {
        /// Sent along.
        named: String,
        /// Of the bytes.
        found: ChainValue,
    },
}

/// Where a batch was first committed (C7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// Region.
    pub region: RegionId,
    /// Life of its store.
    pub incarnation: Incarnation,
    /// Shard there.
    pub shard: ShardId,
    /// Position in that shard's log.
    pub sequence: Sequence,
}

/// One external event of a batch and its identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventIdentity {
    /// The event.
    pub event: EventId,
    /// Its identity, for ever (A3).
    pub identity: Identity,
    /// The request named a run (B4).
    pub named_run: bool,
    /// Run and version of the first writing, when this is a re-application.
    pub reapplied_from: Option<(RunId, FailoverVersion)>,
}

/// The header of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The run.
    pub run: RunKey,
    /// First run of the chain (B2).
    pub first_run: RunId,
    /// First event of the batch.
    pub first_event: EventId,
    /// Last event of the batch.
    pub last_event: EventId,
    /// Version of all its events (V03).
    pub version: FailoverVersion,
    /// Chain value of the batch before; [`ChainValue::NONE`] for the first.
    pub previous: ChainValue,
    /// Version history of the branch through this batch.
    pub items: VersionHistory,
    /// First commit.
    pub origin: Origin,
    /// Place of the run after this batch (B7).
    pub place: Place,
    /// Equal for all batches of one transition (B5).
    pub causal: u64,
    /// Identities of the external events in it.
    pub identities: Vec<EventIdentity>,
    /// Successor of a closing batch (B8).
    pub successor: Option<RunId>,
    /// Of the chain's applied set what was applied again or came from another run, in the first batch of a successor (B2).
    pub inherited: Vec<Identity>,
    /// And the newest requests that the chain took itself, in order (B2, B3).
    pub recent: Vec<Identity>,
    /// Version of the fold that wrote it (A10).
    pub fold_version: u32,
    /// Clock of the writer, when the time of the events is another: that never goes back on a branch, and deadlines of what
    /// the events start must not wait for a clock that was ahead once (H2).
    pub clock: Option<Timestamp>,
}

/// A batch with its decoded header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Header.
    pub envelope: Envelope,
    /// Header as its origin encoded it.
    pub envelope_bytes: Bytes,
    /// Events: an encoded `temporal.api.history.v1.History`, so that consecutive batches concatenate to one `History`.
    pub events: Bytes,
    /// Chain value after this batch.
    pub chain: ChainValue,
}

impl Batch {
    /// Seals a batch at its origin.
    #[must_use]
    pub fn seal(envelope: Envelope, events: &[history::HistoryEvent]) -> Self {
        // `History` is `repeated HistoryEvent events = 1`, encoded here without cloning the events.
        let size = events.iter().map(|event| prost::encoding::message::encoded_len(1, event)).sum();
        let mut bytes = Vec::with_capacity(size);
        for event in events {
            prost::encoding::message::encode(1, event, &mut bytes);
        }
        let events = Bytes::from(bytes);
        let envelope_bytes = Bytes::from(envelope.to_wire().encode_to_vec());
        let chain = ChainValue::of_batch(&envelope_bytes, &events);
        Self { envelope, envelope_bytes, events, chain }
    }

    /// Reads a batch as received or stored. The events are not decoded.
    ///
    /// # Errors
    /// [`Malformed`] when the envelope does not decode or breaks R401.
    pub fn open(envelope_bytes: Bytes, events: Bytes) -> Result<Self, Malformed> {
        let stored = wire::BatchEnvelope::decode(&*envelope_bytes)
            .map_err(|error| Malformed::Decode { what: "envelope", why: error.to_string() })?;
        let envelope = Envelope::from_wire(&stored)?;
        let chain = ChainValue::of_batch(&envelope_bytes, &events);
        Ok(Self { envelope, envelope_bytes, events, chain })
    }

    /// Reads a batch that came over a link. A bit that changed on the way may still decode: only the chain value tells (G1).
    ///
    /// # Errors
    /// [`Malformed::Chain`] when the bytes are not those that were sent; else as [`Batch::open`].
    pub fn from_wire(received: &wire::Batch) -> Result<Self, Malformed> {
        let opened = Self::open(received.envelope.clone(), received.events.clone());
        if received.chain.is_empty() {
            // A peer of the previous version sends none.
            return opened;
        }
        let found = match &opened {
            Ok(batch) => batch.chain,
            Err(_) => ChainValue::of_batch(&received.envelope, &received.events),
        };
        if found.0[..] == received.chain[..] {
            return opened;
        }
        let named = received.chain.iter().map(|byte| format!("{byte:02x}")).collect();
        Err(Malformed::Chain { named, found })
    }

    /// Wire form.
    #[must_use]
    pub fn to_wire(&self) -> wire::Batch {
        wire::Batch {
            envelope: self.envelope_bytes.clone(),
            events: self.events.clone(),
            chain: self.chain.to_bytes(),
        }
    }

    /// Decodes the events.
    ///
    /// # Errors
    /// [`Malformed`] when they do not decode, or ids or versions differ from the envelope's (R401).
    pub fn decode_events(&self) -> Result<Vec<history::HistoryEvent>, Malformed> {
        let events = history::History::decode(&*self.events)
            .map_err(|error| Malformed::Decode { what: "events", why: error.to_string() })?
            .events;
        let mut expected = self.envelope.first_event;
        for event in &events {
            if event.event_id != expected.0 || event.version != self.envelope.version.0 {
                return Err(Malformed::Field {
                    field: "first_event_id",
                    why: "differs from the events of the batch",
                });
            }
            expected = expected.next();
        }
        if expected != self.envelope.last_event.next() {
            return Err(Malformed::Field {
                field: "last_event_id",
                why: "differs from the events of the batch",
            });
        }
        Ok(events)
    }

    /// Bytes it occupies, about.
    #[must_use]
    pub fn size(&self) -> usize {
        self.envelope_bytes.len() + self.events.len()
    }
}

impl Envelope {
    /// Stored form.
    #[must_use]
    pub fn to_wire(&self) -> wire::BatchEnvelope {
        wire::BatchEnvelope {
            namespace_id: self.run.namespace.to_string(),
            workflow_id: self.run.workflow.to_string(),
            run_id: self.run.run.to_string(),
            first_run_id: self.first_run.to_string(),
            first_event_id: self.first_event.0,
            last_event_id: self.last_event.0,
            version: self.version.0,
            previous_chain: self.previous.to_bytes(),
            items: self.items.to_wire(),
            origin: Some(wire::Origin {
                region: self.origin.region.0,
                incarnation: self.origin.incarnation.0,
                shard: self.origin.shard.0,
                sequence: self.origin.sequence.0,
            }),
            place: Some(wire::Place { epoch: self.place.epoch, sequence: self.place.sequence }),
            causal: self.causal,
            identities: self.identities.iter().map(EventIdentity::to_wire).collect(),
            successor_run_id: self.successor.map(|run| run.to_string()).unwrap_or_default(),
            inherited: self.inherited.iter().map(Identity::to_wire).collect(),
            fold_version: self.fold_version,
            recent: self.recent.iter().map(Identity::to_wire).collect(),
            clock_unix_nanos: self.clock.map_or(0, |clock| clock.0),
        }
    }

    /// From the stored form.
    ///
    /// # Errors
    /// [`Malformed::Field`] names the field that breaks R401.
    pub fn from_wire(stored: &wire::BatchEnvelope) -> Result<Self, Malformed> {
        let field = |field, why| Malformed::Field { field, why };
        let uuid = "is not a UUID";
        let namespace = stored.namespace_id.parse().map_err(|_| field("namespace_id", uuid))?;
        let run = stored.run_id.parse().map_err(|_| field("run_id", uuid))?;
        if stored.workflow_id.is_empty() {
            return Err(field("workflow_id", "is empty"));
        }
        let first_run = stored.first_run_id.parse().map_err(|_| field("first_run_id", uuid))?;
        if stored.first_event_id < 1 {
            return Err(field("first_event_id", "is less than 1"));
        }
        if stored.last_event_id < stored.first_event_id {
            return Err(field("last_event_id", "is less than first_event_id"));
        }
        if stored.version < 0 {
            return Err(field("version", "is negative"));
        }
        let previous = ChainValue::from_bytes(&stored.previous_chain)
            .ok_or_else(|| field("previous_chain", "has neither 0 nor 16 bytes"))?;
        if (previous == ChainValue::NONE) != (stored.first_event_id == 1) {
            return Err(field("previous_chain", "is empty exactly for the first batch"));
        }
        let items = VersionHistory::from_wire(&stored.items)
            .map_err(|_| field("items", "do not strictly increase"))?;
        let tip = items.last().ok_or_else(|| field("items", "are empty"))?;
        if tip.event.0 != stored.last_event_id || tip.version.0 != stored.version {
            return Err(field("items", "do not end with the last event"));
        }
        let origin = stored.origin.as_ref().ok_or_else(|| field("origin", "is missing"))?;
        let place = stored.place.as_ref().ok_or_else(|| field("place", "is missing"))?;
        let identities = stored
            .identities
            .iter()
            .map(EventIdentity::from_wire)
            .collect::<Option<_>>()
            .ok_or_else(|| field("identities", "have an unknown kind or key"))?;
        let successor = match stored.successor_run_id.as_str() {
            "" => None,
            text => Some(text.parse().map_err(|_| field("successor_run_id", uuid))?),
        };
        let set = |name, identities: &[wire::Identity]| {
            let known: Option<Vec<_>> = identities.iter().map(Identity::from_wire).collect();
            known.ok_or_else(|| field(name, "have an unknown kind or key"))
        };
        let inherited = set("inherited", &stored.inherited)?;
        let recent = set("recent", &stored.recent)?;
        Ok(Self {
            run: RunKey { namespace, workflow: WorkflowId::from(stored.workflow_id.as_str()), run },
            first_run,
            first_event: EventId(stored.first_event_id),
            last_event: EventId(stored.last_event_id),
            version: FailoverVersion(stored.version),
            previous,
            items,
            origin: Origin {
                region: RegionId(origin.region),
                incarnation: Incarnation(origin.incarnation),
                shard: ShardId(origin.shard),
                sequence: Sequence(origin.sequence),
            },
            place: Place { epoch: place.epoch, sequence: place.sequence },
            causal: stored.causal,
            identities,
            successor,
            inherited,
            recent,
            fold_version: stored.fold_version,
            clock: (stored.clock_unix_nanos != 0).then_some(Timestamp(stored.clock_unix_nanos)),
        })
    }
}

impl EventIdentity {
    fn to_wire(&self) -> wire::EventIdentity {
        let (origin_run_id, origin_version) = match self.reapplied_from {
            Some((run, version)) => (run.to_string(), version.0),
            None => (String::new(), 0),
        };
        wire::EventIdentity {
            event_id: self.event.0,
            identity: Some(self.identity.to_wire()),
            named_run: self.named_run,
            origin_run_id,
            origin_version,
        }
    }

    fn from_wire(stored: &wire::EventIdentity) -> Option<Self> {
        let reapplied_from = match stored.origin_run_id.as_str() {
            "" => None,
            text => Some((text.parse().ok()?, FailoverVersion(stored.origin_version))),
        };
        Some(Self {
            event: EventId(stored.event_id),
            identity: Identity::from_wire(stored.identity.as_ref()?)?,
            named_run: stored.named_run,
            reapplied_from,
        })
    }
}
