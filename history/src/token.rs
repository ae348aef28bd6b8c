//! Task tokens: what a worker carries between a poll and its answer. Opaque to clients, who only echo them, and the same in
//! every region, because a completion may reach another region than the one that handed the task out (I15, R931).
//!
//! The first byte tells what follows, so that a token brought to the wrong call is named instead of guessed at:
//! [`TASK`] a task of a run (this module), [`QUERY`] a query task (matching's own, valid in one process only).

use antipode_core::{
    chain::ChainValue,
    ids::{EventId, FailoverVersion, NamespaceId, RunId, RunKey, WorkflowId},
};
use bytes::Bytes;
use prost::Message;
use uuid::Uuid;

use crate::api::{TaskKind, TaskRef, TaskToken};

/// First byte of a token of a workflow or activity task.
pub const TASK: u8 = 1;
/// First byte of a token of a query task. What follows is matching's.
pub const QUERY: u8 = 2;

/// Why bytes are not a task token, in the API's words. All of them are INVALID_ARGUMENT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Empty.
    #[error("Task token not set on request.")]
    NotSet,
    /// Not written by [`encode`].
    #[error("Error deserializing task token.")]
    Malformed,
    /// Written for another namespace than the request's.
    #[error("Operation requested with a token from a different namespace.")]
    OtherNamespace,
}

/// The encoded form; field numbers are for ever. Ids are fixed bytes, not text: a token travels twice a task.
#[derive(Clone, PartialEq, Message)]
struct Encoded {
    #[prost(bytes = "bytes", tag = "1")]
    namespace: Bytes,
    #[prost(string, tag = "2")]
    workflow: String,
    #[prost(bytes = "bytes", tag = "3")]
    run: Bytes,
    #[prost(int64, tag = "4")]
    scheduled: i64,
    #[prost(int64, tag = "5")]
    version: i64,
    #[prost(int32, tag = "6")]
    attempt: i32,
    #[prost(uint32, tag = "7")]
    stamp: u32,
    #[prost(int64, tag = "8")]
    started: i64,
    #[prost(int64, tag = "9")]
    start_version: i64,
    #[prost(bytes = "bytes", tag = "10")]
    tip: Bytes,
    #[prost(uint32, tag = "11")]
    kind: u32,
    #[prost(string, tag = "12")]
    activity_id: String,
    #[prost(bytes = "bytes", tag = "13")]
    anchor: Bytes,
}

/// The token as a worker gets it.
#[must_use]
pub fn encode(token: &TaskToken) -> Vec<u8> {
    let encoded = Encoded {
        namespace: Bytes::copy_from_slice(token.key.namespace.0.as_bytes()),
        workflow: token.key.workflow.to_string(),
        run: Bytes::copy_from_slice(token.key.run.0.as_bytes()),
        scheduled: token.task.scheduled.0,
        version: token.task.version.0,
        attempt: token.task.attempt,
        stamp: token.task.stamp,
        started: token.started.0,
        start_version: token.start_version.0,
        tip: token.tip.to_bytes(),
        kind: token.kind as u32,
        activity_id: token.activity_id.clone(),
        anchor: token.anchor.to_bytes(),
    };
    let mut bytes = Vec::with_capacity(1 + encoded.encoded_len());
    bytes.push(TASK);
    encoded.encode_raw(&mut bytes);
    bytes
}

/// Reads a token that a worker brought back.
///
/// # Errors
/// [`Error::NotSet`] and [`Error::Malformed`]. Whether the task still fits the run is the shard's to say (R705–R709).
pub fn decode(bytes: &[u8]) -> Result<TaskToken, Error> {
    let (lead, rest) = bytes.split_first().ok_or(Error::NotSet)?;
    if *lead != TASK {
        return Err(Error::Malformed);
    }
    let encoded = Encoded::decode(rest).map_err(|_| Error::Malformed)?;
    open(encoded).ok_or(Error::Malformed)
}

/// Reads a token and holds it against the namespace of the request that carries it.
///
/// # Errors
/// As [`decode`], and [`Error::OtherNamespace`].
pub fn decode_for(bytes: &[u8], namespace: NamespaceId) -> Result<TaskToken, Error> {
    let token = decode(bytes)?;
    if token.key.namespace == namespace { Ok(token) } else { Err(Error::OtherNamespace) }
}

fn open(encoded: Encoded) -> Option<TaskToken> {
    if encoded.workflow.is_empty() || encoded.scheduled < 1 || encoded.attempt < 1 {
        return None;
    }
    let kind = match encoded.kind {
        1 => TaskKind::Workflow,
        2 => TaskKind::Activity,
        _ => return None,
    };
    Some(TaskToken {
        key: RunKey {
            namespace: NamespaceId(Uuid::from_slice(&encoded.namespace).ok()?),
            workflow: WorkflowId::from(encoded.workflow),
            run: RunId(Uuid::from_slice(&encoded.run).ok()?),
        },
        task: TaskRef {
            scheduled: EventId(encoded.scheduled),
            version: FailoverVersion(encoded.version),
            attempt: encoded.attempt,
            stamp: encoded.stamp,
        },
        started: EventId(encoded.started),
        start_version: FailoverVersion(encoded.start_version),
        tip: ChainValue::from_bytes(&encoded.tip)?,
        kind,
        activity_id: encoded.activity_id,
        anchor: ChainValue::from_bytes(&encoded.anchor)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tokens() -> impl Strategy<Value = TaskToken> {
        let ids = (any::<[u8; 16]>(), "[a-z日]{1,40}", any::<[u8; 16]>());
        let task = (1..i64::MAX, 0..i64::MAX, 1..i32::MAX, any::<u32>());
        let rest =
            (any::<i64>(), any::<i64>(), any::<[u8; 16]>(), any::<bool>(), ".{0,20}", any::<[u8; 16]>());
        (ids, task, rest).prop_map(|((namespace, workflow, run), task, rest)| TaskToken {
            key: RunKey {
                namespace: NamespaceId::from_random(namespace),
                workflow: WorkflowId::from(workflow),
                run: RunId::from_random(run),
            },
            task: TaskRef {
                scheduled: EventId(task.0),
                version: FailoverVersion(task.1),
                attempt: task.2,
                stamp: task.3,
            },
            started: EventId(rest.0),
            start_version: FailoverVersion(rest.1),
            tip: ChainValue(rest.2),
            kind: if rest.3 { TaskKind::Workflow } else { TaskKind::Activity },
            activity_id: rest.4,
            anchor: ChainValue(rest.5),
        })
    }

    proptest! {
        /// What a worker brings back is what it was given.
        #[test]
        fn round_trip(token in tokens()) {
            prop_assert_eq!(decode(&encode(&token)), Ok(token));
        }

        /// Bytes of strangers never panic, and a token cut short is never taken for another one.
        #[test]
        fn foreign_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200), token in tokens(), cut in any::<prop::sample::Index>()) {
            let _ = decode(&bytes);
            let whole = encode(&token);
            let part = &whole[..cut.index(whole.len())];
            prop_assert_ne!(decode(part), Ok(token));
        }
    }

    #[test]
    fn words_of_the_api() {
        assert_eq!(decode(b""), Err(Error::NotSet));
        assert_eq!(Error::NotSet.to_string(), "Task token not set on request.");
        assert_eq!(decode(b"not a token"), Err(Error::Malformed));
        assert_eq!(decode(&[QUERY, 1, 2]), Err(Error::Malformed));
        assert_eq!(Error::Malformed.to_string(), "Error deserializing task token.");
    }

    #[test]
    fn token_of_another_namespace() {
        let token = TaskToken {
            key: RunKey {
                namespace: NamespaceId::from_random([1; 16]),
                workflow: WorkflowId::from("w"),
                run: RunId::from_random([2; 16]),
            },
            task: TaskRef { scheduled: EventId(2), version: FailoverVersion(1), attempt: 1, stamp: 0 },
            started: EventId(3),
            start_version: FailoverVersion(1),
            tip: ChainValue([3; 16]),
            kind: TaskKind::Workflow,
            activity_id: String::new(),
            anchor: ChainValue::NONE,
        };
        let bytes = encode(&token);
        assert_eq!(decode_for(&bytes, token.key.namespace), Ok(token));
        let other = NamespaceId::from_random([9; 16]);
        assert_eq!(decode_for(&bytes, other), Err(Error::OtherNamespace));
    }
}
