//! The rollback report of a run: for every event of every losing branch what became of it. Written again as which event,
//! owed, listed as unclaimed and why, progress lost, or done perhaps twice. Pure: from the run's tree, its applied set and
//! its records, so that every region that holds the same run says the same (I16).

use std::collections::{BTreeMap, BTreeSet};

use antipode_core::{
    batch::{Batch, EventIdentity},
    chain::ChainValue,
    identity::Identity,
    ids::EventId,
    register::{Anchor, Kind, Register},
    run::Run,
    tree::{Branch, Tree},
    version_history::Item,
};
use antipode_proto::{
    api::{
        enums::v1::EventType,
        history::v1::{HistoryEvent, history_event::Attributes as A},
    },
    core as wire,
};
use serde::Serialize;

use crate::explain::{why_current, why_lost};

/// What became of one event of a losing branch.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Fate {
    /// Written again on the current branch, under its original identity.
    Reapplied {
        /// As this event: `12@2`.
        event: String,
    },
    /// The client asked in both regions; the current branch has the same request.
    Present {
        /// As this event.
        event: String,
    },
    /// Owed: the active region writes it again as soon as it looks at the run.
    Owed,
    /// Will not be applied, and is listed.
    Unclaimed {
        /// Why.
        verdict: String,
    },
    /// Another run took it.
    Delivered {
        /// Which, and what became of it.
        verdict: String,
    },
    /// Internal progress, forgotten (R007).
    Lost {
        /// What.
        progress: String,
    },
    /// Its effects happened outside and may happen, or have happened, again.
    MayRunTwice {
        /// Why.
        why: String,
    },
    /// A step without content of its own.
    Nothing,
}

impl Fate {
    /// In words.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::Reapplied { event } => format!("written again as {event}"),
            Self::Present { event } => format!("the same request stands as {event}"),
            Self::Owed => "owed: the active region writes it again".to_owned(),
            Self::Unclaimed { verdict } => format!("not applied: {verdict}"),
            Self::Delivered { verdict } => format!("delivered: {verdict}"),
            Self::Lost { progress } => format!("progress lost: {progress}"),
            Self::MayRunTwice { why } => format!("may have run twice: {why}"),
            Self::Nothing => "nothing is lost with it".to_owned(),
        }
    }

    /// Its name, for counts.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Reapplied { .. } => "reapplied",
            Self::Present { .. } => "present",
            Self::Owed => "owed",
            Self::Unclaimed { .. } => "unclaimed",
            Self::Delivered { .. } => "delivered",
            Self::Lost { .. } => "lost",
            Self::MayRunTwice { .. } => "may_run_twice",
            Self::Nothing => "nothing",
        }
    }
}

/// One event of a losing branch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LostEvent {
    /// Id and version: `11@1`.
    pub event: String,
    /// Type: `WorkflowExecutionSignaled`.
    pub kind: String,
    /// What it was about: `signal "s1"`; empty when the type says it all.
    pub about: String,
    /// What became of it.
    pub fate: Fate,
}

/// One losing branch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LostBranch {
    /// Version history.
    pub items: String,
    /// Chain value at its tip, hexadecimal.
    pub chain: String,
    /// Last event that it shares with the current branch.
    pub fork: String,
    /// Why it lost.
    pub why: String,
    /// Its events; those that it shares with a greater losing branch stand there.
    pub events: Vec<LostEvent>,
}

/// A register's value that lost to a write that had not seen it (A6).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LostValue {
    /// Event that the register belongs to.
    pub anchor: String,
    /// Which register.
    pub kind: String,
    /// The value that lost, in words.
    pub value: String,
    /// Version under which it was written.
    pub version: String,
    /// Version of the value that won.
    pub winner: String,
    /// One owner wrote both: alarm (G2).
    pub fork: bool,
}

impl LostValue {
    /// A record of a run, as it is told.
    #[must_use]
    pub fn of(lost: &wire::LostValue) -> Option<Self> {
        let register = Register::from_wire(lost.register.as_ref()?).ok()?;
        let value = value_words(&register)?;
        Some(Self {
            anchor: Item::new(register.anchor.event, register.anchor.version).to_string(),
            kind: format!("{:?}", register.kind),
            value,
            version: register.order.version.to_string(),
            winner: format!("@{}", lost.winner_version),
            fork: lost.fork,
        })
    }

    /// The story in one line.
    #[must_use]
    pub fn words(&self) -> String {
        let fork = if self.fork { "; one owner wrote both" } else { "" };
        let (kind, anchor, version, winner) = (&self.kind, &self.anchor, &self.version, &self.winner);
        format!("{kind} of {anchor}: {} written under {version} lost to {winner}{fork}", self.value)
    }
}

/// An accepted event that is in no losing branch and will not be applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Filed {
    /// Its identity.
    pub identity: String,
    /// Version under which it was accepted.
    pub version: String,
    /// Why it is not applied.
    pub verdict: String,
}

/// What a run lost, and what it did not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rollback {
    /// Run id.
    pub run: String,
    /// Version history of the current branch.
    pub current: String,
    /// Why it is current.
    pub why: String,
    /// Losing branches, the greatest first.
    pub branches: Vec<LostBranch>,
    /// Values that lost.
    pub values: Vec<LostValue>,
    /// Other events that will not be applied.
    pub filed: Vec<Filed>,
    /// Events by fate.
    pub totals: BTreeMap<&'static str, usize>,
}

/// The rollback report of a run; none before its first batch.
#[must_use]
pub fn rollback(run: &Run) -> Option<Rollback> {
    let tree = run.tree.as_ref()?;
    let book = Book::of(run);
    let mut told: BTreeSet<ChainValue> = tree.walk(tree.current().chain).map(|(chain, _)| chain).collect();
    let losers = tree.branches().iter().rev().skip(1);
    let branches: Vec<_> = losers.map(|branch| book.branch(tree, branch, &mut told)).collect();
    let mut totals = BTreeMap::new();
    for event in branches.iter().flat_map(|branch| &branch.events) {
        *totals.entry(event.fate.name()).or_default() += 1;
    }
    Some(Rollback {
        run: run.key.run.to_string(),
        current: tree.current().items.to_string(),
        why: why_current(tree),
        filed: book.filed(&told),
        values: run.lost.iter().filter_map(LostValue::of).collect(),
        branches,
        totals,
    })
}

impl Rollback {
    /// Nothing was rolled back.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.branches.is_empty() && self.values.is_empty() && self.filed.is_empty()
    }

    /// The report as JSON.
    #[must_use]
    pub fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The report as text, one line an event.
    #[must_use]
    pub fn words(&self) -> String {
        let mut lines = vec![format!("run {}: {} is current, because {}", self.run, self.current, self.why)];
        if self.is_empty() {
            lines.push("nothing was rolled back".to_owned());
        }
        for branch in &self.branches {
            lines.push(format!("lost {} after {}: {}", branch.items, branch.fork, branch.why));
            lines.extend(branch.events.iter().map(|event| {
                let about = if event.about.is_empty() { String::new() } else { format!(", {}", event.about) };
                format!("  {} {}{about}: {}", event.event, event.kind, event.fate.words())
            }));
        }
        lines.extend(self.values.iter().map(LostValue::words));
        lines.extend(
            self.filed
                .iter()
                .map(|filed| format!("{} {}: not applied: {}", filed.identity, filed.version, filed.verdict)),
        );
        lines.join("\n")
    }
}

/// What the current branch knows, by what a loser's event names.
struct Book<'a> {
    run: &'a Run,
    identities: BTreeMap<Identity, (Item, bool)>,
    /// Scheduled events of activities on the current branch, by activity id.
    activities: BTreeMap<String, Vec<Item>>,
    /// Events that end an activity on the current branch, by scheduled event.
    ended: BTreeMap<i64, Item>,
}

impl<'a> Book<'a> {
    fn of(run: &'a Run) -> Self {
        let mut book =
            Self { run, identities: BTreeMap::new(), activities: BTreeMap::new(), ended: BTreeMap::new() };
        for batch in &run.line {
            for entry in &batch.envelope.identities {
                let item = Item::new(entry.event, batch.envelope.version);
                book.identities.insert(entry.identity.clone(), (item, entry.reapplied_from.is_some()));
            }
            for event in batch.decode_events().unwrap_or_default() {
                let item = Item::new(EventId(event.event_id), batch.envelope.version);
                match &event.attributes {
                    Some(A::ActivityTaskScheduledEventAttributes(a)) => {
                        book.activities.entry(a.activity_id.clone()).or_default().push(item);
                    }
                    Some(attributes) => {
                        if let Some(scheduled) = ended_activity(attributes) {
                            book.ended.insert(scheduled, item);
                        }
                    }
                    None => {}
                }
            }
        }
        book
    }

    fn branch(&self, tree: &Tree, branch: &Branch, told: &mut BTreeSet<ChainValue>) -> LostBranch {
        let current = tree.current();
        let fork = tree.fork_point(current.chain, branch.chain);
        let fresh: Vec<_> =
            tree.path_after(fork, branch.chain).into_iter().filter(|chain| told.insert(*chain)).collect();
        let batches: Vec<&Batch> =
            fresh.iter().filter_map(|chain| self.run.batches.get(chain)).map(AsRef::as_ref).collect();
        let lost = Lost::of(&batches);
        let events = batches.iter().flat_map(|batch| self.events(batch, &lost)).collect();
        LostBranch {
            items: branch.items.to_string(),
            chain: branch.chain.to_string(),
            fork: tree.node(fork).map_or("nothing".to_owned(), |node| node.tip().to_string()),
            why: why_lost(current, branch),
            events,
        }
    }

    fn events(&self, batch: &Batch, lost: &Lost) -> Vec<LostEvent> {
        let event = |event: HistoryEvent| {
            let item = Item::new(EventId(event.event_id), batch.envelope.version);
            let entry = batch.envelope.identities.iter().find(|entry| entry.event == item.event);
            let fate = match entry.filter(|entry| entry.identity.kind.is_reapplied()) {
                Some(entry) => self.external(entry),
                None => self.internal(&event, item, batch.chain, lost),
            };
            LostEvent { event: item.to_string(), kind: kind_name(&event), about: about(&event), fate }
        };
        batch.decode_events().unwrap_or_default().into_iter().map(event).collect()
    }

    fn external(&self, entry: &EventIdentity) -> Fate {
        let identity = &entry.identity;
        match self.identities.get(identity) {
            Some((item, true)) => return Fate::Reapplied { event: item.to_string() },
            Some((item, false)) => return Fate::Present { event: item.to_string() },
            None => {}
        }
        match self.run.standing(identity) {
            Some(record) if record.delivered => Fate::Delivered { verdict: record.verdict.clone() },
            Some(record) => Fate::Unclaimed { verdict: record.verdict.clone() },
            None => Fate::Owed,
        }
    }

    fn internal(&self, event: &HistoryEvent, item: Item, chain: ChainValue, lost: &Lost) -> Fate {
        let Some(attributes) = &event.attributes else { return Fate::Nothing };
        if let A::ActivityTaskScheduledEventAttributes(a) = attributes {
            return self.scheduled_there(&a.activity_id, item, chain, lost);
        }
        if let Some(scheduled) = ended_activity(attributes)
            && !lost.activities.contains_key(&scheduled)
        {
            return self.ended_there(scheduled);
        }
        match progress(attributes, lost) {
            Some(progress) => Fate::Lost { progress },
            None => Fate::Nothing,
        }
    }

    /// An activity that the losing branch scheduled: forgotten, unless a worker had it.
    fn scheduled_there(&self, id: &str, item: Item, chain: ChainValue, lost: &Lost) -> Fate {
        let anchor = Anchor { event: item.event, version: item.version, chain };
        let register = self.run.registers.at(anchor, Kind::ActivityAttempt);
        let attempt = register.and_then(|register| register.decode::<wire::ActivityAttempt>().ok());
        let begun = attempt.as_ref().is_some_and(|attempt| attempt.started || attempt.attempt > 1)
            || lost.started.contains(&item.event.0);
        if !begun {
            return Fate::Lost { progress: format!("activity {id:?} was scheduled") };
        }
        let again = self.activities.get(id).and_then(|items| items.last());
        let why = match again {
            Some(again) => format!("a worker had it, and the current branch scheduled {id:?} as {again}"),
            None => format!("a worker had it, and the current branch knows nothing of {id:?}"),
        };
        Fate::MayRunTwice { why }
    }

    /// An activity of the shared past that ended on the losing branch.
    fn ended_there(&self, scheduled: i64) -> Fate {
        let why = match self.ended.get(&scheduled) {
            Some(item) => {
                format!("the activity of event {scheduled} ended on the current branch too, as {item}")
            }
            None if self.run.state.activities.contains_key(&EventId(scheduled)) => {
                format!("on the current branch the activity of event {scheduled} is open and runs again")
            }
            None => {
                return Fate::Lost { progress: format!("the outcome of the activity of event {scheduled}") };
            }
        };
        Fate::MayRunTwice { why }
    }

    /// Records of events that stand on no branch that was told.
    fn filed(&self, told: &BTreeSet<ChainValue>) -> Vec<Filed> {
        let on_branches: BTreeSet<Identity> = told
            .iter()
            .filter_map(|chain| self.run.batches.get(chain))
            .flat_map(|batch| batch.envelope.identities.iter().map(|entry| entry.identity.clone()))
            .filter(|identity| !self.identities.contains_key(identity))
            .collect();
        let records = self.run.unclaimed().into_iter().filter_map(|record| {
            let identity = Identity::from_wire(record.identity.as_ref()?)?;
            (!on_branches.contains(&identity)).then(|| Filed {
                identity: identity.to_string(),
                version: format!("@{}", record.version),
                verdict: record.verdict.clone(),
            })
        });
        records.collect()
    }
}

/// What the batches of one losing branch hold, by event.
struct Lost {
    /// Activity ids by scheduled event.
    activities: BTreeMap<i64, String>,
    /// Timer ids by started event.
    started: BTreeSet<i64>,
}

impl Lost {
    fn of(batches: &[&Batch]) -> Self {
        let (mut activities, mut started) = (BTreeMap::new(), BTreeSet::new());
        for event in batches.iter().flat_map(|batch| batch.decode_events().unwrap_or_default()) {
            match event.attributes {
                Some(A::ActivityTaskScheduledEventAttributes(a)) => {
                    activities.insert(event.event_id, a.activity_id);
                }
                Some(A::ActivityTaskStartedEventAttributes(a)) => {
                    started.insert(a.scheduled_event_id);
                }
                _ => {}
            }
        }
        Self { activities, started }
    }
}

/// Scheduled event of the activity that an event ends.
fn ended_activity(attributes: &A) -> Option<i64> {
    match attributes {
        A::ActivityTaskCompletedEventAttributes(a) => Some(a.scheduled_event_id),
        A::ActivityTaskFailedEventAttributes(a) => Some(a.scheduled_event_id),
        A::ActivityTaskTimedOutEventAttributes(a) => Some(a.scheduled_event_id),
        A::ActivityTaskCanceledEventAttributes(a) => Some(a.scheduled_event_id),
        _ => None,
    }
}

/// What is forgotten with an internal event; none when nothing is.
fn progress(attributes: &A, lost: &Lost) -> Option<String> {
    if let Some(scheduled) = ended_activity(attributes) {
        let id = lost.activities.get(&scheduled)?;
        return Some(format!("the outcome of activity {id:?}"));
    }
    Some(match attributes {
        A::WorkflowTaskCompletedEventAttributes(_) => "a workflow task was completed".to_owned(),
        A::TimerStartedEventAttributes(a) => format!("timer {:?} was started", a.timer_id),
        A::TimerFiredEventAttributes(a) => format!("timer {:?} fired", a.timer_id),
        A::TimerCanceledEventAttributes(a) => format!("timer {:?} was cancelled", a.timer_id),
        A::ActivityTaskCancelRequestedEventAttributes(a) => {
            format!("the cancellation of the activity of event {} was asked for", a.scheduled_event_id)
        }
        A::MarkerRecordedEventAttributes(a) => format!("marker {:?}", a.marker_name),
        A::UpsertWorkflowSearchAttributesEventAttributes(_) => "search attributes were changed".to_owned(),
        A::WorkflowPropertiesModifiedEventAttributes(_) => "the memo was changed".to_owned(),
        A::WorkflowExecutionStartedEventAttributes(_) => "the run was started".to_owned(),
        A::WorkflowExecutionCompletedEventAttributes(_) => "the run was completed there".to_owned(),
        A::WorkflowExecutionFailedEventAttributes(_) => "the run had failed there".to_owned(),
        A::WorkflowExecutionTimedOutEventAttributes(_) => "the run had timed out there".to_owned(),
        A::WorkflowExecutionCanceledEventAttributes(_) => "the run was cancelled there".to_owned(),
        A::WorkflowExecutionTerminatedEventAttributes(_) => {
            "the run was terminated there to make place for another".to_owned()
        }
        A::WorkflowExecutionContinuedAsNewEventAttributes(a) => {
            format!("the run was continued there as {}", a.new_execution_run_id)
        }
        A::WorkflowTaskScheduledEventAttributes(_)
        | A::WorkflowTaskStartedEventAttributes(_)
        | A::WorkflowTaskFailedEventAttributes(_)
        | A::WorkflowTaskTimedOutEventAttributes(_)
        | A::ActivityTaskStartedEventAttributes(_) => return None,
        _ => "what it recorded".to_owned(),
    })
}

/// What an event was about, where its type does not say.
fn about(event: &HistoryEvent) -> String {
    match &event.attributes {
        Some(A::WorkflowExecutionSignaledEventAttributes(a)) => format!("signal {:?}", a.signal_name),
        Some(A::ActivityTaskScheduledEventAttributes(a)) => format!("activity {:?}", a.activity_id),
        Some(A::TimerStartedEventAttributes(a)) => format!("timer {:?}", a.timer_id),
        Some(A::TimerFiredEventAttributes(a)) => format!("timer {:?}", a.timer_id),
        Some(A::MarkerRecordedEventAttributes(a)) => format!("marker {:?}", a.marker_name),
        _ => String::new(),
    }
}

fn kind_name(event: &HistoryEvent) -> String {
    let kind = EventType::try_from(event.event_type).unwrap_or_default();
    let word = |word: &str| {
        let mut letters = word.chars();
        let first = letters.next().map(|letter| letter.to_ascii_uppercase());
        first.into_iter().chain(letters.map(|letter| letter.to_ascii_lowercase())).collect::<String>()
    };
    kind.as_str_name().trim_start_matches("EVENT_TYPE_").split('_').map(word).collect()
}

fn value_words(register: &Register) -> Option<String> {
    Some(match register.kind {
        Kind::ActivityAttempt => {
            let attempt = register.decode::<wire::ActivityAttempt>().ok()?;
            let state = match (attempt.started, attempt.started_identity.as_str()) {
                (true, "") => ", started".to_owned(),
                (true, worker) => format!(", started by {worker:?}"),
                (false, _) => ", not started".to_owned(),
            };
            format!("attempt {}{state}", attempt.attempt)
        }
        Kind::ActivityHeartbeat => "a heartbeat".to_owned(),
        Kind::WorkflowTaskAttempt => {
            let attempt = register.decode::<wire::WorkflowTaskAttempt>().ok()?;
            format!("attempt {} of a workflow task", attempt.attempt)
        }
        Kind::ActivityOptions => "options".to_owned(),
    })
}
