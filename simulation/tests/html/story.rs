//! A made-up recording of any size, like one of the simulator: runs in three regions that grow, diverge in cuts and forced
//! failovers, and come together.

use antipode_simulation::trace::{
    Band, Fate, Finding, Kind, Message, Recording, TreeBranch, TreeEvent, TreeView,
};
use serde_json::{Value, json};

use super::{MS, NAMES, SECOND, belief, lanes, line};

/// An event of the story. Equal ids and versions with another `uid` would be a fork.
#[derive(Clone, Copy, PartialEq)]
struct Event {
    id: i64,
    version: i64,
    uid: u64,
}

/// What happens later.
#[derive(Clone)]
enum Later {
    Arrive { message: usize, entry: Option<(usize, Vec<Event>)> },
    Restart(usize),
    Heal(usize, usize),
}

/// A made-up run of the simulator: runs in three regions that grow, diverge in cuts and forced failovers, and come together.
/// It is only like replication, so that the report can be looked at without the engine.
pub(crate) struct Story {
    random: u64,
    recording: Recording,
    at: i64,
    step: u64,
    serial: u64,
    agenda: Vec<(i64, Later)>,
    versions: [i64; 3],
    up: [bool; 3],
    cuts: Vec<(usize, usize)>,
    /// By region and run: its branches, each from the first event on.
    branches: [Vec<Vec<Vec<Event>>>; 3],
}

impl Story {
    pub(crate) fn new(seed: u64) -> Self {
        let mut recording =
            Recording { title: format!("seed {seed}"), seed, lanes: lanes(), ..Recording::default() };
        recording.beliefs = (0..3).map(|region| belief(0, region, 1, "active")).collect();
        let branches = std::array::from_fn(|_| vec![Vec::new(); 200]);
        let (agenda, cuts) = (Vec::new(), Vec::new());
        let (versions, up) = ([1; 3], [true; 3]);
        Self { random: seed, recording, at: 0, step: 0, serial: 0, agenda, versions, up, cuts, branches }
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % limit
    }

    pub(crate) fn run(mut self, messages: usize) -> Recording {
        while self.recording.messages.len() < messages || !self.agenda.is_empty() {
            self.step += 1;
            let due = (0..self.agenda.len()).min_by_key(|index| self.agenda[*index].0);
            let pause =
                [3 * MS, 40 * MS, 900 * MS, 90 * SECOND][[0, 0, 0, 0, 1, 1, 2, 3][self.below(8) as usize]];
            match due {
                Some(index) if self.agenda[index].0 <= self.at + pause => {
                    let (at, later) = self.agenda.remove(index);
                    self.at = self.at.max(at);
                    self.later(later);
                }
                _ if self.recording.messages.len() < messages => {
                    self.at += pause + self.below(1_000_000) as i64;
                    self.act();
                }
                _ => self.at += pause,
            }
        }
        self.recording.end = self.at + SECOND;
        let text =
            "order-3 differs: east has [1..9@1], west has [1..8@1 9..11@12] after everything was delivered"
                .to_owned();
        self.say(Kind::Finding, None, Some(3), format!("convergence: {text}"), None);
        let (at, step) = (self.at, self.step);
        self.recording.findings.push(Finding { oracle: "convergence".to_owned(), at, step, text });
        self.recording
    }

    fn say(
        &mut self,
        kind: Kind,
        region: Option<usize>,
        run: Option<usize>,
        text: String,
        detail: Option<Value>,
    ) {
        let mut line = line(self.step, self.at, kind, region, text);
        line.workflow = run.map(|run| format!("order-{run}"));
        line.run = run.map(|run| format!("{:08x}", 0x5f0c_2a11 + run * 77_777));
        line.detail = detail;
        self.recording.lines.push(line);
    }

    fn act(&mut self) {
        let region = self.below(3) as usize;
        match self.below(40) {
            0 if self.up[region] && self.up.iter().filter(|up| **up).count() == 3 => {
                self.up[region] = false;
                let (since, until) = (self.at, self.at + 5 * SECOND);
                self.recording.bands.push(Band::Crash { region, since, until: Some(until) });
                self.agenda.push((until, Later::Restart(region)));
                self.say(
                    Kind::Fault,
                    Some(region),
                    None,
                    "crash: everything that was not synced is gone".to_owned(),
                    None,
                );
            }
            1 | 2 if self.cuts.len() < 2 => {
                let to = (region + 1 + self.below(2) as usize) % 3;
                let (since, until) = (self.at, self.at + (4 + self.below(90) as i64) * SECOND);
                self.cuts.push((region, to));
                self.recording.bands.push(Band::Cut { from: region, to, since, until: Some(until) });
                self.agenda.push((until, Later::Heal(region, to)));
                self.say(Kind::Fault, None, None, format!("cut {} → {}", NAMES[region], NAMES[to]), None);
            }
            3 | 4 if self.up[region] => {
                let version = self.versions.iter().max().unwrap() / 10 * 10 + 11 + region as i64;
                let text = format!("forced failover of default to {}: @{version}", NAMES[region]);
                self.say(Kind::Failover, Some(region), None, text, None);
                self.believe(region, version);
            }
            _ => {
                // Whoever believes to be active works; after a forced failover those are two.
                if let Some(region) = (0..3)
                    .cycle()
                    .skip(region)
                    .take(3)
                    .find(|region| self.up[*region] && self.versions[*region] % 10 - 1 == *region as i64)
                {
                    self.work(region);
                }
            }
        }
    }

    fn believe(&mut self, region: usize, version: i64) {
        if version > self.versions[region] {
            self.versions[region] = version;
            self.recording.beliefs.push(belief(self.at, region, version, "active"));
        }
    }

    fn work(&mut self, region: usize) {
        // Old runs come to rest, new ones begin.
        let run = self.recording.messages.len() / 60 + self.below(8) as usize;
        let version = self.versions[region];
        let current = self.branches[region][run].first().cloned().unwrap_or_default();
        let (kind, text) = match (current.len(), self.below(3)) {
            (0, _) => (Kind::Client, "StartWorkflow: accepted"),
            (_, 0) => (Kind::Client, "SignalWorkflow: accepted"),
            _ => (Kind::Worker, "RespondWorkflowTaskCompleted: accepted"),
        };
        let mut path = current;
        for _ in 0..=self.below(3) {
            self.serial += 1;
            path.push(Event { id: path.len() as i64 + 1, version, uid: self.serial });
        }
        let (from, to) = (path.len().max(2) - 1, path.len());
        self.say(kind, Some(region), Some(run), format!("{text} as {from}..{to}@{version}"), None);
        self.store(region, run, path.clone());
        for other in (0..3).filter(|other| *other != region) {
            self.send(region, other, "entries", Some((run, path.clone())));
        }
    }

    fn send(&mut self, from: usize, to: usize, kind: &'static str, entry: Option<(usize, Vec<Event>)>) {
        let copies = if self.below(25) == 0 { 2 } else { 1 };
        for copy in 0..copies {
            let arrived = self.at + (18 + self.below(70) as i64) * MS;
            let fate = match self.below(30) {
                _ if self.cuts.contains(&(from, to)) => Fate::Cut,
                0 => Fate::Dropped,
                1 => Fate::Stale,
                _ => Fate::Delivered,
            };
            let text = entry.as_ref().map_or_else(
                || "through 17".to_owned(),
                |(run, path)| format!("order-{run} {}", items(path)),
            );
            let workflows = entry.iter().map(|(run, _)| format!("order-{run}")).collect();
            let (id, sent, copy) = (self.recording.messages.len() as u64, self.at, copy > 0);
            self.recording.messages.push(Message {
                id,
                from,
                to,
                kind,
                sent,
                arrived,
                fate,
                copy,
                workflows,
                text,
            });
            if fate == Fate::Delivered {
                self.agenda.push((arrived, Later::Arrive { message: id as usize, entry: entry.clone() }));
            }
        }
    }

    fn later(&mut self, later: Later) {
        match later {
            Later::Restart(region) => {
                self.up[region] = true;
                self.say(Kind::Fault, Some(region), None, "back: 214 rows read".to_owned(), None);
            }
            Later::Heal(from, to) => {
                self.cuts.retain(|cut| *cut != (from, to));
                self.say(
                    Kind::Fault,
                    None,
                    None,
                    format!("{} → {} is whole again", NAMES[from], NAMES[to]),
                    None,
                );
                self.say(
                    Kind::Link,
                    Some(to),
                    None,
                    format!("stream from {} begins at 17", NAMES[from]),
                    None,
                );
            }
            Later::Arrive { message, entry } => {
                let Message { from, to, .. } = self.recording.messages[message];
                if !self.up[to] {
                    self.recording.messages[message].fate = Fate::Dropped;
                } else if let Some((run, path)) = entry {
                    self.believe(to, path.last().unwrap().version);
                    self.judge(to, run, path);
                    self.send(to, from, "ack", None);
                }
            }
        }
    }

    /// A verdict as conflict resolution would give it, and what it stores.
    fn judge(&mut self, region: usize, run: usize, path: Vec<Event>) {
        let shared = |stored: &Vec<Event>| stored.iter().zip(&path).take_while(|(a, b)| a == b).count();
        let branches = &self.branches[region][run];
        let nearest = branches.iter().max_by_key(|stored| shared(stored)).cloned();
        let current = branches.first().cloned();
        let length = nearest.as_ref().map_or(0, shared);
        let (verdict, reason) = match &nearest {
            None => ("Create", "the run is not stored here and this is its first batch"),
            Some(_) if length == path.len() => {
                ("Duplicate", "a batch with this chain value is stored already")
            }
            Some(stored) if length == stored.len() => {
                ("Append", "the batch before is the tip of a stored branch")
            }
            Some(_) => ("NewBranch", "the batch before has another successor on a stored branch"),
        };
        if verdict != "Duplicate" {
            self.store(region, run, path.clone());
        }
        let winner = self.branches[region][run][0].clone();
        let text = format!("{verdict}: {reason}. Incoming {}, current {}", items(&path), items(&winner));
        let step = format!(
            "both have @{0}: min({length}, {1}) = {length}, ancestor {length}@{0}",
            path[0].version,
            path.len()
        );
        let detail = json!({
            "verdict": verdict, "reason": reason, "incoming": items(&path), "incoming_chain": "c0ffee11aa52e07d",
            "local": nearest.as_deref().map(items), "ancestor": (length > 0).then(|| items_at(&path[length - 1])),
            "arithmetic": if nearest.is_some() { vec![step] } else { vec![] },
            "winner": items(&winner), "why": "its last version is higher", "rebuild": current.is_some_and(|old| !winner.starts_with(&old)),
            "fork": false, "problem": null,
        });
        self.say(Kind::Verdict, Some(region), Some(run), text, Some(detail));
    }

    fn store(&mut self, region: usize, run: usize, path: Vec<Event>) {
        let branches = &mut self.branches[region][run];
        branches.retain(|stored| !path.starts_with(stored));
        branches.push(path);
        branches.sort_by_key(|path| std::cmp::Reverse(path.last().map(|tip| (tip.version, tip.id, tip.uid))));
        let branches = branches.clone();
        let (first, current) = (&branches[0], items(&branches[0]));
        let view = |path: &Vec<Event>| {
            let shared = path.iter().zip(first).take_while(|(a, b)| a == b).count();
            let is_current = path == first;
            TreeBranch {
                items: items(path),
                chain: format!("{:016x}", path.last().unwrap().uid * 0x9e37_79b9_7f4a),
                current: is_current,
                fork: (!is_current).then(|| items_at(&path[shared.max(1) - 1])),
                why: if is_current {
                    "its last version is the highest".to_owned()
                } else {
                    format!("lost to {current}: its last version is higher")
                },
                events: path.iter().skip(if is_current { 0 } else { shared }).map(named).collect(),
            }
        };
        let branches = branches.iter().map(view).collect();
        let (at, step) = (self.at, self.step);
        let workflow = format!("order-{run}");
        let run = format!("{:08x}", 0x5f0c_2a11 + run * 77_777);
        self.recording.trees.push(TreeView {
            at,
            step,
            region,
            workflow,
            run,
            state: "open",
            current_run: true,
            branches,
        });
    }
}

fn items_at(event: &Event) -> String {
    format!("{}@{}", event.id, event.version)
}

/// A version history as the engine writes it: `[1..2@1 3@12]`.
fn items(path: &[Event]) -> String {
    let spans =
        path.chunk_by(|a, b| a.version == b.version).map(|span| match (span[0].id, span[span.len() - 1]) {
            (first, last) if first == last.id => items_at(&last),
            (first, last) => format!("{first}..{}", items_at(&last)),
        });
    format!("[{}]", spans.collect::<Vec<_>>().join(" "))
}

fn named(event: &Event) -> TreeEvent {
    const KINDS: [&str; 5] = [
        "WorkflowTaskScheduled",
        "WorkflowTaskStarted",
        "WorkflowTaskCompleted",
        "ActivityTaskScheduled",
        "WorkflowExecutionSignaled",
    ];
    let kind = if event.id == 1 { "WorkflowExecutionStarted" } else { KINDS[event.uid as usize % 5] };
    TreeEvent { id: event.id, version: event.version, kind: kind.to_owned() }
}
