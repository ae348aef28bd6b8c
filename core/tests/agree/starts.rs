//! Starts of a workflow id that has a run: one that ends the open run, one after a closed run, and a signal that comes with it.

use antipode_core::{
    decide::{
        Seat,
        external::{self, External},
        start,
    },
    identity::Identity,
    ids::{RunId, RunKey},
};
use antipode_proto::api::{
    history::v1::{self as history, history_event::Attributes},
    workflowservice::v1 as ws,
};

use crate::support::Author;

impl Author {
    /// Starts the next run of the workflow id, after terminating the one that is open, in one transition (B5). The run that was
    /// there, as it is then.
    pub fn start_over(
        &mut self,
        request: &ws::StartWorkflowExecutionRequest,
        signal: Option<External>,
    ) -> Self {
        let (context, first, second) = (self.context(), self.seat(), self.seat());
        let next = RunId(uuid::Uuid::from_u128(self.run.key.run.0.as_u128() + 1));
        let mut old = self.clone();
        if old.run.state.is_open() {
            let attributes = history::WorkflowExecutionTerminatedEventAttributes {
                reason: "a start of the same id".to_string(),
                ..Default::default()
            };
            let batch = external::terminate(&mut old.run, attributes, None, false, context.clone(), first);
            old.batches.extend(batch.unwrap());
        }
        let mut new = start::from_request(request, next, context.now);
        new.signal = signal.map(|external| {
            let Attributes::WorkflowExecutionSignaledEventAttributes(attributes) = external.attributes else {
                panic!("not a signal: {:?}", external.attributes);
            };
            let minted = || Identity::client(external.kind, format!("{next}/start"));
            (attributes, external.identity.unwrap_or_else(minted))
        });
        let key = RunKey { run: next, ..self.run.key.clone() };
        let seat = Seat { causal: first.causal, ..second };
        let (run, batch) = start::start(key, new, context, seat).unwrap();
        (self.run, self.batches) = (run, vec![batch]);
        old
    }
}
