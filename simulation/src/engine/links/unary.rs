//! Unary calls between regions: a fetch, a record. Each is answered or fails, as over gRPC.

use super::*;

impl Engine {
    /// Fetches and records: asked, answered, or failed.
    pub(super) fn unary(
        &mut self,
        from: usize,
        to: usize,
        target: usize,
        stream: u64,
        payload: Payload,
        reached: bool,
    ) -> Result<(), Failure> {
        let why = || "the region was not reached".to_string();
        match payload {
            Payload::FetchAsk { call, request } if reached => {
                self.answer_fetch(from, to, target, stream, call, &request)
            }
            Payload::FetchAsk { call, .. } => {
                let answer = Payload::FetchAnswer { call, answer: Err(why()) };
                self.post_between(from, to, to, to, stream, answer);
                Ok(())
            }
            Payload::FetchAnswer { call, answer } => {
                let answer = if reached { answer } else { Err(why()) };
                if self.stream_is(from, to, stream) {
                    self.with_inbox(from, to, |inbox, cx| inbox.fetched(cx, call, answer));
                }
                Ok(())
            }
            Payload::RecordAsk { call } => {
                let record = reached.then(|| Box::new(self.sites[target].region.record.to_wire()));
                // An answer that nobody gave comes from nowhere.
                let sender = if reached { target } else { to };
                self.post_between(from, to, sender, to, stream, Payload::RecordAnswer { call, record });
                Ok(())
            }
            Payload::RecordAnswer { call, record } => {
                let record = record.filter(|_| reached);
                if let Some(record) = &record {
                    self.merge_record(to, record)?;
                }
                if self.stream_is(from, to, stream) {
                    self.with_inbox(from, to, |inbox, cx| inbox.record_asked(cx, call, record.is_some()));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    pub(super) fn answer_fetch(
        &mut self,
        from: usize,
        to: usize,
        peer: usize,
        stream: u64,
        call: Call,
        request: &FetchRunRequest,
    ) -> Result<(), Failure> {
        let key =
            antipode_replicator::entry::key_of(&request.namespace_id, &request.workflow_id, &request.run_id);
        let known = VersionHistory::from_wire(&request.known).ok();
        let until = ChainValue::from_bytes(&request.until_chain);
        let (Some(key), Some(known)) = (key, known) else {
            self.find("link", format!("a fetch is malformed: {request:?}"));
            return Ok(());
        };
        let held = self.links.held.get(&peer).is_some_and(|held| held.contains(&key.run));
        if held && !self.links.fetchable.contains(&peer) {
            let answer = Payload::FetchAnswer { call, answer: Err("the run is held back".to_string()) };
            self.post_between(from, to, peer, to, stream, answer);
            return Ok(());
        }
        let until = until.filter(|until| *until != ChainValue::NONE);
        let fetch = Request {
            workflow: key.workflow_key(),
            run: Some(key.run),
            operation: Operation::Fetch { known, until },
        };
        let now = self.local(peer);
        let ticket = self.sites[peer].region.request(now, fetch);
        self.links.numbers += 1;
        let token = self.links.numbers;
        self.sites[peer].fetching.insert(token, (from, to, stream, call));
        self.sites[peer].waiting.insert(ticket, Asker::Fetch { token });
        self.tend(peer)
    }

    /// A shard answered a fetch.
    pub(crate) fn fetched(
        &mut self,
        peer: usize,
        token: u64,
        answer: Result<Reply, Refusal>,
    ) -> Result<(), Failure> {
        let Some((from, to, stream, call)) = self.sites[peer].fetching.remove(&token) else { return Ok(()) };
        let answer = match answer {
            Ok(Reply::Fetched { batches, state }) => Ok(FetchRunResponse {
                found: true,
                batches: batches.iter().map(|batch| batch.to_wire()).collect(),
                state: Some(*state),
            }),
            Err(Refusal::NotFound(_)) => Ok(FetchRunResponse::default()),
            Ok(_) => Err("the shard answered with something else".to_string()),
            Err(refusal) => Err(refusal.to_string()),
        };
        self.post_between(from, to, peer, to, stream, Payload::FetchAnswer { call, answer });
        Ok(())
    }

    /// A region dies with fetches in its hands: whoever asked sees his call fail.
    pub(crate) fn fetches_die(&mut self, peer: usize) {
        for (from, to, stream, call) in std::mem::take(&mut self.sites[peer].fetching).into_values() {
            let answer = Payload::FetchAnswer { call, answer: Err("the region died".to_string()) };
            self.post_between(from, to, to, to, stream, answer);
        }
    }

    pub(super) fn merge_record(
        &mut self,
        site: usize,
        record: &wire::NamespaceRecord,
    ) -> Result<(), Failure> {
        match Record::from_wire(record) {
            Ok(theirs) => {
                let mut merged = self.sites[site].region.record.clone();
                if merged.merge(&theirs) { self.set_record(site, merged) } else { Ok(()) }
            }
            Err(malformed) => {
                self.find("link", format!("a record does not decode: {malformed}"));
                Ok(())
            }
        }
    }
}
