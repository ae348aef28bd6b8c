//! The writer of one batch: gives each event its id, time and version, folds it at once, and seals the batch at the end.

use std::sync::Arc;

use antipode_proto::api::{
    enums::v1::EventType,
    history::v1::{HistoryEvent, history_event::Attributes},
    sdk::v1::UserMetadata,
};

use crate::{
    batch::{Batch, Envelope, EventIdentity, Origin},
    fold::FOLD_VERSION,
    identity::Identity,
    ids::{EventId, FailoverVersion, Incarnation, Place, RunId, Sequence, ShardId, Timestamp},
    inheritance::Inheritance,
    refusal::Refusal,
    run::Run,
};

use super::{Context, broken};

/// Where a batch goes: its position in the shard's log, and the place of its run after it. They differ only in a
/// continued chain: the successor's first batch precedes the closing batch in the log (B8) and follows it in place (B7).
#[derive(Clone, Copy, Debug)]
pub struct Seat {
    /// Shard.
    pub shard: ShardId,
    /// Life of the store.
    pub incarnation: Incarnation,
    /// Position in the log.
    pub log: Sequence,
    /// Place.
    pub place: Place,
    /// Equal for all batches of one transition (B5).
    pub causal: u64,
}

/// A batch being written.
pub struct Draft<'a> {
    /// The run, already changed by the events so far.
    pub run: &'a mut Run,
    /// Context of the decision.
    pub context: Context,
    /// Next run of the chain, named by a closing event (B8).
    pub successor: Option<RunId>,
    seat: Seat,
    at: Timestamp,
    clock: Option<Timestamp>,
    first_event: EventId,
    events: Vec<HistoryEvent>,
    identities: Vec<EventIdentity>,
    inherited: Inheritance,
}

impl<'a> Draft<'a> {
    /// Starts a batch of this run.
    pub fn new(run: &'a mut Run, context: Context, seat: Seat) -> Self {
        // H2: the time of a branch never goes back.
        let at = context.now.max(run.state.last_time);
        // What it starts counts from our own clock, which the header keeps for the other regions.
        // A clock at the very epoch has no place there: zero is no clock.
        let clock = (at != context.now && context.now.0 != 0).then_some(context.now);
        let first_event = run.state.next_event;
        Self {
            run,
            context,
            successor: None,
            seat,
            at,
            clock,
            first_event,
            events: Vec::new(),
            identities: Vec::new(),
            inherited: Inheritance::default(),
        }
    }

    /// Whether an event was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// The applied set of the chain before this run (B2); first batch of a successor only.
    pub fn inherit(&mut self, inherited: Inheritance) {
        self.inherited = inherited;
    }

    /// What the next run of the chain inherits of the applied set, with what this batch wrote so far (B2).
    #[must_use]
    pub fn inheritance(&self) -> Inheritance {
        Inheritance::of(self.run, &self.identities)
    }

    /// Writes an event.
    ///
    /// # Errors
    /// [`Refusal::Internal`] when the fold refuses it.
    pub fn event(&mut self, attributes: Attributes) -> Result<EventId, Refusal> {
        self.event_with(attributes, None, Vec::new())
    }

    /// Writes an event with metadata and links.
    ///
    /// # Errors
    /// [`Refusal::Internal`] when the fold refuses it.
    pub fn event_with(
        &mut self,
        attributes: Attributes,
        user_metadata: Option<UserMetadata>,
        links: Vec<antipode_proto::api::common::v1::Link>,
    ) -> Result<EventId, Refusal> {
        let id = self.run.state.next_event;
        let event = HistoryEvent {
            event_id: id.0,
            event_time: Some(self.at.to_proto()),
            event_type: event_type(&attributes) as i32,
            version: self.context.version.0,
            task_id: i64::try_from(self.seat.place.sequence).unwrap_or(i64::MAX),
            worker_may_ignore: false,
            user_metadata,
            links,
            attributes: Some(attributes),
            ..HistoryEvent::default()
        };
        self.run.state.apply_event(&event, self.clock).map_err(broken)?;
        self.events.push(event);
        Ok(id)
    }

    /// Names the external event that was written last.
    pub fn identify(
        &mut self,
        event: EventId,
        identity: Identity,
        named_run: bool,
        reapplied_from: Option<(RunId, FailoverVersion)>,
    ) {
        // Known at once: what was written earlier in this batch must not be written again by it (V11).
        self.run.state.apply_identity(&identity);
        self.identities.push(EventIdentity { event, identity, named_run, reapplied_from });
    }

    /// Whether an activity was cancelled by this batch before it started: the worker must see that.
    #[must_use]
    pub fn cancelled_activity(&self) -> bool {
        let cancelled = |event: &HistoryEvent| {
            matches!(event.attributes, Some(Attributes::ActivityTaskCanceledEventAttributes(_)))
        };
        self.events.iter().any(cancelled)
    }

    /// Place of the run after this batch.
    #[must_use]
    pub fn place(&self) -> Place {
        self.seat.place
    }

    /// Ends the batch: none when no event was written.
    ///
    /// # Errors
    /// [`Refusal::Internal`] when the version history would not grow (V12, V13).
    pub fn seal(self) -> Result<Option<Arc<Batch>>, Refusal> {
        if self.events.is_empty() {
            return Ok(None);
        }
        let last_event = self.run.state.last_event();
        let version = self.context.version;
        let items = self.run.items();
        let item = crate::version_history::Item { event: last_event, version };
        let items = items.with(item).map_err(broken)?;
        let envelope = Envelope {
            run: self.run.key.clone(),
            first_run: self.run.first_run,
            first_event: self.first_event,
            last_event,
            version,
            previous: self.run.tip(),
            items,
            origin: Origin {
                region: self.context.region,
                incarnation: self.seat.incarnation,
                shard: self.seat.shard,
                sequence: self.seat.log,
            },
            place: self.seat.place,
            causal: self.seat.causal,
            identities: self.identities,
            successor: self.successor,
            inherited: self.inherited.kept,
            recent: self.inherited.recent,
            fold_version: FOLD_VERSION,
            clock: self.clock,
        };
        let batch = Arc::new(Batch::seal(envelope, &self.events));
        self.run.sealed(&batch).map_err(broken)?;
        Ok(Some(batch))
    }
}

/// Type number of an event by its attributes.
#[must_use]
pub(crate) fn event_type(attributes: &Attributes) -> EventType {
    use Attributes as A;
    match attributes {
        A::WorkflowExecutionStartedEventAttributes(_) => EventType::WorkflowExecutionStarted,
        A::WorkflowExecutionCompletedEventAttributes(_) => EventType::WorkflowExecutionCompleted,
        A::WorkflowExecutionFailedEventAttributes(_) => EventType::WorkflowExecutionFailed,
        A::WorkflowExecutionTimedOutEventAttributes(_) => EventType::WorkflowExecutionTimedOut,
        A::WorkflowExecutionCanceledEventAttributes(_) => EventType::WorkflowExecutionCanceled,
        A::WorkflowExecutionTerminatedEventAttributes(_) => EventType::WorkflowExecutionTerminated,
        A::WorkflowExecutionContinuedAsNewEventAttributes(_) => EventType::WorkflowExecutionContinuedAsNew,
        A::WorkflowExecutionSignaledEventAttributes(_) => EventType::WorkflowExecutionSignaled,
        A::WorkflowExecutionCancelRequestedEventAttributes(_) => EventType::WorkflowExecutionCancelRequested,
        A::WorkflowTaskScheduledEventAttributes(_) => EventType::WorkflowTaskScheduled,
        A::WorkflowTaskStartedEventAttributes(_) => EventType::WorkflowTaskStarted,
        A::WorkflowTaskCompletedEventAttributes(_) => EventType::WorkflowTaskCompleted,
        A::WorkflowTaskTimedOutEventAttributes(_) => EventType::WorkflowTaskTimedOut,
        A::WorkflowTaskFailedEventAttributes(_) => EventType::WorkflowTaskFailed,
        A::ActivityTaskScheduledEventAttributes(_) => EventType::ActivityTaskScheduled,
        A::ActivityTaskStartedEventAttributes(_) => EventType::ActivityTaskStarted,
        A::ActivityTaskCompletedEventAttributes(_) => EventType::ActivityTaskCompleted,
        A::ActivityTaskFailedEventAttributes(_) => EventType::ActivityTaskFailed,
        A::ActivityTaskTimedOutEventAttributes(_) => EventType::ActivityTaskTimedOut,
        A::ActivityTaskCancelRequestedEventAttributes(_) => EventType::ActivityTaskCancelRequested,
        A::ActivityTaskCanceledEventAttributes(_) => EventType::ActivityTaskCanceled,
        A::TimerStartedEventAttributes(_) => EventType::TimerStarted,
        A::TimerFiredEventAttributes(_) => EventType::TimerFired,
        A::TimerCanceledEventAttributes(_) => EventType::TimerCanceled,
        A::MarkerRecordedEventAttributes(_) => EventType::MarkerRecorded,
        A::UpsertWorkflowSearchAttributesEventAttributes(_) => EventType::UpsertWorkflowSearchAttributes,
        A::WorkflowPropertiesModifiedEventAttributes(_) => EventType::WorkflowPropertiesModified,
        // No decision writes the others yet.
        _ => EventType::Unspecified,
    }
}
