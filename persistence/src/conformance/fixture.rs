//! Small made-up workflows for the checks and the commit benchmark.

use std::sync::Arc;

use antipode_core::{
    batch::{Batch, Envelope, Origin},
    chain::ChainValue,
    ids::{
        EventId, FailoverVersion, Incarnation, NamespaceId, Place, RangeId, RegionId, RunId, RunKey,
        Sequence, ShardId, Timestamp,
    },
    version_history::VersionHistory,
};
use antipode_proto::{api::history::v1::HistoryEvent, core as wire};
use bytes::Bytes;
use uuid::Uuid;

use super::Failure;
use crate::{
    rows::{
        BatchRow, CurrentRow, DispatchChange, DispatchRow, Group, Identity, RunRow, TaskKind, VisibilityRow,
    },
    store::ShardStore,
};

/// Version of everything that the fixtures write.
pub const VERSION: i64 = 1;

/// A store's owner in the checks.
#[must_use]
pub fn identity() -> Identity {
    Identity {
        region: "east".to_string(),
        initial: 1,
        increment: 10,
        shards: 4,
        cluster_id: "a cluster".to_string(),
        incarnation: Incarnation(0xfeed_beef_dead_cafe),
    }
}

/// A namespace by number.
#[must_use]
pub fn namespace(number: u128) -> NamespaceId {
    NamespaceId(Uuid::from_u128(number))
}

/// A run of namespace 1 by workflow id and number.
#[must_use]
pub fn key(workflow: &str, run: u128) -> RunKey {
    key_in(1, workflow, run)
}

/// A run.
#[must_use]
pub fn key_in(namespace_number: u128, workflow: &str, run: u128) -> RunKey {
    RunKey {
        namespace: namespace(namespace_number),
        workflow: workflow.into(),
        run: RunId(Uuid::from_u128(run)),
    }
}

/// A batch of one event with about so many bytes.
///
/// # Errors
/// Never, with the numbers used here.
pub fn batch(
    key: &RunKey,
    event: i64,
    previous: ChainValue,
    at: Sequence,
    bytes: usize,
) -> Result<Batch, Failure> {
    let items = [wire::VersionItem { event_id: event, version: VERSION }];
    let envelope = Envelope {
        run: key.clone(),
        first_run: key.run,
        first_event: EventId(event),
        last_event: EventId(event),
        version: FailoverVersion(VERSION),
        previous,
        items: VersionHistory::from_wire(&items)?,
        origin: Origin { region: RegionId(1), incarnation: Incarnation(1), shard: ShardId(1), sequence: at },
        place: Place { epoch: 1, sequence: at.0 },
        causal: at.0,
        identities: Vec::new(),
        successor: None,
        inherited: Vec::new(),
        recent: Vec::new(),
        fold_version: 1,
        clock: None,
    };
    let event = HistoryEvent {
        event_id: event,
        version: VERSION,
        task_id: i64::MAX,
        event_type: 1,
        user_metadata: Some(antipode_proto::api::sdk::v1::UserMetadata {
            summary: Some(antipode_proto::api::common::v1::Payload {
                data: Bytes::from(vec![7; bytes]),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    };
    Ok(Batch::seal(envelope, &[event]))
}

/// A current record of this order.
#[must_use]
pub fn current(key: &RunKey, version: i64, epoch: u64, sequence: u64) -> CurrentRow {
    CurrentRow {
        key: key.workflow_key(),
        record: wire::CurrentRecord {
            run_id: key.run.to_string(),
            version,
            place: Some(wire::Place { epoch, sequence }),
            open: true,
            first_run_id: key.run.to_string(),
            start_request_id: "request".to_string(),
            status: 1,
        },
    }
}

/// A visibility row.
#[must_use]
pub fn visible(key: &RunKey, start: i64, close: Option<i64>, status: i32) -> VisibilityRow {
    VisibilityRow {
        key: key.clone(),
        workflow_type: "Order".to_string(),
        task_queue: "orders".to_string(),
        status,
        start: Timestamp(start),
        execution: Timestamp(start),
        close: close.map(Timestamp),
        history_length: 3,
        history_size: 300,
        transitions: 5,
        memo: Bytes::from_static(b"memo"),
        search_attributes: Bytes::from_static(b"attributes"),
        first_run: key.run.to_string(),
        superseded: false,
    }
}

/// A row of the dispatch index.
#[must_use]
pub fn offered(key: &RunKey, queue: &str, kind: TaskKind, order: u64) -> DispatchChange {
    DispatchChange::Put(DispatchRow {
        key: key.clone(),
        queue: queue.to_string(),
        kind,
        order: Sequence(order),
    })
}

/// A shard's owner: makes groups that follow each other.
#[derive(Clone, Copy, Debug)]
pub struct Owner {
    /// Shard.
    pub shard: ShardId,
    /// Its range.
    pub range: RangeId,
    /// Position of the last group.
    pub sequence: Sequence,
}

impl Owner {
    /// Acquires a shard.
    ///
    /// # Errors
    /// The store's.
    pub async fn acquire(store: &impl ShardStore, shard: u32) -> Result<Self, Failure> {
        let shard = ShardId(shard);
        let acquired = store.shard_acquire(shard, "the owner").await?;
        Ok(Self { shard, range: acquired.range, sequence: acquired.sequence })
    }

    /// An empty group of so many positions after the last.
    #[must_use]
    pub fn group(&mut self, positions: u64) -> Group {
        let after = self.sequence;
        self.sequence = Sequence(after.0 + positions);
        Group { shard: self.shard, range: self.range, after, through: self.sequence, ..Group::default() }
    }

    /// A group that writes one batch of each run and its row, at positions of their own.
    ///
    /// # Errors
    /// Never, with the numbers used here.
    pub fn started(&mut self, keys: &[RunKey]) -> Result<Group, Failure> {
        let mut group = self.group(keys.len() as u64);
        for (key, position) in keys.iter().zip(group.after.0 + 1..) {
            let at = Sequence(position);
            let batch = batch(key, 1, ChainValue::NONE, at, 40)?;
            group.batches.push(BatchRow { sequence: at, batch: Arc::new(batch) });
            group.runs.push(run(key, at, None));
        }
        Ok(group)
    }
}

/// A run's row.
#[must_use]
pub fn run(key: &RunKey, changed_at: Sequence, wake_at: Option<i64>) -> RunRow {
    RunRow {
        key: key.clone(),
        changed_at,
        wake_at: wake_at.map(Timestamp),
        head: Bytes::from(format!("head at {changed_at}")),
    }
}
