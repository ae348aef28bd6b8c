//! The fold: the one function that turns events into mutable state. It serves the active path, the passive path,
//! recovery, rebuild after a conflict, and the simulator. It is the only writer: the facts inside [`State`] are private to
//! this file.

use std::{ops::Deref, sync::Arc};

use antipode_proto::api::{
    enums::v1::{TaskQueueKind, TimeoutType, WorkflowExecutionStatus as Status},
    history::v1::{self as history, history_event::Attributes},
};
use prost::Message;

use crate::{
    batch::Envelope,
    identity::Identity,
    ids::{EventId, FailoverVersion, Nanos, Timestamp},
    state::{Activity, Anchor, Close, Facts, Start, Task, TaskStarted, Timer},
};

/// Version of the fold; envelopes carry it (A10).
pub const FOLD_VERSION: u32 = 1;

/// Events that cannot follow the state they meet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FoldError {
    /// Ids of a branch are 1..n without gap (V01).
    #[error("event {found} where {expected} must follow (V01)")]
    Gap {
        /// Id expected.
        expected: EventId,
        /// Id found.
        found: EventId,
    },
    /// The event names something that is not there.
    #[error("event {event} ({kind}) names {what}, which is not open")]
    Unknown {
        /// Event.
        event: EventId,
        /// Its type.
        kind: &'static str,
        /// What it names.
        what: String,
    },
    /// The event has no attributes, or the run is closed.
    #[error("event {event} {why}")]
    Invalid {
        /// Event.
        event: EventId,
        /// What is wrong.
        why: &'static str,
    },
}

/// The mutable state of a run: facts that everybody may read and only the fold writes.
///
/// ```
/// let state = antipode_core::state::State::default();
/// assert!(!state.cancel_requested);
/// ```
///
/// ```compile_fail,E0594
/// let mut state = antipode_core::state::State::default();
/// state.cancel_requested = true;
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State(Facts);

impl Deref for State {
    type Target = Facts;

    fn deref(&self) -> &Facts {
        &self.0
    }
}

impl State {
    /// Applies the events of one batch.
    ///
    /// # Errors
    /// [`FoldError`]; the state is then unusable and must be rebuilt.
    pub fn apply_batch(
        &mut self,
        envelope: &Envelope,
        events: &[history::HistoryEvent],
    ) -> Result<(), FoldError> {
        for event in events {
            self.0.apply_event(event, envelope.clock)?;
        }
        self.0.apply_envelope(envelope);
        Ok(())
    }

    /// What the header of a batch adds: identities (A3) and the inherited applied set (B2).
    pub fn apply_envelope(&mut self, envelope: &Envelope) {
        self.0.apply_envelope(envelope);
    }

    /// One external event stands on the branch from now on (A3).
    pub fn apply_identity(&mut self, identity: &Identity) {
        self.0.applied.insert(identity.clone());
    }

    /// Applies one event, with the clock that the header of its batch names (H2).
    ///
    /// # Errors
    /// [`FoldError`]; the state is then unusable and must be rebuilt.
    pub fn apply_event(
        &mut self,
        event: &history::HistoryEvent,
        clock: Option<Timestamp>,
    ) -> Result<(), FoldError> {
        self.0.apply_event(event, clock)
    }
}

/// When an event was written.
#[derive(Clone, Copy)]
struct Moment {
    /// Its time, which never goes back on a branch: what is shown.
    at: Timestamp,
    /// The writer's own clock: deadlines count from there (H2).
    clock: Timestamp,
}

impl Facts {
    fn apply_envelope(&mut self, envelope: &Envelope) {
        self.applied.extend(envelope.inherited.iter().chain(&envelope.recent).cloned());
        self.applied.extend(envelope.identities.iter().map(|entry| entry.identity.clone()));
        self.transitions += 1;
    }

    fn apply_event(
        &mut self,
        event: &history::HistoryEvent,
        clock: Option<Timestamp>,
    ) -> Result<(), FoldError> {
        let id = EventId(event.event_id);
        if id != self.next_event {
            return Err(FoldError::Gap { expected: self.next_event, found: id });
        }
        if !self.is_open() {
            return Err(FoldError::Invalid { event: id, why: "follows the closing event" });
        }
        let attributes =
            event.attributes.as_ref().ok_or(FoldError::Invalid { event: id, why: "has no attributes" })?;
        let at = event.event_time.as_ref().map(Timestamp::from_proto).unwrap_or_default();
        let anchor = Anchor { event: id, version: FailoverVersion(event.version) };
        self.fold(event, attributes, anchor, Moment { at, clock: clock.unwrap_or(at) })?;
        self.next_event = id.next();
        self.last_version = anchor.version;
        self.last_time = self.last_time.max(at);
        self.history_bytes += i64::try_from(event.encoded_len()).unwrap_or(i64::MAX);
        Ok(())
    }

    fn fold(
        &mut self,
        event: &history::HistoryEvent,
        attributes: &Attributes,
        anchor: Anchor,
        moment: Moment,
    ) -> Result<(), FoldError> {
        use Attributes as A;
        match attributes {
            A::WorkflowExecutionStartedEventAttributes(a) => self.fold_start(event, a, anchor, moment),
            A::WorkflowTaskScheduledEventAttributes(a) => self.fold_task_scheduled(a, anchor, moment),
            A::WorkflowTaskStartedEventAttributes(a) => self.fold_task_started(a, anchor, moment)?,
            A::WorkflowTaskCompletedEventAttributes(a) => {
                self.previous_started = EventId(a.started_event_id);
                self.last_completed = anchor.event;
                self.fold_task_ended(anchor, 0);
            }
            A::WorkflowTaskFailedEventAttributes(_) => {
                let attempt = self.task.as_ref().map_or(1, |task| task.attempt);
                self.fold_task_ended(anchor, attempt);
            }
            A::WorkflowTaskTimedOutEventAttributes(a) => {
                // A sticky queue that nobody polled does not count as an attempt.
                let sticky = a.timeout_type == TimeoutType::ScheduleToStart as i32;
                let attempt = self.task.as_ref().map_or(1, |task| task.attempt);
                self.fold_task_ended(anchor, if sticky { attempt - 1 } else { attempt });
            }
            A::ActivityTaskScheduledEventAttributes(a) => self.fold_activity(a, anchor, moment),
            A::ActivityTaskStartedEventAttributes(a) => {
                self.activity(anchor, "ActivityTaskStarted", a.scheduled_event_id)?;
            }
            A::ActivityTaskCancelRequestedEventAttributes(a) => {
                let activity = self.activity(anchor, "ActivityTaskCancelRequested", a.scheduled_event_id)?;
                activity.cancel_requested = Some(anchor.event);
            }
            A::ActivityTaskCompletedEventAttributes(a) => {
                self.activity_end(anchor, "ActivityTaskCompleted", a.scheduled_event_id)?;
            }
            A::ActivityTaskFailedEventAttributes(a) => {
                self.activity_end(anchor, "ActivityTaskFailed", a.scheduled_event_id)?;
            }
            A::ActivityTaskTimedOutEventAttributes(a) => {
                self.activity_end(anchor, "ActivityTaskTimedOut", a.scheduled_event_id)?;
            }
            A::ActivityTaskCanceledEventAttributes(a) => {
                self.activity_end(anchor, "ActivityTaskCanceled", a.scheduled_event_id)?;
            }
            A::TimerStartedEventAttributes(a) => {
                let length = a.start_to_fire_timeout.as_ref().map(Nanos::from_proto);
                let length = length.unwrap_or_default();
                let (due, shown) = (moment.clock.plus(length), moment.at.plus(length));
                let timer = Timer { started: anchor.event, version: anchor.version, due, shown };
                self.timers.insert(a.timer_id.clone(), timer);
            }
            A::TimerFiredEventAttributes(a) => self.timer_end(anchor, "TimerFired", &a.timer_id)?,
            A::TimerCanceledEventAttributes(a) => {
                self.timer_end(anchor, "TimerCanceled", &a.timer_id)?;
            }
            A::WorkflowExecutionSignaledEventAttributes(_) => self.signals += 1,
            A::WorkflowExecutionCancelRequestedEventAttributes(_) => self.cancel_requested = true,
            A::UpsertWorkflowSearchAttributesEventAttributes(a) => {
                self.upsert_search_attributes(a.search_attributes.as_ref());
            }
            A::WorkflowPropertiesModifiedEventAttributes(a) => {
                self.upsert_memo(a.upserted_memo.as_ref());
            }
            A::WorkflowExecutionCompletedEventAttributes(a) => {
                self.fold_close(Status::Completed, anchor, moment, &a.new_execution_run_id);
            }
            A::WorkflowExecutionFailedEventAttributes(a) => {
                self.fold_close(Status::Failed, anchor, moment, &a.new_execution_run_id);
            }
            A::WorkflowExecutionTimedOutEventAttributes(a) => {
                self.fold_close(Status::TimedOut, anchor, moment, &a.new_execution_run_id);
            }
            A::WorkflowExecutionCanceledEventAttributes(_) => {
                self.fold_close(Status::Canceled, anchor, moment, "");
            }
            A::WorkflowExecutionTerminatedEventAttributes(_) => {
                self.fold_close(Status::Terminated, anchor, moment, "");
            }
            A::WorkflowExecutionContinuedAsNewEventAttributes(a) => {
                self.fold_close(Status::ContinuedAsNew, anchor, moment, &a.new_execution_run_id);
            }
            // Events without an effect on mutable state: markers, and what later features add their own state for.
            _ => {}
        }
        Ok(())
    }

    fn fold_start(
        &mut self,
        event: &history::HistoryEvent,
        attributes: &history::WorkflowExecutionStartedEventAttributes,
        anchor: Anchor,
        moment: Moment,
    ) {
        self.memo = attributes.memo.clone();
        self.search_attributes = attributes.search_attributes.clone();
        self.start = Some(Start {
            attributes: Arc::new(detached(attributes)),
            at: moment.at,
            clock: moment.clock,
            version: anchor.version,
            user_metadata: event.user_metadata.clone(),
        });
    }

    fn fold_task_scheduled(
        &mut self,
        attributes: &history::WorkflowTaskScheduledEventAttributes,
        anchor: Anchor,
        moment: Moment,
    ) {
        let queue = attributes.task_queue.as_ref();
        self.task = Some(Task {
            scheduled: anchor.event,
            version: anchor.version,
            scheduled_at: moment.at,
            clock: moment.clock,
            attempt: attributes.attempt.max(1),
            queue: queue.map(|queue| queue.name.clone()).unwrap_or_default(),
            sticky: queue.is_some_and(|queue| queue.kind == TaskQueueKind::Sticky as i32),
            started: None,
        });
        self.task_anchor = anchor;
    }

    fn fold_task_started(
        &mut self,
        attributes: &history::WorkflowTaskStartedEventAttributes,
        anchor: Anchor,
        moment: Moment,
    ) -> Result<(), FoldError> {
        let task = self.task.as_mut().filter(|task| task.scheduled.0 == attributes.scheduled_event_id);
        let task = task.ok_or_else(|| FoldError::Unknown {
            event: anchor.event,
            kind: "WorkflowTaskStarted",
            what: format!("workflow task #{}", attributes.scheduled_event_id),
        })?;
        task.started = Some(TaskStarted {
            event: anchor.event,
            version: anchor.version,
            at: moment.at,
            clock: moment.clock,
            request_id: attributes.request_id.clone(),
            identity: attributes.identity.clone(),
        });
        self.task_anchor = anchor;
        Ok(())
    }

    fn fold_task_ended(&mut self, anchor: Anchor, failed_attempt: i32) {
        self.task = None;
        self.task_anchor = anchor;
        self.task_failed_attempt = failed_attempt;
    }

    fn fold_activity(
        &mut self,
        attributes: &history::ActivityTaskScheduledEventAttributes,
        anchor: Anchor,
        moment: Moment,
    ) {
        self.activity_ids.insert(attributes.activity_id.clone(), anchor.event);
        let activity = Activity {
            scheduled: anchor.event,
            version: anchor.version,
            scheduled_at: moment.at,
            clock: moment.clock,
            attributes: Arc::new(detached(attributes)),
            cancel_requested: None,
        };
        self.activities.insert(anchor.event, activity);
    }

    fn activity(
        &mut self,
        anchor: Anchor,
        kind: &'static str,
        scheduled: i64,
    ) -> Result<&mut Activity, FoldError> {
        self.activities.get_mut(&EventId(scheduled)).ok_or_else(|| FoldError::Unknown {
            event: anchor.event,
            kind,
            what: format!("activity #{scheduled}"),
        })
    }

    fn activity_end(&mut self, anchor: Anchor, kind: &'static str, scheduled: i64) -> Result<(), FoldError> {
        let id = self.activity(anchor, kind, scheduled)?.attributes.activity_id.clone();
        self.activities.remove(&EventId(scheduled));
        self.activity_ids.remove(&id);
        Ok(())
    }

    fn timer_end(&mut self, anchor: Anchor, kind: &'static str, id: &str) -> Result<(), FoldError> {
        match self.timers.remove(id) {
            Some(_) => Ok(()),
            None => Err(FoldError::Unknown { event: anchor.event, kind, what: format!("timer {id:?}") }),
        }
    }

    fn fold_close(&mut self, status: Status, anchor: Anchor, moment: Moment, successor: &str) {
        self.status = status;
        self.close = Some(Close {
            event: anchor.event,
            at: moment.at,
            clock: moment.clock,
            version: anchor.version,
            successor: successor.parse().ok(),
        });
        self.task = None;
        self.activities.clear();
        self.activity_ids.clear();
        self.timers.clear();
    }

    fn upsert_search_attributes(
        &mut self,
        upserted: Option<&antipode_proto::api::common::v1::SearchAttributes>,
    ) {
        let Some(upserted) = upserted else { return };
        let fields = &mut self.search_attributes.get_or_insert_default().indexed_fields;
        merge_payloads(fields, &upserted.indexed_fields);
    }

    fn upsert_memo(&mut self, upserted: Option<&antipode_proto::api::common::v1::Memo>) {
        let Some(upserted) = upserted else { return };
        merge_payloads(&mut self.memo.get_or_insert_default().fields, &upserted.fields);
    }
}

/// A copy that shares no bytes with the message: what a run keeps for long must not keep the buffer alive in which a request
/// arrived. The same message comes back, because it was encoded from itself.
fn detached<M: Message + Default + Clone>(message: &M) -> M {
    M::decode(&*message.encode_to_vec()).unwrap_or_else(|_| message.clone())
}

type Payloads = std::collections::BTreeMap<String, antipode_proto::api::common::v1::Payload>;

/// Upserts; a null payload removes its key.
fn merge_payloads(fields: &mut Payloads, upserted: &Payloads) {
    for (key, payload) in upserted {
        let encoding = payload.metadata.get("encoding").map(|value| &value[..]);
        let null = encoding == Some(b"binary/null".as_slice())
            || (encoding == Some(b"json/plain".as_slice()) && &payload.data[..] == b"null");
        if null {
            fields.remove(key);
        } else {
            fields.insert(key.clone(), payload.clone());
        }
    }
}
