//! Batches for tests.

use antipode_core::{
    batch::{Batch, Envelope, Origin},
    chain::ChainValue,
    ids::{
        EventId, FailoverVersion, Incarnation, NamespaceId, Place, RegionId, RunId, RunKey, Sequence,
        ShardId, WorkflowId,
    },
    tree::Tree,
    version_history::{Item, VersionHistory},
};

/// A run.
pub(crate) fn run(number: u8) -> RunId {
    RunId::from_random([number; 16])
}

/// A batch of `events` events after `parent`; `salt` tells batches with equal numbers apart.
pub(crate) fn batch(parent: Option<&Batch>, events: i64, version: i64, salt: u64) -> Batch {
    Batch::seal(envelope(parent, events, version, salt), &[])
}

pub(crate) fn envelope(parent: Option<&Batch>, events: i64, version: i64, salt: u64) -> Envelope {
    let last = parent.map_or(0, |parent| parent.envelope.last_event.0);
    let tip = item(last + events, version);
    let items = parent.map(|parent| parent.envelope.items.clone()).unwrap_or_default();
    Envelope {
        run: RunKey {
            namespace: NamespaceId::from_random([1; 16]),
            workflow: WorkflowId::from("order"),
            run: run(7),
        },
        first_run: run(7),
        first_event: EventId(last + 1),
        last_event: tip.event,
        version: tip.version,
        previous: parent.map_or(ChainValue::NONE, |parent| parent.chain),
        items: items.with(tip).unwrap(),
        origin: Origin {
            region: RegionId(1),
            incarnation: Incarnation(1),
            shard: ShardId(1),
            sequence: Sequence(salt),
        },
        place: Place { epoch: 1, sequence: salt },
        causal: salt,
        identities: Vec::new(),
        successor: None,
        inherited: Vec::new(),
        recent: Vec::new(),
        fold_version: 1,
        clock: None,
    }
}

pub(crate) fn tree(batches: &[&Batch]) -> Tree {
    Tree::from_batches(batches.iter().map(|batch| (&batch.envelope, batch.chain))).unwrap()
}

pub(crate) fn item(event: i64, version: i64) -> Item {
    Item::new(EventId(event), FailoverVersion(version))
}

pub(crate) fn list(items: &[(i64, i64)]) -> VersionHistory {
    VersionHistory::new(items.iter().map(|&(e, v)| item(e, v)).collect::<Vec<_>>()).unwrap()
}
