//! Entries of a workflow that are held back on the way to others, as the operator's drill does it.

use super::*;

impl Engine {
    /// Entries of a workflow are held back, or let go.
    pub(crate) fn hold(&mut self, step: &HoldStep) -> Result<(), Failure> {
        let from = self.site(&step.from)?;
        let run = if step.run_of.is_empty() { None } else { Some(self.run_of(&step.run_of)?) };
        if step.fetchable {
            self.links.fetchable.insert(from);
        } else {
            self.links.fetchable.remove(&from);
        }
        let held = self.links.held.entry(from).or_default();
        if step.release {
            self.links.let_go.entry(from).or_default().extend(held.iter());
            match run {
                Some(run) => drop(held.remove(&run)),
                None => held.clear(),
            }
            if let Some(workflows) = self.links.held_workflows.get_mut(&from) {
                workflows.clear();
            }
        } else {
            match run {
                Some(run) => drop(held.insert(run)),
                None => {
                    let known = self.watch.runs_of(&step.workflow);
                    if step.later {
                        self.links.let_pass.entry(from).or_default().extend(known);
                    } else {
                        held.extend(known);
                    }
                    self.links.held_workflows.entry(from).or_default().insert(step.workflow.clone());
                }
            }
        }
        for to in 0..self.sites.len() {
            self.with_outbox(from, to, |outbox, cx| outbox.held_changed(cx));
        }
        self.settle_links()
    }

    /// Later runs of a held workflow are held as well.
    pub(super) fn hold_in_page(&mut self, from: usize, page: &antipode_persistence::rows::LogPage) {
        let Some(workflows) = self.links.held_workflows.get(&from) else { return };
        let mut runs = Vec::new();
        for entry in &page.entries {
            if let antipode_persistence::rows::LogEntry::Batch(row) = entry {
                let key = &row.batch.envelope.run;
                let passes = self.links.let_pass.get(&from).is_some_and(|runs| runs.contains(&key.run));
                if workflows.contains(key.workflow.as_str()) && !passes {
                    runs.push(key.run);
                }
            }
        }
        self.links.held.entry(from).or_default().extend(runs);
    }

    /// Lets everything go that is held back anywhere.
    pub(crate) fn release_all(&mut self) -> Result<(), Failure> {
        self.links.held_workflows.clear();
        for from in 0..self.sites.len() {
            let held = self.links.held.insert(from, BTreeSet::new());
            self.links.let_go.entry(from).or_default().extend(held.into_iter().flatten());
            for to in 0..self.sites.len() {
                self.with_outbox(from, to, |outbox, cx| outbox.held_changed(cx));
            }
        }
        self.settle_links()
    }
}
