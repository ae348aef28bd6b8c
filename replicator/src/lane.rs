//! The way of received entries into one local shard: in order, several groups in flight, so that a shard always has the
//! next group at hand while it commits the last.

use antipode_core::ids::ShardId;
use antipode_history::api::{Applied, Replicated};
use antipode_history::client::Client;
use futures::{StreamExt, future::BoxFuture, stream::FuturesOrdered};
use tokio::sync::mpsc;

use crate::inbox::Call;

/// Groups of one shard under way at once.
const IN_FLIGHT_MAX: usize = 8;
/// Entries of one group.
const GROUP_MAX: usize = 512;

/// What an inbox wants applied.
pub(crate) type Queued = (Call, Vec<Replicated>);
/// What its shard said, or why it said nothing.
pub(crate) type Answered = (Call, Result<Vec<Applied>, String>);

/// Runs a lane until its sender is dropped.
pub(crate) async fn run(
    history: Client,
    shard: ShardId,
    mut queued: mpsc::UnboundedReceiver<Queued>,
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
            first = queued.recv(), if in_flight.len() < IN_FLIGHT_MAX => {
                let Some((call, mut entries)) = first else { return };
                let mut calls = vec![(call, entries.len())];
                while entries.len() < GROUP_MAX
                    && let Ok((call, more)) = queued.try_recv()
                {
                    calls.push((call, more.len()));
                    entries.extend(more);
                }
                // Queued here and now, so that groups keep their order; only the answer is awaited beside.
                let answer = history.apply_queued(shard, entries).await;
                in_flight.push_back(Box::pin(async move {
                    let answers = match answer {
                        Ok(answer) => answer.await.map_err(|_| "the shard is stopping".to_string()),
                        Err(refusal) => Err(refusal.to_string()),
                    };
                    share_out(calls, answers)
                }));
            }
        }
    }
}

/// Each call with its part of the answers; what is missing at the end is missing there too.
fn share_out(calls: Vec<(Call, usize)>, answers: Result<Vec<Applied>, String>) -> Vec<Answered> {
    let why = answers.as_ref().err().cloned();
    let mut answers = answers.unwrap_or_default().into_iter();
    let part = |(call, count): (Call, usize)| {
        let part: Vec<Applied> = answers.by_ref().take(count).collect();
        (call, why.clone().map_or(Ok(part), Err))
    };
    calls.into_iter().map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_call_gets_its_part_of_the_answers() {
        let calls = || vec![(Call(1), 2), (Call(2), 1), (Call(3), 1)];
        let duplicates = |count| vec![Applied::Duplicate; count];
        let shared = share_out(calls(), Ok(duplicates(3)));
        assert_eq!(
            shared,
            [(Call(1), Ok(duplicates(2))), (Call(2), Ok(duplicates(1))), (Call(3), Ok(duplicates(0)))]
        );
        let refused = share_out(calls(), Err("moving".to_string()));
        assert!(refused.iter().all(|(_, answer)| *answer == Err("moving".to_string())));
    }
}
