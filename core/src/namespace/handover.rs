//! How a namespace moves (F1–F3): the active region alone decides, step by step, by its own durable record. Active → Draining
//! (may be undone) → Released (may not) → Active elsewhere. Force is executed by the target and always mints a version above
//! all that was seen.

use std::collections::BTreeSet;

use super::{Act, Entry, Failover, Phase, Record, Refusal};
use crate::ids::{FailoverVersion, Incarnation, Timestamp};

/// What a forced failover knew.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forced {
    /// The greatest version in any record or stored event of the namespace, here and in every region that answered (F3).
    pub seen_max: FailoverVersion,
    /// Regions that did not answer.
    pub not_asked: BTreeSet<String>,
    /// Runs that may lose progress; none: not measured.
    pub predicted_loss_runs: Option<u64>,
}

impl Record {
    /// The active region begins to hand over. Asked again for the same hand-over it answers with the same record.
    ///
    /// # Errors
    /// [`Refusal`]; [`Refusal::AlreadyActive`] when the target is this region (R104).
    pub fn begin_drain(
        &self,
        act: &Act<'_>,
        target: &str,
        operation: &str,
        deadline: Timestamp,
    ) -> Result<Self, Refusal> {
        self.may_change(act)?;
        self.require_global()?;
        act.regions.require(target)?;
        if !self.has_member(target) {
            return Err(Refusal::NotMember(target.to_owned()));
        }
        if self.phase() == &Phase::Active && self.active() == target {
            return Err(Refusal::AlreadyActive(target.to_owned()));
        }
        self.require_owner(act)?;
        if self.phase().operation() == Some(operation) && self.phase().target() == Some(target) {
            return Ok(self.clone());
        }
        self.require_settled()?;
        let (target, operation) = (target.to_owned(), operation.to_owned());
        Ok(self.step(Phase::Draining { target, operation, deadline }))
    }

    /// The active region takes its draining back: at the deadline, after a restart, or because a shard cannot be drained.
    ///
    /// # Errors
    /// [`Refusal::Released`] once that is too late.
    pub fn undo_drain(&self, act: &Act<'_>, operation: &str) -> Result<Self, Refusal> {
        self.require_draining(act, operation)?;
        Ok(self.step(Phase::Active))
    }

    /// The active region gives the namespace away: every shard is drained and the target has proof of it (F2). To be made
    /// durable before it is sent.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn release(&self, act: &Act<'_>, operation: &str) -> Result<Self, Refusal> {
        let target = self.require_draining(act, operation)?;
        let target_version = act.regions.next(&target, self.version())?;
        let operation = operation.to_owned();
        Ok(self.step(Phase::Released { target, target_version, operation }))
    }

    /// The target takes over what was released to it. `unavailable_millis`: how long nobody could write.
    ///
    /// # Errors
    /// [`Refusal::NotReleased`] without the owner's release; [`Refusal::AlreadyActive`] when it happened before.
    pub fn activate_released(&self, act: &Act<'_>, unavailable_millis: i64) -> Result<Self, Refusal> {
        self.may_activate(act)?;
        let Phase::Released { target, target_version, .. } = self.phase() else {
            return Err(self.not_released(act));
        };
        if target != act.here {
            return Err(self.not_released(act));
        }
        let entry = Entry { unavailable_millis, predicted_loss_runs: Some(0), ..self.entry(act) };
        self.activate(act, *target_version, entry)
    }

    /// The target takes the namespace without the owner's release. Executed by the target; never keeps a version, not even
    /// when the target seems to be active already (F3).
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn force(&self, act: &Act<'_>, forced: Forced) -> Result<Self, Refusal> {
        self.may_activate(act)?;
        // A release that is under way may still be activated under its version; that must lose too.
        let released = match self.phase() {
            Phase::Released { target_version, .. } => *target_version,
            Phase::Active | Phase::Draining { .. } => FailoverVersion::LOCAL,
        };
        let seen = forced.seen_max.max(self.version()).max(released);
        let version = act.regions.next_forced(act.here, seen)?;
        let entry = Entry {
            forced: true,
            predicted_loss_runs: forced.predicted_loss_runs,
            not_asked: forced.not_asked,
            ..self.entry(act)
        };
        self.activate(act, version, entry)
    }

    fn may_activate(&self, act: &Act<'_>) -> Result<(), Refusal> {
        self.may_change(act)?;
        self.require_global()
    }

    fn not_released(&self, act: &Act<'_>) -> Refusal {
        if self.phase() == &Phase::Active && self.active() == act.here {
            return Refusal::AlreadyActive(act.here.to_owned());
        }
        Refusal::NotReleased(act.here.to_owned())
    }

    /// Is this draining under way here? Its target.
    fn require_draining(&self, act: &Act<'_>, operation: &str) -> Result<String, Refusal> {
        self.may_change(act)?;
        self.require_owner(act)?;
        match self.phase() {
            Phase::Draining { target, operation: known, .. } if known == operation => Ok(target.clone()),
            Phase::Active => Err(Refusal::NotDraining(operation.to_owned())),
            Phase::Draining { .. } | Phase::Released { .. } => {
                self.require_settled()?;
                Err(Refusal::NotDraining(operation.to_owned()))
            }
        }
    }

    /// The same version, one step on.
    fn step(&self, phase: Phase) -> Self {
        let step = self.failover.step + 1;
        Self { failover: Failover { step, phase, ..self.failover.clone() }, ..self.clone() }
    }

    fn entry(&self, act: &Act<'_>) -> Entry {
        Entry {
            from: self.active().to_owned(),
            to: act.here.to_owned(),
            who: act.who.to_owned(),
            why: act.why.to_owned(),
            at: act.now,
            ..Entry::default()
        }
    }

    fn activate(&self, act: &Act<'_>, version: FailoverVersion, entry: Entry) -> Result<Self, Refusal> {
        let stamp = self.next_stamp(act.regions.require(act.here)?.id);
        let mut record = self.clone();
        record.failover = Failover {
            version,
            step: 0,
            active: act.here.to_owned(),
            phase: Phase::Active,
            life: Incarnation::default(),
        };
        record.history.insert(version, Entry { stamp, ..entry });
        Ok(record)
    }
}
