//! What goes wrong: cuts, crashes, commits that fail, clocks that jump, restores. Each fault is counted by kind and shown.

use antipode_core::{ids::Timestamp, namespace::Forced};
use antipode_persistence::{memory::Fault, store::RegionStore};

use super::{
    Due, Engine, Failure,
    script::{CrashStep, FailStep, Failing, LinkStep, NetSetup, SkewStep, SlowStep, Written},
    seen::State,
    site::{Asker, Backup},
    span::Span,
};
use crate::{
    region::Tail,
    trace::{Band, Kind},
};

impl Engine {
    /// The directions that a step names.
    fn directions(&self, step: &LinkStep) -> Result<Vec<(usize, usize)>, Failure> {
        let index = |name: &str| if name.is_empty() { Ok(None) } else { self.site(name).map(Some) };
        let (from, to) = (index(&step.from)?, index(&step.to)?);
        let between: Vec<usize> =
            step.between.iter().map(|name| self.site(name)).collect::<Result<_, _>>()?;
        let wanted = |a: usize, b: usize| match between.as_slice() {
            [] => from.is_none_or(|from| from == a) && to.is_none_or(|to| to == b),
            [one] => *one == a || *one == b,
            many => many.contains(&a) && many.contains(&b),
        };
        let all = (0..self.sites.len()).flat_map(|a| (0..self.sites.len()).map(move |b| (a, b)));
        Ok(all.filter(|(a, b)| a != b && wanted(*a, *b)).collect())
    }

    pub(crate) fn cut(&mut self, step: &LinkStep) -> Result<(), Failure> {
        for (from, to) in self.directions(step)? {
            if self.links.cut(from, to) {
                self.fault("direction cut");
                let since = self.trace.at();
                let (a, b) = (self.name(from).to_string(), self.name(to).to_string());
                self.trace.line(Kind::Fault, Some(from), None, || format!("{a} to {b} is cut"));
                if let Some(recording) = &mut self.trace.recording {
                    recording.bands.push(Band::Cut { from, to, since, until: None });
                }
            }
        }
        Ok(())
    }

    pub(crate) fn heal(&mut self, step: &LinkStep) -> Result<(), Failure> {
        for (from, to) in self.directions(step)? {
            if self.links.heal(from, to) {
                let now = self.trace.at();
                let (a, b) = (self.name(from).to_string(), self.name(to).to_string());
                self.trace.line(Kind::Fault, Some(from), None, || format!("{a} to {b} heals"));
                if let Some(recording) = &mut self.trace.recording {
                    for band in &mut recording.bands {
                        if let Band::Cut { from: f, to: t, until, .. } = band
                            && (*f, *t) == (from, to)
                            && until.is_none()
                        {
                            *until = Some(now);
                        }
                    }
                }
            }
        }
        self.dial_all()
    }

    pub(crate) fn crash(&mut self, step: &CrashStep) -> Result<(), Failure> {
        let site = self.site(&step.region)?;
        if !self.sites[site].up {
            return Ok(());
        }
        let tail = match step.commit {
            Some(Written::Lost) => Tail::Lost,
            Some(Written::Written) => Tail::Written,
            Some(Written::Torn) => self.torn(site),
            None if self.random.percent(50) => Tail::Written,
            None => Tail::Lost,
        };
        self.kill(site, tail)?;
        if let Some(previous) = step.previous.filter(|previous| *previous != self.sites[site].previous) {
            self.fault(if previous { "downgrade" } else { "upgrade" });
            self.note(State::Upgraded);
            self.sites[site].previous = previous;
        }
        if let Some(down) = step.down {
            self.after(down, Due::Restart { site });
        }
        Ok(())
    }

    /// Of the commits in flight the first are written and the rest is lost; the only one goes either way.
    fn torn(&mut self, site: usize) -> Tail {
        let count = self.sites[site].region.commits_in_flight().len();
        if count < 2 {
            return Tail::First(self.random.below(2));
        }
        self.fault("torn tail");
        self.note(State::TornTail);
        Tail::First(1 + self.random.below(count - 1))
    }

    fn kill(&mut self, site: usize, tail: Tail) -> Result<(), Failure> {
        self.fault("crash");
        if !self.sites[site].region.commits_in_flight().is_empty() {
            self.note(State::CrashInCommit);
        }
        if !matches!(self.sites[site].region.record.phase(), antipode_core::namespace::Phase::Active) {
            self.note(State::CrashDraining);
        }
        self.trace.line(Kind::Fault, Some(site), None, || {
            let fate = match tail {
                Tail::Lost => "lost".to_string(),
                Tail::Written => "written".to_string(),
                Tail::First(count) => format!("lost but for its first {count} commits"),
            };
            format!("dies; what it was writing is {fate}")
        });
        let since = self.trace.at();
        if let Some(recording) = &mut self.trace.recording {
            recording.bands.push(Band::Crash { region: site, since, until: None });
        }
        let mut dying = self.dying(site, None)?;
        for group in self.sites[site].region.kill(tail)? {
            let (here, rest) = dying.into_iter().partition(|(key, _)| group.deletes.contains(key));
            dying = rest;
            self.bury(site, &group, here);
            self.committed(site, &group);
        }
        let here = &mut self.sites[site];
        here.up = false;
        here.committing.clear();
        here.polling = false;
        here.wake_at = None;
        here.hand_over = None;
        here.cache.clear();
        let waiting = std::mem::take(&mut here.waiting);
        self.fetches_die(site);
        self.watch.thaw(site);
        self.link_ends_of(site);
        for other in (0..self.sites.len()).filter(|other| *other != site) {
            self.feed_proofs(other)?;
        }
        for asker in waiting.into_values() {
            match asker {
                Asker::Call(call) => self.unanswered(call, "the region died", true)?,
                Asker::Bring { worker, task } => {
                    self.after(Span::millis(50), Due::Finish { site: worker, task });
                }
                _ => {}
            }
        }
        Ok(())
    }

    pub(crate) fn restart(&mut self, site: usize) -> Result<(), Failure> {
        if self.sites[site].up {
            return Ok(());
        }
        let now = self.local(site);
        let shards = self.sites[site].shards;
        self.sites[site].up = true;
        self.sites[site].region.start(shards, now)?;
        let events = self.sites[site].region.events.clone();
        self.sites[site].counted = events;
        self.trace.line(Kind::Fault, Some(site), None, || "starts again".to_string());
        let at = self.trace.at();
        if let Some(recording) = &mut self.trace.recording {
            for band in &mut recording.bands {
                if let Band::Crash { region, until, .. } = band
                    && *region == site
                    && until.is_none()
                {
                    *until = Some(at);
                }
            }
        }
        self.believe(site);
        self.feed_proofs(site)?;
        // What a crash left of a hand-over is finished or taken back (F1).
        let life = self.sites[site].region.life();
        self.after(Span::millis(1), Due::HandOver { site, life });
        self.dial_all()
    }

    pub(crate) fn fail(&mut self, step: &FailStep) -> Result<(), Failure> {
        let site = self.site(&step.region)?;
        let fault = match step.how {
            Failing::Reject => Fault::Reject,
            Failing::UnknownLost => Fault::UnknownLost,
            Failing::UnknownWritten => Fault::UnknownWritten,
        };
        for _ in 0..step.times {
            self.sites[site].failing.push_back(fault);
        }
        Ok(())
    }

    pub(crate) fn slow(&mut self, step: &SlowStep) -> Result<(), Failure> {
        let site = self.site(&step.region)?;
        self.fault("slow store");
        self.sites[site].commit_span = [step.commit, step.commit];
        Ok(())
    }

    pub(crate) fn skew(&mut self, step: &SkewStep) -> Result<(), Failure> {
        let site = self.site(&step.region)?;
        self.fault("clock jump");
        self.note(State::ClockJumped);
        self.trace.line(Kind::Fault, Some(site), None, || format!("its clock is now off by {}", step.by));
        let here = &mut self.sites[site];
        here.skew = step.by;
        here.wake_at = None;
        if here.up {
            let now = self.local(site);
            self.sites[site].region.tick(now);
            self.tend(site)?;
            let life = self.sites[site].region.life();
            self.after(Span::millis(1), Due::HandOver { site, life });
        }
        Ok(())
    }

    pub(crate) fn net(&mut self, net: &NetSetup) {
        if net.delay != self.setup.net.delay {
            self.fault("delay changed");
        }
        self.setup.net = net.clone();
    }

    pub(crate) fn backup(&mut self, site: usize) {
        let region = &self.sites[site].region;
        let backup = Backup {
            store: region.store.copy(region.store.identity().clone()),
            record: region.record.clone(),
            stored: self.watch.stored_of(site),
            deleted: self.watch.graves.state_of(site),
        };
        self.trace.line(Kind::Fault, Some(site), None, || "its store is backed up".to_string());
        self.sites[site].backup = Some(backup);
    }

    /// A region comes back with the store as it was: as a new incarnation, which may write only under a new version (E2).
    pub(crate) fn restore(&mut self, site: usize) -> Result<(), Failure> {
        let Some(backup) = self.sites[site].backup.take() else { return Ok(()) };
        if self.sites[site].up {
            self.kill(site, Tail::Written)?;
        }
        self.fault("restore");
        self.note(State::Restored);
        self.sites[site].incarnations += 100;
        let incarnation = self.sites[site].incarnation();
        let mut identity = backup.store.identity().clone();
        identity.incarnation = incarnation;
        self.sites[site].region.store = backup.store.copy(identity);
        self.sites[site].region.record = backup.record;
        self.sites[site].region.positions.clear();
        self.watch.restored(site, backup.stored, &backup.deleted);
        // What peers proved of the log of another life says nothing about this one's (E2).
        self.forget_proofs(site);
        self.trace.line(Kind::Fault, Some(site), None, || {
            "is restored from its backup, as a new incarnation".to_string()
        });
        self.restart_as_new(site)
    }

    /// Whatever it owned it must take again under a version above all that it can learn of, before it writes (E2, F3).
    fn restart_as_new(&mut self, site: usize) -> Result<(), Failure> {
        let members = self.members.clone();
        let here = self.sites[site].region.name.clone();
        let mut record = self.sites[site].region.record.clone();
        if record.active() == here {
            let mut seen_max = record.version().max(self.watch.version_seen(site));
            for other in 0..self.sites.len() {
                if other != site && self.reachable(site, other) {
                    record.merge(&self.sites[other].region.record);
                    seen_max = seen_max.max(self.watch.version_seen(other));
                }
            }
            let now = Timestamp(self.now.0 + self.sites[site].skew.0);
            let act = antipode_core::namespace::Act {
                regions: &members,
                here: &here,
                now,
                who: "restore",
                why: "a new incarnation writes under a new version",
            };
            let forced = Forced { seen_max, ..Forced::default() };
            if let Ok(forced) = record.force(&act, forced) {
                self.watch.lineage.minted(forced.version(), record.version(), true);
                record = forced.minted_in(self.sites[site].incarnation());
            }
        }
        let before = std::mem::replace(&mut self.sites[site].region.record, record.clone());
        self.watch_record(site, &before, &record);
        self.excuse_what_is_gone()?;
        self.records_moved(site)?;
        self.restart(site)
    }
}
