//! What regions store, folded for the oracles that look at rest. Each of them asks for the same runs of the same regions, and
//! at rest regions store the same: a run is folded once for each different content, not once a question. What is asked for
//! is read from the store each time, and an earlier fold answers only if everything that it was made of is equal.

use std::{collections::BTreeMap, sync::Arc};

use antipode_core::ids::{RunId, WorkflowKey};

use super::{Engine, Failure};
use crate::region::Kept;

/// Runs of a workflow id in a region.
pub(crate) type Runs = BTreeMap<RunId, Arc<Kept>>;

/// By run and region, what was folded last.
#[derive(Default)]
pub(crate) struct Folded(BTreeMap<RunId, BTreeMap<usize, Arc<Kept>>>);

impl Engine {
    /// Runs of a workflow id as a region stores them now.
    ///
    /// # Errors
    /// [`Failure`].
    pub(crate) fn runs_at(&mut self, site: usize, key: &WorkflowKey) -> Result<Runs, Failure> {
        let mut runs = Runs::new();
        for stored in self.sites[site].region.stored_rows(key)? {
            let run = stored.row.key.run;
            let known = self.folded.0.entry(run).or_default();
            let same =
                known.get(&site).into_iter().chain(known.values()).find(|kept| kept.is_fold_of(&stored));
            let kept = match same {
                Some(kept) => Arc::clone(kept),
                None => Arc::new(Kept::fold(stored)?),
            };
            known.insert(site, Arc::clone(&kept));
            runs.insert(run, kept);
        }
        let all = runs.iter().map(|(id, kept)| (*id, &kept.run)).collect();
        for (run, fallen) in self.sites[site].region.fallen(key, &all)? {
            if let Some(kept) = runs.get_mut(&run) {
                Arc::make_mut(kept).run.judge_verdicts(fallen);
            }
        }
        Ok(runs)
    }

    /// The same in every region.
    ///
    /// # Errors
    /// [`Failure`].
    pub(crate) fn runs_everywhere(&mut self, key: &WorkflowKey) -> Result<Vec<Runs>, Failure> {
        (0..self.sites.len()).map(|site| self.runs_at(site, key)).collect()
    }
}
