//! What simulated workflows do: a list of steps, interpreted against the history that a worker was given, as an SDK would.
//! The commands of a workflow task follow from the events before its start alone; so any history can be replayed, and a
//! history under which the same steps give other commands is one that breaks real workers (A4, A8).

use std::collections::{BTreeMap, BTreeSet};

use antipode_proto::api::{
    command::v1::{self as command, Command, command::Attributes},
    common::v1::{ActivityType, Memo, Payload, Payloads},
    enums::v1::{CommandType, EventType},
    failure::v1::Failure,
    history::v1::{HistoryEvent, history_event::Attributes as Event},
    taskqueue::v1::TaskQueue,
};

use super::span::Span;

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Schedules an activity that behaves so, and waits for its end.
    Activity(Behaviour),
    /// Starts a timer and waits for it.
    Timer(Span),
    /// Waits until so many signals have come.
    Signals(usize),
    /// Waits until this signal has come.
    Signal(String),
    /// Starts several things and waits for all.
    All(Vec<Act>),
    /// Starts a timer of an hour, and cancels it when the next signal has come.
    CancelTimer,
    /// Records a marker.
    Marker,
    /// Changes the memo.
    Memo,
    /// Waits for a cancellation request.
    AwaitCancel,
    /// Continues as new with the steps that follow.
    ContinueAsNew,
    /// Continues as new with all steps.
    Loop,
    /// Completes.
    Complete,
    /// Fails.
    Fail,
    /// Ends as cancelled.
    Cancelled,
}

/// What an activity does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Completes.
    Well,
    /// Its first attempts fail, so many.
    Fails(u32),
    /// Never answers: it times out after five seconds, twice.
    Silent,
    /// Sends a heartbeat first.
    Heartbeat,
}

impl Behaviour {
    fn word(self) -> String {
        match self {
            Self::Well => "well".to_string(),
            Self::Fails(times) => format!("fails {times}"),
            Self::Silent => "silent".to_string(),
            Self::Heartbeat => "heartbeat".to_string(),
        }
    }

    /// From an activity type's name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "" | "well" => Some(Self::Well),
            "silent" => Some(Self::Silent),
            "heartbeat" => Some(Self::Heartbeat),
            _ => text.strip_prefix("fails ").and_then(|times| times.trim().parse().ok()).map(Self::Fails),
        }
    }
}

impl Act {
    /// From a scenario's words.
    ///
    /// # Errors
    /// What was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is no step of a workflow: expected activity [well|fails N|silent|heartbeat], timer LENGTH, signals N, \
                 signal NAME, all STEP & STEP, cancel-timer, marker, memo, await-cancel, continue-as-new, loop, complete, fail \
                 or cancelled"
            )
        };
        let text = text.trim();
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        let rest = rest.trim();
        Ok(match word {
            "activity" => Self::Activity(Behaviour::parse(rest).ok_or_else(wrong)?),
            "timer" => Self::Timer(Span::parse(rest)?),
            "signals" => Self::Signals(rest.parse().map_err(|_| wrong())?),
            "signal" if !rest.is_empty() => Self::Signal(rest.to_string()),
            "all" => Self::All(rest.split('&').map(Self::parse).collect::<Result<_, _>>()?),
            "cancel-timer" => Self::CancelTimer,
            "marker" => Self::Marker,
            "memo" => Self::Memo,
            "await-cancel" => Self::AwaitCancel,
            "continue-as-new" => Self::ContinueAsNew,
            "loop" => Self::Loop,
            "complete" => Self::Complete,
            "fail" => Self::Fail,
            "cancelled" => Self::Cancelled,
            _ => return Err(wrong()),
        })
    }

    /// As a scenario writes it.
    #[must_use]
    pub fn word(&self) -> String {
        match self {
            Self::Activity(behaviour) => format!("activity {}", behaviour.word()),
            Self::Timer(span) => format!("timer {span}"),
            Self::Signals(count) => format!("signals {count}"),
            Self::Signal(name) => format!("signal {name}"),
            Self::All(acts) => {
                format!("all {}", acts.iter().map(Self::word).collect::<Vec<_>>().join(" & "))
            }
            Self::CancelTimer => "cancel-timer".to_string(),
            Self::Marker => "marker".to_string(),
            Self::Memo => "memo".to_string(),
            Self::AwaitCancel => "await-cancel".to_string(),
            Self::ContinueAsNew => "continue-as-new".to_string(),
            Self::Loop => "loop".to_string(),
            Self::Complete => "complete".to_string(),
            Self::Fail => "fail".to_string(),
            Self::Cancelled => "cancelled".to_string(),
        }
    }
}

/// A list of steps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program(pub Vec<Act>);

const SEPARATOR: &str = "; ";

impl Program {
    /// From a scenario's words.
    ///
    /// # Errors
    /// What was expected.
    pub fn parse<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        words.into_iter().map(Act::parse).collect::<Result<_, _>>().map(Self)
    }

    /// As a scenario writes it.
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        self.0.iter().map(Act::word).collect()
    }

    /// The input of a start: the steps travel in the started event.
    #[must_use]
    pub fn input(&self) -> Payloads {
        payload(&self.words().join(SEPARATOR))
    }

    fn from_history(events: &[HistoryEvent]) -> Option<Self> {
        let first = events.first()?;
        let Some(Event::WorkflowExecutionStartedEventAttributes(started)) = &first.attributes else {
            return None;
        };
        let data = &started.input.as_ref()?.payloads.first()?.data;
        let text = std::str::from_utf8(data).ok()?;
        if text.is_empty() {
            return Some(Self::default());
        }
        Self::parse(text.split(SEPARATOR)).ok()
    }
}

fn payload(text: &str) -> Payloads {
    let data = bytes::Bytes::copy_from_slice(text.as_bytes());
    Payloads { payloads: vec![Payload { data, ..Default::default() }] }
}

/// What the events say so far.
#[derive(Default)]
struct Seen {
    activities: BTreeMap<String, i64>,
    activities_closed: BTreeSet<i64>,
    timers: BTreeMap<String, bool>,
    signals: usize,
    named: BTreeMap<String, usize>,
    markers: BTreeSet<String>,
    memos: usize,
    cancel: bool,
}

impl Seen {
    fn of(events: &[HistoryEvent]) -> Self {
        let mut seen = Self::default();
        for event in events {
            seen.take(event);
        }
        seen
    }

    fn take(&mut self, event: &HistoryEvent) {
        match &event.attributes {
            Some(Event::ActivityTaskScheduledEventAttributes(a)) => {
                self.activities.insert(a.activity_id.clone(), event.event_id);
            }
            Some(Event::ActivityTaskCompletedEventAttributes(a)) => {
                self.activities_closed.insert(a.scheduled_event_id);
            }
            Some(Event::ActivityTaskFailedEventAttributes(a)) => {
                self.activities_closed.insert(a.scheduled_event_id);
            }
            Some(Event::ActivityTaskTimedOutEventAttributes(a)) => {
                self.activities_closed.insert(a.scheduled_event_id);
            }
            Some(Event::ActivityTaskCanceledEventAttributes(a)) => {
                self.activities_closed.insert(a.scheduled_event_id);
            }
            Some(Event::TimerStartedEventAttributes(a)) => {
                self.timers.insert(a.timer_id.clone(), false);
            }
            Some(Event::TimerFiredEventAttributes(a)) => {
                self.timers.insert(a.timer_id.clone(), true);
            }
            Some(Event::TimerCanceledEventAttributes(a)) => {
                self.timers.insert(a.timer_id.clone(), true);
            }
            Some(Event::WorkflowExecutionSignaledEventAttributes(a)) => {
                self.signals += 1;
                *self.named.entry(a.signal_name.clone()).or_default() += 1;
            }
            Some(Event::MarkerRecordedEventAttributes(a)) => {
                self.markers.insert(a.marker_name.clone());
            }
            Some(Event::WorkflowPropertiesModifiedEventAttributes(_)) => self.memos += 1,
            Some(Event::WorkflowExecutionCancelRequestedEventAttributes(_)) => self.cancel = true,
            _ => {}
        }
    }
}

/// What one pass over the steps gives.
struct Pass<'a> {
    seen: Seen,
    commands: Vec<Command>,
    whole: &'a Program,
    named: BTreeMap<String, usize>,
    memos: usize,
}

impl Pass<'_> {
    /// Whether the step is over, so that the next may begin.
    fn act(&mut self, id: &str, index: usize, act: &Act) -> bool {
        match act {
            Act::Activity(behaviour) => match self.seen.activities.get(id) {
                None => {
                    self.commands.push(schedule(id, *behaviour));
                    false
                }
                Some(scheduled) => self.seen.activities_closed.contains(scheduled),
            },
            Act::Timer(span) => self.timer(id, *span),
            Act::CancelTimer => {
                let done = self.timer(id, Span::seconds(3_600));
                if !done && self.seen.timers.contains_key(id) && self.seen.signals > 0 {
                    self.commands.push(cancel_timer(id));
                    return true;
                }
                done
            }
            Act::Signals(count) => self.seen.signals >= *count,
            Act::Signal(name) => {
                let wanted = self.named.entry(name.clone()).or_default();
                *wanted += 1;
                self.seen.named.get(name).copied().unwrap_or(0) >= *wanted
            }
            Act::All(acts) => {
                let mut all = true;
                for (number, act) in acts.iter().enumerate() {
                    all &= self.act(&format!("{id}.{number}"), index, act);
                }
                all
            }
            Act::Marker => {
                if !self.seen.markers.contains(id) {
                    self.commands.push(marker(id));
                }
                true
            }
            Act::Memo => {
                self.memos += 1;
                if self.seen.memos < self.memos {
                    self.commands.push(memo(id));
                }
                true
            }
            Act::AwaitCancel => self.seen.cancel,
            Act::ContinueAsNew => {
                let rest = self.whole.0.get(index + 1..).unwrap_or_default().to_vec();
                self.commands.push(continue_as_new(&Program(rest)));
                false
            }
            Act::Loop => {
                self.commands.push(continue_as_new(self.whole));
                false
            }
            Act::Complete => {
                self.commands.push(complete());
                false
            }
            Act::Fail => {
                self.commands.push(fail());
                false
            }
            Act::Cancelled => {
                self.commands.push(cancelled());
                false
            }
        }
    }

    fn timer(&mut self, id: &str, span: Span) -> bool {
        match self.seen.timers.get(id) {
            None => {
                self.commands.push(start_timer(id, span));
                false
            }
            Some(over) => *over,
        }
    }
}

/// The commands of a workflow task that was given these events.
#[must_use]
pub fn decide(events: &[HistoryEvent]) -> Vec<Command> {
    let Some(program) = Program::from_history(events) else { return Vec::new() };
    let mut pass = Pass {
        seen: Seen::of(events),
        commands: Vec::new(),
        whole: &program,
        named: BTreeMap::new(),
        memos: 0,
    };
    for (index, act) in program.0.iter().enumerate() {
        if !pass.act(&format!("s{index}"), index, act) {
            break;
        }
    }
    pass.commands
}

/// What a replay would say to a history: the first workflow task whose commands are not what its events call for.
#[must_use]
pub fn replay(events: &[HistoryEvent]) -> Option<String> {
    for (index, event) in events.iter().enumerate() {
        let Some(Event::WorkflowTaskCompletedEventAttributes(completed)) = &event.attributes else {
            continue;
        };
        let given = usize::try_from(completed.started_event_id).unwrap_or(0).min(events.len());
        let wanted: Vec<String> = decide(&events[..given]).iter().map(command_word).collect();
        let written: Vec<String> =
            events[index + 1..].iter().filter_map(|later| event_word(later, event.event_id)).collect();
        if wanted != written {
            return Some(format!(
                "the workflow task completed by event {} was given events 1..{given}, which call for {wanted:?}; it wrote {written:?}",
                event.event_id
            ));
        }
    }
    None
}

fn command_word(command: &Command) -> String {
    match &command.attributes {
        Some(Attributes::ScheduleActivityTaskCommandAttributes(a)) => format!("activity {}", a.activity_id),
        Some(Attributes::StartTimerCommandAttributes(a)) => format!("timer {}", a.timer_id),
        Some(Attributes::CancelTimerCommandAttributes(a)) => format!("cancel {}", a.timer_id),
        Some(Attributes::RecordMarkerCommandAttributes(a)) => format!("marker {}", a.marker_name),
        Some(Attributes::ModifyWorkflowPropertiesCommandAttributes(_)) => "memo".to_string(),
        _ => CommandType::try_from(command.command_type)
            .unwrap_or_default()
            .as_str_name()
            .trim_start_matches("COMMAND_TYPE_")
            .to_string(),
    }
}

/// What a command of this workflow task wrote.
fn event_word(event: &HistoryEvent, completed: i64) -> Option<String> {
    let (task, word) = match &event.attributes {
        Some(Event::ActivityTaskScheduledEventAttributes(a)) => {
            (a.workflow_task_completed_event_id, format!("activity {}", a.activity_id))
        }
        Some(Event::TimerStartedEventAttributes(a)) => {
            (a.workflow_task_completed_event_id, format!("timer {}", a.timer_id))
        }
        Some(Event::TimerCanceledEventAttributes(a)) => {
            (a.workflow_task_completed_event_id, format!("cancel {}", a.timer_id))
        }
        Some(Event::MarkerRecordedEventAttributes(a)) => {
            (a.workflow_task_completed_event_id, format!("marker {}", a.marker_name))
        }
        Some(Event::WorkflowPropertiesModifiedEventAttributes(a)) => {
            (a.workflow_task_completed_event_id, "memo".to_string())
        }
        Some(Event::WorkflowExecutionCompletedEventAttributes(a)) => {
            (a.workflow_task_completed_event_id, "COMPLETE_WORKFLOW_EXECUTION".to_string())
        }
        Some(Event::WorkflowExecutionFailedEventAttributes(a)) => {
            (a.workflow_task_completed_event_id, "FAIL_WORKFLOW_EXECUTION".to_string())
        }
        Some(Event::WorkflowExecutionCanceledEventAttributes(a)) => {
            (a.workflow_task_completed_event_id, "CANCEL_WORKFLOW_EXECUTION".to_string())
        }
        Some(Event::WorkflowExecutionContinuedAsNewEventAttributes(a)) => {
            (a.workflow_task_completed_event_id, "CONTINUE_AS_NEW_WORKFLOW_EXECUTION".to_string())
        }
        _ => return None,
    };
    (task == completed).then_some(word)
}

/// Name of an event's type, as in `WorkflowExecutionStarted`.
#[must_use]
pub fn event_name(event: &HistoryEvent) -> String {
    let kind = EventType::try_from(event.event_type).unwrap_or_default();
    let words = kind.as_str_name().trim_start_matches("EVENT_TYPE_").split('_');
    words
        .map(|word| {
            let (first, rest) = word.split_at(word.len().min(1));
            format!("{first}{}", rest.to_lowercase())
        })
        .collect()
}

fn command(kind: CommandType, attributes: Attributes) -> Command {
    Command {
        command_type: kind as i32,
        user_metadata: None,
        attributes: Some(attributes),
        ..Default::default()
    }
}

fn duration(span: Span) -> Option<prost_types::Duration> {
    let nanos = i32::try_from(span.0 % 1_000_000_000).unwrap_or(0);
    Some(prost_types::Duration { seconds: span.0 / 1_000_000_000, nanos })
}

/// The one task queue.
#[must_use]
pub fn queue() -> Option<TaskQueue> {
    Some(TaskQueue { name: "queue".to_string(), kind: 1, normal_name: String::new() })
}

fn schedule(id: &str, behaviour: Behaviour) -> Command {
    let attempts = if behaviour == Behaviour::Silent { 2 } else { 0 };
    let policy = antipode_proto::api::common::v1::RetryPolicy {
        initial_interval: duration(Span::seconds(1)),
        backoff_coefficient: 1.0,
        maximum_attempts: attempts,
        ..Default::default()
    };
    command(
        CommandType::ScheduleActivityTask,
        Attributes::ScheduleActivityTaskCommandAttributes(command::ScheduleActivityTaskCommandAttributes {
            activity_id: id.to_string(),
            activity_type: Some(ActivityType { name: behaviour.word() }),
            task_queue: queue(),
            start_to_close_timeout: duration(Span::seconds(5)),
            retry_policy: Some(policy),
            ..Default::default()
        }),
    )
}

fn start_timer(id: &str, span: Span) -> Command {
    command(
        CommandType::StartTimer,
        Attributes::StartTimerCommandAttributes(command::StartTimerCommandAttributes {
            timer_id: id.to_string(),
            start_to_fire_timeout: duration(span),
        }),
    )
}

fn cancel_timer(id: &str) -> Command {
    command(
        CommandType::CancelTimer,
        Attributes::CancelTimerCommandAttributes(command::CancelTimerCommandAttributes {
            timer_id: id.to_string(),
        }),
    )
}

fn marker(id: &str) -> Command {
    command(
        CommandType::RecordMarker,
        Attributes::RecordMarkerCommandAttributes(command::RecordMarkerCommandAttributes {
            marker_name: id.to_string(),
            ..Default::default()
        }),
    )
}

fn memo(id: &str) -> Command {
    let data = bytes::Bytes::copy_from_slice(id.as_bytes());
    let fields = [("step".to_string(), Payload { data, ..Default::default() })].into_iter().collect();
    command(
        CommandType::ModifyWorkflowProperties,
        Attributes::ModifyWorkflowPropertiesCommandAttributes(
            command::ModifyWorkflowPropertiesCommandAttributes { upserted_memo: Some(Memo { fields }) },
        ),
    )
}

fn continue_as_new(program: &Program) -> Command {
    command(
        CommandType::ContinueAsNewWorkflowExecution,
        Attributes::ContinueAsNewWorkflowExecutionCommandAttributes(
            command::ContinueAsNewWorkflowExecutionCommandAttributes {
                input: Some(program.input()),
                ..Default::default()
            },
        ),
    )
}

fn complete() -> Command {
    command(
        CommandType::CompleteWorkflowExecution,
        Attributes::CompleteWorkflowExecutionCommandAttributes(
            command::CompleteWorkflowExecutionCommandAttributes { result: Some(payload("done")) },
        ),
    )
}

fn fail() -> Command {
    command(
        CommandType::FailWorkflowExecution,
        Attributes::FailWorkflowExecutionCommandAttributes(command::FailWorkflowExecutionCommandAttributes {
            failure: Some(Failure { message: "told to".to_string(), ..Default::default() }),
        }),
    )
}

fn cancelled() -> Command {
    command(
        CommandType::CancelWorkflowExecution,
        Attributes::CancelWorkflowExecutionCommandAttributes(
            command::CancelWorkflowExecutionCommandAttributes { details: None },
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_come_back() {
        let words = [
            "activity fails 2",
            "timer 5s",
            "all activity well & timer 250ms",
            "signals 2",
            "continue-as-new",
            "complete",
        ];
        let program = Program::parse(words).expect("all are steps");
        assert_eq!(program.words(), words);
        assert!(Program::parse(["activty"]).is_err());
    }
}
