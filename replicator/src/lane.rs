//! The way of received entries into one local shard: in order, several groups in flight, so that a shard always has the
//! next group at hand while it commits the last.

use std::sync::Arc;

use antipode_core::ids::{RunKey, ShardId};
use antipode_history::api::{Applied, Replicated};
use antipode_history::client::Client;
use antipode_proto::link;
use futures::{StreamExt, future::BoxFuture, stream::FuturesOrdered};
use tokio::sync::mpsc;

use crate::proof::RangeNumber;

/// Groups of one shard under way at once.
const IN_FLIGHT_MAX: usize = 8;
/// Entries of one group.
const GROUP_MAX: usize = 512;

/// A received entry on its way.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    /// Shard of the source, and the range it was announced in.
    pub(crate) shard: ShardId,
    pub(crate) range: RangeNumber,
    pub(crate) key: RunKey,
    /// As received: for quarantine, and to offer it again.
    pub(crate) entry: link::Entry,
    /// It still holds the sender's credit.
    pub(crate) holds_credit: bool,
}

/// An item and what its shard is handed.
pub(crate) type Queued = (Item, Replicated);
/// An item and what its shard said.
pub(crate) type Answered = (Item, Applied);

/// Runs a lane until its sender is dropped.
pub(crate) async fn run(
    history: Client,
    shard: ShardId,
    mut queued: mpsc::UnboundedReceiver<Vec<Queued>>,
    answered: mpsc::UnboundedSender<Vec<Answered>>,
) {
    let mut in_flight: FuturesOrdered<BoxFuture<'static, Vec<Answered>>> = FuturesOrdered::new();
    loop {
        tokio::select! {
            biased;
            Some(answers) = in_flight.next(), if !in_flight.is_empty() => {
                if answered.send(answers).is_err() {
                    return;
                }
            }
            group = queued.recv(), if in_flight.len() < IN_FLIGHT_MAX => {
                let Some(mut group) = group else { return };
                while group.len() < GROUP_MAX
                    && let Ok(more) = queued.try_recv()
                {
                    group.extend(more);
                }
                let (items, entries): (Vec<Item>, Vec<Replicated>) = group.into_iter().unzip();
                // Queued here and now, so that groups keep their order; only the answer is awaited beside.
                let answer = history.apply_queued(shard, entries).await;
                in_flight.push_back(Box::pin(async move {
                    let answers = match answer {
                        Ok(answer) => answer.await.map_err(|_| "the shard is stopping".to_string()),
                        Err(refusal) => Err(refusal.to_string()),
                    };
                    pair(items, answers)
                }));
            }
        }
    }
}

/// Each item with its answer; without one it is offered again.
fn pair(items: Vec<Item>, answers: Result<Vec<Applied>, String>) -> Vec<Answered> {
    let missing: Arc<str> = match &answers {
        Ok(_) => Arc::from("the shard gave no answer"),
        Err(why) => Arc::from(why.as_str()),
    };
    let mut answers = answers.unwrap_or_default().into_iter();
    let answer = |item| {
        let answer = answers.next().unwrap_or_else(|| Applied::Retry(missing.to_string()));
        (item, answer)
    };
    items.into_iter().map(answer).collect()
}

#[cfg(test)]
mod tests {
    use antipode_core::ids::{NamespaceId, RunId, Sequence, WorkflowId};

    use super::*;
    use crate::proof::Tracker;

    fn item() -> Item {
        let key = RunKey {
            namespace: NamespaceId::from_random([1; 16]),
            workflow: WorkflowId::from("w"),
            run: RunId::from_random([2; 16]),
        };
        let range = Tracker::new(Sequence(0)).announce(Sequence(0), Sequence(1), 2).unwrap();
        Item { shard: ShardId(1), range, key, entry: link::Entry::default(), holds_credit: true }
    }

    #[test]
    fn an_item_without_answer_is_offered_again() {
        let paired = pair(vec![item(), item()], Ok(vec![Applied::Duplicate]));
        assert_eq!(paired[0].1, Applied::Duplicate);
        assert_eq!(paired[1].1, Applied::Retry("the shard gave no answer".to_string()));
        let paired = pair(vec![item()], Err("moving".to_string()));
        assert_eq!(paired[0].1, Applied::Retry("moving".to_string()));
    }
}
