//! What regions have proved of each other, as stored and as known in memory, and what depends on it: hand-overs (V18), retention
//! (C6), relaying (C7), rest.

use super::*;

impl Engine {
    pub(super) fn stored_positions(
        &self,
        site: usize,
        source: RegionId,
    ) -> (Option<Incarnation>, BTreeMap<ShardId, Sequence>) {
        let rows: Vec<PositionRow> = self.sites[site]
            .region
            .store
            .position_all()
            .now_or_never()
            .and_then(Result::ok)
            .unwrap_or_default();
        let of_source = || rows.iter().filter(|row| row.source == source.0);
        // The latest life of the source that we know of.
        let incarnation = of_source().map(|row| row.incarnation).max();
        let positions = of_source()
            .filter(|row| Some(row.incarnation) == incarnation)
            .map(|row| (row.shard, row.sequence));
        (incarnation, positions.collect())
    }

    pub(super) fn stored_exceptions(&self, site: usize, source: RegionId) -> Exceptions {
        let mut exceptions = Exceptions::new(10_000);
        let rows = self.sites[site]
            .region
            .store
            .quarantine_all()
            .now_or_never()
            .and_then(Result::ok)
            .unwrap_or_default();
        for row in rows.iter().filter(|row| row.source == source.0) {
            // The table is never fuller than the limit under which it was filled.
            let _ = exceptions.add(&row.key, &row.reason, row.behind);
        }
        exceptions
    }

    pub(super) fn down_origins(&self, site: usize) -> Vec<DownOrigin> {
        let down = self.links.down.iter().filter(|(_, to)| *to == site);
        down.map(|(from, _)| {
            let source = self.sites[*from].region.id;
            let (incarnation, positions) = self.stored_positions(site, source);
            Vector::to_wire(source, incarnation, &positions)
        })
        .collect()
    }

    /// An origin went down for a region, or came back.
    pub(super) fn set_down(&mut self, from: usize, to: usize, is_down: bool) -> Result<(), Failure> {
        let changed =
            if is_down { self.links.down.insert((from, to)) } else { self.links.down.remove(&(from, to)) };
        if !changed {
            return Ok(());
        }
        let down = self.down_origins(to);
        for other in 0..self.sites.len() {
            self.with_inbox(other, to, |inbox, cx| inbox.set_down(cx, down.clone()));
        }
        Ok(())
    }

    /// What a receiver says is proved must be there (V15, E1). Looked at when it is said, not when it arrives.
    pub(super) fn check_ack(&mut self, from: usize, to: usize, ack: &replicate_request::Ack) {
        let Some(stream) = self.links.streams.get(&(from, to)) else { return };
        let mut excepted: BTreeSet<RunId> =
            stream.inbox.exceptions().iter().map(|(key, _)| key.run).collect();
        // A scenario holds these back: they were announced and wait at the source.
        excepted
            .extend(self.links.withheld.get(&(from, to)).into_iter().flat_map(|withheld| withheld.keys()));
        excepted.extend(self.links.let_go.get(&from).into_iter().flatten());
        let proofs: Vec<_> = ack.proof.iter().map(|at| (ShardId(at.shard), Sequence(at.sequence))).collect();
        for (shard, proof) in proofs {
            self.watch_proof(from, to, shard, proof, &excepted);
        }
    }

    /// What each shard of a region has committed.
    pub(crate) fn tips(&self, site: usize) -> Result<BTreeMap<ShardId, Sequence>, Failure> {
        Ok(self.sites[site].region.ends()?.into_iter().collect())
    }

    pub(crate) fn want(
        &mut self,
        site: usize,
        target: usize,
        positions: &BTreeMap<ShardId, Sequence>,
    ) -> Result<(), Failure> {
        self.with_outbox(site, target, |outbox, cx| outbox.want(cx, positions));
        self.settle_links()
    }

    /// Has the target proved these positions of the source?
    pub(crate) fn proved(&self, from: usize, to: usize, positions: &BTreeMap<ShardId, Sequence>) -> bool {
        let proofs = self.links.proofs.get(&(from, to));
        positions.iter().all(|(shard, at)| {
            at.0 == 0 || proofs.and_then(|proofs| proofs.get(shard)).is_some_and(|proof| proof >= at)
        })
    }

    /// Has the target what third regions wrote and the source has (V18)? And is nothing quarantined there (E1)?
    pub(crate) fn covers_others(
        &self,
        site: usize,
        target: usize,
        barriers: &BTreeMap<ShardId, Sequence>,
    ) -> bool {
        let others = || (0..self.sites.len()).filter(|other| *other != site && *other != target);
        let held = |at: usize, origin: usize| {
            let id = self.sites[origin].region.id;
            let (incarnation, proved) = self.held(at, origin);
            let ended = self.links.ends.get(&(origin, at)).map(|(_, ends)| ends.clone());
            (id, Held { incarnation, proved, ended })
        };
        let ours: BTreeMap<RegionId, Held> = others().map(|origin| held(site, origin)).collect();
        let relayed =
            self.links.relayed.get(&(site, target)).into_iter().flatten().flat_map(|(origin, positions)| {
                positions.iter().map(|(shard, at)| Relayed {
                    origin: origin.0,
                    shard: shard.0,
                    flow: at.0,
                    proof: at.0,
                })
            });
        let view = NamespaceViewResponse {
            proved: others()
                .map(|origin| held(target, origin))
                .map(|(id, held)| Vector::to_wire(id, held.incarnation, &held.proved))
                .collect(),
            relayed: relayed.collect(),
            ..NamespaceViewResponse::default()
        };
        cover::lacking(&view, &ours, barriers).is_empty() && self.quarantined(target) == 0
    }

    /// A region came back in another life: nothing of its log is proved.
    pub(crate) fn forget_proofs(&mut self, from: usize) {
        self.links.proofs.retain(|(source, _), _| *source != from);
    }

    pub(crate) fn has_exceptions(&self, from: usize, to: usize) -> bool {
        let quarantined = self.links.exceptions.get(&(from, to)).is_some_and(|runs| !runs.is_empty());
        quarantined || self.withheld_from(from, to).next().is_some()
    }

    /// A region asks its peers what they have of third regions, because closed runs wait there (C6). Who is not reached does
    /// not answer; what it said before holds.
    pub(crate) fn ask_peers(&mut self, site: usize) -> Result<(), Failure> {
        self.links.asking.remove(&site);
        self.ask_again(site);
        for to in (0..self.sites.len()).filter(|to| *to != site) {
            let cut = self.links.is_cut(site, to) || self.links.is_cut(to, site);
            let open = self.links.streams.get(&(site, to)).is_some_and(|stream| stream.outbox.is_some());
            if !open || cut || !self.sites[site].up || !self.sites[to].up {
                continue;
            }
            let third = |other: &usize| *other != site && *other != to;
            let said = |other: usize| {
                let (incarnation, proved) = self.held(to, other);
                (other, Down { incarnation: incarnation.unwrap_or_default(), proved })
            };
            let vectors = (0..self.sites.len()).filter(third).map(said).collect();
            let rows = self.sites[to].region.store.quarantine_all().now_or_never().and_then(Result::ok);
            let mut lacked: BTreeSet<RunKey> =
                rows.unwrap_or_default().into_iter().map(|row| row.key).collect();
            lacked.extend((0..self.sites.len()).flat_map(|other| self.withheld_from(to, other)).cloned());
            self.links.told.insert((site, to), Told { vectors, lacked });
        }
        self.feed_proofs(site)
    }

    /// Where runs live for less than an hour, peers are asked as often as production does it; elsewhere when a run waits.
    pub(crate) fn ask_again(&mut self, site: usize) {
        let short = self.setup.retention < super::super::rest::SHORT;
        if short && self.sites.len() > 2 && self.links.asking.insert(site) {
            self.after(ASK_EVERY, Due::Ask { site });
        }
    }

    /// What the peer said of third regions on its present stream.
    fn reaches(&self, site: usize, to: usize) -> BTreeMap<RegionId, Reach> {
        let told = self.links.told.get(&(site, to));
        let third = (0..self.sites.len()).filter(|other| *other != site && *other != to);
        let reach = |other: usize| {
            let id = self.sites[other].region.id;
            let said = told.and_then(|told| told.vectors.get(&other)).cloned();
            (id, Reach { said, life: self.stored_positions(site, id).0 })
        };
        third.map(reach).collect()
    }

    /// Runs whose entries one region holds back from another although it has announced them.
    fn withheld_from(&self, from: usize, to: usize) -> impl Iterator<Item = &RunKey> {
        self.links
            .withheld
            .get(&(from, to))
            .into_iter()
            .flat_map(|withheld| withheld.values())
            .flatten()
            .map(|entry| &entry.run)
    }

    /// How far a region has the log of another, as it knows in memory: what is stored lags behind.
    fn held(&self, at: usize, origin: usize) -> (Option<Incarnation>, BTreeMap<ShardId, Sequence>) {
        let (incarnation, mut proved) = self.stored_positions(at, self.sites[origin].region.id);
        for (shard, heard) in self.links.heard.get(&(origin, at)).into_iter().flatten() {
            let known = proved.entry(*shard).or_default();
            *known = (*known).max(*heard);
        }
        (incarnation, proved)
    }

    /// Tells the shards of a region what every peer has proved of them (C6).
    pub(crate) fn feed_proofs(&mut self, site: usize) -> Result<(), Failure> {
        if !self.sites[site].up {
            return Ok(());
        }
        let now = self.local(site);
        for to in (0..self.sites.len()).filter(|to| *to != site) {
            let proofs = self.links.proofs.get(&(site, to)).cloned().unwrap_or_default();
            let excepted = self.links.exceptions.get(&(site, to)).cloned().unwrap_or_default();
            let down = self.links.down.iter().filter(|(_, at)| *at == to).map(|(origin, _)| {
                let origin = self.sites[*origin].region.id;
                let (incarnation, proved) = self.stored_positions(to, origin);
                (origin, Down { incarnation: incarnation.unwrap_or_default(), proved })
            });
            let down: BTreeMap<_, _> = down.collect();
            let others = self.reaches(site, to);
            // E1: whoever sent it, a run that the peer could not apply is one that it lacks.
            let lacked = self.links.told.get(&(site, to)).into_iter().flat_map(|told| &told.lacked);
            // What is held back here was announced, and its proof says nothing either.
            let withheld = self.withheld_from(site, to);
            let mut lacked: BTreeSet<RunKey> =
                excepted.keys().chain(lacked).chain(withheld).cloned().collect();
            // Nor may what could not be applied here be forgotten here.
            let refused = self.stored_exceptions(site, self.sites[to].region.id);
            lacked.extend(refused.iter().map(|(run, _)| run.clone()));
            let peer = self.name(to).to_string();
            // The previous version never says for whom others should relay.
            let silent = !self.links.streams.contains_key(&(site, to)) || self.sites[to].previous;
            for shard in (1..=self.sites[site].shards).map(ShardId) {
                let through = proofs.get(&shard).copied().unwrap_or_default();
                let (down, others) = (down.clone(), others.clone());
                let proof = Proof { through, exceptions: lacked.clone(), down, others, silent };
                self.sites[site].region.proof(now, shard, &peer, proof);
            }
        }
        self.tend(site)
    }

    /// Everything that a live region has for a live one was sent and proved, and nothing is on its way.
    /// Else: what a link still has to do.
    pub(crate) fn links_unrest(&self) -> Result<Option<String>, Failure> {
        for from in 0..self.sites.len() {
            let tips = self.tips(from)?;
            for to in 0..self.sites.len() {
                if from == to || !self.sites[from].up || !self.sites[to].up {
                    continue;
                }
                if self.links.is_cut(from, to) || self.links.is_cut(to, from) {
                    continue;
                }
                if let Some(why) = self.link_unrest(from, to, &tips) {
                    return Ok(Some(format!("{} to {}: {why}", self.name(from), self.name(to))));
                }
            }
        }
        Ok(None)
    }

    pub(super) fn link_unrest(
        &self,
        from: usize,
        to: usize,
        tips: &BTreeMap<ShardId, Sequence>,
    ) -> Option<String> {
        let Some(stream) = self.links.streams.get(&(from, to)) else { return Some("no stream".to_string()) };
        let Some(outbox) = stream.outbox.as_ref().filter(|_| stream.opened) else {
            return Some("its stream is not open".to_string());
        };
        if stream.doomed {
            return Some("its stream lost something".to_string());
        }
        tips.iter().find_map(|(shard, tip)| {
            let proof = outbox.proof().get(shard).copied().unwrap_or_default();
            (proof < *tip).then(|| format!("{shard} is at {tip} and proved through {proof}"))
        })
    }
}
