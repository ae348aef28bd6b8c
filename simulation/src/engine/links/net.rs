//! The net between two ends: it delays, loses, doubles, overtakes and breaks off what is posted.

use super::*;

impl Engine {
    pub(super) fn envelope(&mut self, from: usize, to: usize, stream: u64, payload: Payload) -> Envelope {
        self.links.messages += 1;
        let number = self.links.messages;
        Envelope { number, from, to, sender: to, target: to, stream, payload }
    }

    /// Sends over a link: to its source or its receiver, by kind.
    pub(super) fn post(&mut self, from: usize, to: usize, stream: u64, payload: Payload) {
        let (sender, target) = match payload {
            Payload::ToSource(_) => (to, from),
            _ => (from, to),
        };
        self.post_between(from, to, sender, target, stream, payload);
    }

    pub(super) fn post_between(
        &mut self,
        from: usize,
        to: usize,
        sender: usize,
        target: usize,
        stream: u64,
        payload: Payload,
    ) {
        self.links.messages += 1;
        let number = self.links.messages;
        let net = self.setup.net.clone();
        let draw =
            |engine: &mut Self, chance: u32| chance > 0 && engine.random.number() % 1_000 < u64::from(chance);
        let streamed = matches!(payload, Payload::ToSource(_) | Payload::ToReceiver(_));
        let delay = self.between(net.delay);
        let mut at = Timestamp(self.now.0 + delay.0);
        let mut payload = payload;
        let (mut dropped, mut copied, mut overtakes) = (false, false, false);
        if streamed {
            // What a receiver says is small and whole: of its acknowledgements only the last can be missing, as on a connection
            // that dies. What a source sends is thrown about, to see that the receiver notices.
            let acks = matches!(payload, Payload::ToSource(_));
            let mute = acks && self.links.streams.get(&(from, to)).is_some_and(|stream| stream.mute);
            dropped = draw(self, net.drop) || mute;
            copied = !acks && draw(self, net.duplicate);
            overtakes = !acks && draw(self, net.reorder);
            if draw(self, net.corrupt) && break_off(&mut payload) {
                self.fault("message corrupted");
                self.note(State::Corrupted);
            }
            let direction = usize::from(sender == to);
            if let Some(stream) = self.links.streams.get_mut(&(from, to))
                && !overtakes
            {
                at = at.max(stream.last[direction]);
                stream.last[direction] = at;
            }
        }
        self.wear(sender, &mut payload);
        self.record_message(number, sender, target, at, &payload, dropped, false);
        let envelope = Envelope { number, from, to, sender, target, stream, payload };
        if overtakes {
            self.fault("message overtaken");
        }
        if copied {
            self.fault("message doubled");
            let mut copy = envelope.clone();
            self.links.messages += 1;
            copy.number = self.links.messages;
            let later = self.between([Span(0), Span(net.delay[1].0 * 2)]);
            let copy_at = Timestamp(at.0 + later.0);
            self.record_message(copy.number, sender, target, copy_at, &copy.payload, false, true);
            self.at(copy_at, Due::Arrive(Box::new(copy)));
        }
        if dropped {
            self.fault("message lost");
            self.doom(from, to, stream, sender == to);
        } else {
            self.at(at, Due::Arrive(Box::new(envelope)));
        }
    }

    /// What happens to the batches and states in a message: the previous version sends no chain value and no sum; a bit may
    /// flip on the way (G1).
    fn wear(&mut self, sender: usize, payload: &mut Payload) {
        let previous = self.sites[sender].previous;
        let flip = self.setup.net.flip;
        let mut parts = parts(payload);
        if previous {
            parts.iter_mut().for_each(Part::forget);
        }
        // Of what the previous version sent nobody can tell.
        if parts.is_empty() || previous || flip == 0 || self.random.number() % 1_000 >= u64::from(flip) {
            return;
        }
        let nth = self.random.below(parts.len());
        let part = &mut parts[nth];
        let bit = self.random.below(part.len() * 8);
        if part.flip(bit) {
            self.fault("bit flipped");
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one fact each, made in one place")]
    pub(super) fn record_message(
        &mut self,
        id: u64,
        from: usize,
        to: usize,
        at: Timestamp,
        payload: &Payload,
        dropped: bool,
        copy: bool,
    ) {
        let (sent, arrived) = (self.trace.at(), self.trace.since_begin(at));
        let Some(recording) = &mut self.trace.recording else { return };
        let (kind, text, workflows) = words::describe(payload);
        let fate = if dropped { Fate::Dropped } else { Fate::Travelling };
        recording.messages.push(Message { id, from, to, kind, sent, arrived, fate, copy, workflows, text });
    }

    pub(super) fn message_ended(&mut self, number: u64, fate: Fate) {
        if let Some(recording) = &mut self.trace.recording
            && let Some(message) = recording.messages.iter_mut().rev().find(|message| message.id == number)
        {
            message.fate = fate;
        }
    }

    /// A stream lost something: it notices after a while, unless it notices before.
    pub(super) fn doom(&mut self, from: usize, to: usize, number: u64, mute: bool) {
        if let Some(stream) = self.links.streams.get_mut(&(from, to))
            && stream.number == number
        {
            stream.mute |= mute;
        }
        if let Some(stream) = self.links.streams.get_mut(&(from, to))
            && stream.number == number
            && !stream.doomed
        {
            stream.doomed = true;
            let envelope = self.envelope(from, to, number, Payload::Silence);
            self.after(PATIENCE, Due::Arrive(Box::new(envelope)));
        }
    }
}

/// What of a message is worn.
enum Part<'a> {
    Batch(&'a mut wire::Batch),
    State(&'a mut wire::RunState),
}

impl Part<'_> {
    /// As the previous version sends it.
    fn forget(&mut self) {
        match self {
            Self::Batch(batch) => batch.chain.clear(),
            Self::State(state) => {
                state.sum.clear();
                state.sum_form = 0;
            }
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Batch(batch) => batch.envelope.len() + batch.events.len(),
            Self::State(state) => state.encoded_len(),
        }
    }

    /// Changes one bit. False: the message would not decode, which ends a connection by itself.
    fn flip(&mut self, bit: usize) -> bool {
        let change = |bytes: &[u8], at: usize| {
            let mut bytes = bytes.to_vec();
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << (bit % 8);
            }
            bytes
        };
        match self {
            Self::Batch(batch) => {
                match (bit / 8).checked_sub(batch.envelope.len()) {
                    None => batch.envelope = change(&batch.envelope, bit / 8).into(),
                    Some(at) => batch.events = change(&batch.events, at).into(),
                }
                true
            }
            Self::State(state) => {
                let decoded = wire::RunState::decode(&*change(&state.encode_to_vec(), bit / 8));
                decoded.map(|changed| **state = changed).is_ok()
            }
        }
    }
}

/// The batches and states in a message.
fn parts(payload: &mut Payload) -> Vec<Part<'_>> {
    use antipode_proto::link::entry::Entry;
    match payload {
        Payload::ToReceiver(replicate_response::Message::Entries(entries)) => entries
            .entries
            .iter_mut()
            .filter_map(|entry| match &mut entry.entry {
                Some(Entry::Batch(batch)) => Some(Part::Batch(batch)),
                Some(Entry::State(state)) => Some(Part::State(state)),
                None => None,
            })
            .collect(),
        Payload::FetchAnswer { answer: Ok(response), .. } => {
            let batches = response.batches.iter_mut().map(Part::Batch);
            batches.chain(response.state.iter_mut().map(Part::State)).collect()
        }
        _ => Vec::new(),
    }
}

/// Breaks off the events of a batch, as its source has them broken: its chain value fits, and they do not decode. False: there
/// is none in it.
fn break_off(payload: &mut Payload) -> bool {
    let Payload::ToReceiver(replicate_response::Message::Entries(entries)) = payload else { return false };
    for entry in &mut entries.entries {
        if let Some(antipode_proto::link::entry::Entry::Batch(batch)) = &mut entry.entry
            && !batch.events.is_empty()
        {
            batch.events.truncate(batch.events.len() - 1);
            if !batch.chain.is_empty() {
                batch.chain = ChainValue::of_batch(&batch.envelope, &batch.events).to_bytes();
            }
            return true;
        }
    }
    false
}
