//! The gate of a node's links: which directions between regions are cut, and which runs are held back. Everything that
//! leaves a node for another region, or enters it from one, asks here: replication, acks, forwarded calls, fetches,
//! namespace records, commands. A direction may be cut at either of its ends; one cut is enough.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use antipode_core::ids::RunId;
use tokio::sync::watch;

/// A direction of a link: what travels from one region to another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Direction {
    /// Region that sends.
    pub from: Arc<str>,
    /// Region that receives.
    pub to: Arc<str>,
}

impl Direction {
    /// From one region to another.
    #[must_use]
    pub fn new(from: &str, to: &str) -> Self {
        Self { from: Arc::from(from), to: Arc::from(to) }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}->{}", self.from, self.to)
    }
}

/// The direction that something wanted to take is cut.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the link {0} is cut")]
pub struct Cut(pub Direction);

#[derive(Default)]
struct State {
    cut: BTreeSet<Direction>,
    held: BTreeSet<RunId>,
    refused: u64,
}

/// The gate of one node.
pub struct LinkGate {
    here: Arc<str>,
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

impl LinkGate {
    /// Open in all directions.
    #[must_use]
    pub fn new(here: &str) -> Self {
        Self { here: Arc::from(here), state: Mutex::default(), changed: watch::Sender::new(0) }
    }

    /// The region whose gate this is.
    #[must_use]
    pub fn here(&self) -> &str {
        &self.here
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State) -> bool) -> bool {
        let changed = change(&mut self.state());
        if changed {
            self.changed.send_modify(|count| *count += 1);
        }
        changed
    }

    /// Cuts a direction; whether it was open.
    pub fn cut(&self, from: &str, to: &str) -> bool {
        self.change(|state| state.cut.insert(Direction::new(from, to)))
    }

    /// Heals a direction; whether it was cut.
    pub fn heal(&self, from: &str, to: &str) -> bool {
        self.change(|state| state.cut.remove(&Direction::new(from, to)))
    }

    /// Directions that are cut here, as `from->to`.
    #[must_use]
    pub fn cuts(&self) -> Vec<String> {
        self.state().cut.iter().map(ToString::to_string).collect()
    }

    /// Withholds what is sent of a run, to all peers (a test hook: it breaks the order of B8 on purpose).
    pub fn hold_run(&self, run: RunId) -> bool {
        self.change(|state| state.held.insert(run))
    }

    /// Lets a held run go on: what was withheld is sent now.
    pub fn release_run(&self, run: RunId) -> bool {
        self.change(|state| state.held.remove(&run))
    }

    /// Whether a run is held.
    #[must_use]
    pub fn holds(&self, run: RunId) -> bool {
        self.state().held.contains(&run)
    }

    /// Held runs.
    #[must_use]
    pub fn held(&self) -> BTreeSet<RunId> {
        self.state().held.clone()
    }

    /// May something leave for this peer?
    ///
    /// # Errors
    /// [`Cut`].
    pub fn outward(&self, peer: &str) -> Result<(), Cut> {
        self.check(Direction { from: Arc::clone(&self.here), to: Arc::from(peer) })
    }

    /// May something from this peer come in?
    ///
    /// # Errors
    /// [`Cut`].
    pub fn inward(&self, peer: &str) -> Result<(), Cut> {
        self.check(Direction { from: Arc::from(peer), to: Arc::clone(&self.here) })
    }

    fn check(&self, direction: Direction) -> Result<(), Cut> {
        let mut state = self.state();
        if state.cut.contains(&direction) {
            state.refused += 1;
            return Err(Cut(direction));
        }
        Ok(())
    }

    /// How often something met a cut.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.state().refused
    }

    /// Whether things may leave for the peer. Does not count as an attempt.
    #[must_use]
    pub fn lets_out(&self, peer: &str) -> bool {
        !self.state().cut.contains(&Direction { from: Arc::clone(&self.here), to: Arc::from(peer) })
    }

    /// Whether things from the peer may come in. Does not count as an attempt.
    #[must_use]
    pub fn lets_in(&self, peer: &str) -> bool {
        !self.state().cut.contains(&Direction { from: Arc::from(peer), to: Arc::clone(&self.here) })
    }

    /// Whether both directions are open. Does not count as an attempt.
    #[must_use]
    pub fn open_to(&self, peer: &str) -> bool {
        self.lets_out(peer) && self.lets_in(peer)
    }

    /// Changes with every cut, heal, hold and release.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_is_one_direction() {
        let gate = LinkGate::new("east");
        assert!(gate.cut("east", "west"));
        assert!(!gate.cut("east", "west"));
        assert_eq!(gate.outward("west").unwrap_err().to_string(), "the link east->west is cut");
        assert!(gate.inward("west").is_ok());
        assert!(gate.outward("north").is_ok());
        assert_eq!(gate.cuts(), ["east->west"]);
        assert_eq!(gate.refused(), 1);
        assert!(gate.heal("east", "west"));
        assert!(gate.outward("west").is_ok());
    }

    #[test]
    fn changes_are_announced_and_repetitions_are_not() {
        let gate = LinkGate::new("west");
        let changes = gate.changes();
        let run = RunId::from_random([7; 16]);
        gate.hold_run(run);
        gate.hold_run(run);
        assert!(gate.holds(run));
        assert_eq!(*changes.borrow(), 1);
        gate.release_run(run);
        assert!(!gate.holds(run));
        assert_eq!(*changes.borrow(), 2);
    }
}
