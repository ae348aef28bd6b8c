//! What a peer has, as far as it is proved: of this shard's own log, and of what third regions wrote and this one stores too. A
//! closed run waits for both (C6): its last change may be a batch that only its origin sends, and what this region does not
//! know to be there may be missing there.

use std::collections::{BTreeMap, BTreeSet};

use antipode_core::{
    batch::Origin,
    ids::{Incarnation, RegionId, RunKey, Sequence, ShardId},
    run::Run,
};

/// What a peer has of this shard's log, as the link to it knows (E1). An ordered input; the newest replaces the one before,
/// also when it says less: a peer may be restored from a backup (E2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proof {
    /// Everything up to here is durable there or known there, exceptions aside.
    pub through: Sequence,
    /// Runs that one side could not apply, or that are held back: each holds its own retention (E1).
    pub exceptions: BTreeSet<RunKey>,
    /// Origins that the peer gets nothing from now, with how far it has their logs: this region may have to relay the rest
    /// (C7).
    pub down: BTreeMap<RegionId, Down>,
    /// All third regions that send the peer their own logs, with how far it has these by its own word. Of a region that is
    /// not among them, this region's log holds the batches as if they were its own.
    pub others: BTreeMap<RegionId, Reach>,
    /// Nothing is heard of the peer. For which origins it may need this region is not known, so it may be for all.
    pub silent: bool,
}

/// How far a peer has the log of an origin that is down for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Down {
    /// Life of the origin's store.
    pub incarnation: Incarnation,
    /// By shard of the origin.
    pub proved: BTreeMap<ShardId, Sequence>,
}

impl Down {
    fn has(&self, batch: &Origin) -> bool {
        let proved = self.proved.get(&batch.shard).copied().unwrap_or_default();
        self.incarnation == batch.incarnation && proved >= batch.sequence
    }
}

/// How far a peer said that it has the log of a third region.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// Its word; none: it has not said anything yet, so it may lack everything.
    pub said: Option<Down>,
    /// Life of the third region's store, as this region knows it.
    pub life: Option<Incarnation>,
}

impl Reach {
    /// What the third region wrote in an earlier life of its store has no position in this one. It comes back to it, and
    /// goes on with its log from there (E2); a peer that knows the new life is not waited for.
    fn has(&self, batch: &Origin) -> bool {
        let Some(said) = &self.said else { return false };
        let earlier = Some(said.incarnation) == self.life && said.incarnation != batch.incarnation;
        earlier || said.has(batch)
    }
}

impl Proof {
    /// Of a peer that holds nothing any more: it is beyond the log, or the operator released it (C6).
    #[must_use]
    pub fn released() -> Self {
        Self { through: Sequence(u64::MAX), ..Self::default() }
    }

    /// Whether the peer lacks, or may lack, a batch of this run that this region's own log does not bring it.
    pub(super) fn lacks(&self, here: RegionId, run: &Run) -> bool {
        run.batches.values().any(|batch| {
            let origin = &batch.envelope.origin;
            (self.silent && origin.region != here)
                || self.down.get(&origin.region).is_some_and(|down| !down.has(origin))
                || self.others.get(&origin.region).is_some_and(|reach| !reach.has(origin))
        })
    }
}
