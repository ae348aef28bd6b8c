//! After the run: what does the server itself say? Histories are read back through the public API and held against the
//! ledger. The predicates are pure; the reading is around them.

use std::sync::Arc;

use antipode_proto::api::{
    enums::v1::{EventType, WorkflowExecutionStatus},
    history::v1::{HistoryEvent, history_event::Attributes},
};
use futures::{StreamExt, stream};

use crate::{
    case::Shape,
    faults::Faults,
    load::Bench,
    requests::{Names, SIGNAL, number_in},
};

/// Histories read at the same time.
const READERS: usize = 8;

/// Looks at the ledger and reads histories back. Answers the faults and how many histories were read.
pub async fn verify(bench: &Arc<Bench>) -> (Faults, u64) {
    match bench.case.shape {
        Shape::Start | Shape::Echo | Shape::Activity => workflows(bench).await,
        Shape::Signal | Shape::Fanin => signals(bench).await,
    }
}

/// An even sample of the numbers, always with the first and the last.
fn sample(numbers: &[usize], size: Option<usize>) -> Vec<usize> {
    match size {
        Some(size) if size < numbers.len() && size > 1 => {
            let last = numbers.len() - 1;
            (0..size).map(|index| numbers[index * last / (size - 1)]).collect()
        }
        _ => numbers.to_vec(),
    }
}

async fn workflows(bench: &Arc<Bench>) -> (Faults, u64) {
    let shape = match bench.case.shape {
        Shape::Start => Shape::Echo,
        shape => shape,
    };
    let mut faults = bench.ledger.faults(shape);
    let chosen = sample(&bench.ledger.accepted_numbers(), bench.settings.sample);
    let verified = chosen.len() as u64;
    let looks = stream::iter(chosen).map(|number| workflow(bench, shape, number)).buffer_unordered(READERS);
    for found in looks.collect::<Vec<_>>().await {
        faults.add(found);
    }
    (faults, verified)
}

async fn workflow(bench: &Bench, shape: Shape, number: usize) -> Faults {
    let id = bench.names.workflow_id(number);
    let mut faults = Faults::default();
    let events = match bench.api.history(&id, "").await {
        Ok(events) => events,
        Err(status) => {
            faults.lost(format!("{id}: no history: {status}"));
            return faults;
        }
    };
    if let Err(why) = judge(shape, number, &bench.names, &events) {
        faults.wrong(format!("{id}: {why}"));
    }
    match bench.api.describe(&id, "").await {
        Ok(description) => {
            let info = description.workflow_execution_info.unwrap_or_default();
            if info.status != i32::from(WorkflowExecutionStatus::Completed) {
                faults.wrong(format!("{id}: described with status {:?}", info.status()));
            }
            if usize::try_from(info.history_length).ok() != Some(events.len()) {
                let (said, read) = (info.history_length, events.len());
                faults.wrong(format!("{id}: described with {said} events, its history has {read}"));
            }
        }
        Err(status) => faults.lost(format!("{id}: no description: {status}")),
    }
    faults
}

/// Events are numbered from one without a gap.
fn contiguous(events: &[HistoryEvent]) -> Result<(), String> {
    for (index, event) in events.iter().enumerate() {
        if usize::try_from(event.event_id).ok() != Some(index + 1) {
            return Err(format!("event {} stands at place {}", event.event_id, index + 1));
        }
    }
    Ok(())
}

/// Whether a closed workflow's history is what its case must leave, allowing for retried tasks.
fn judge(shape: Shape, number: usize, names: &Names, events: &[HistoryEvent]) -> Result<(), String> {
    contiguous(events)?;
    let exactly = |kind: EventType, wanted: u32| {
        let seen = events.iter().filter(|event| event.event_type() == kind).count();
        if seen == wanted as usize {
            Ok(())
        } else {
            Err(format!("{seen} times {kind:?} instead of {wanted}"))
        }
    };
    exactly(EventType::WorkflowExecutionStarted, 1)?;
    exactly(EventType::WorkflowExecutionCompleted, 1)?;
    exactly(EventType::WorkflowTaskCompleted, shape.workflow_tasks())?;
    exactly(EventType::ActivityTaskScheduled, shape.activity_tasks())?;
    exactly(EventType::ActivityTaskStarted, shape.activity_tasks())?;
    exactly(EventType::ActivityTaskCompleted, shape.activity_tasks())?;
    let last = events.last().and_then(|event| event.attributes.as_ref());
    match last {
        Some(Attributes::WorkflowExecutionCompletedEventAttributes(completed))
            if completed.result.as_ref() == Some(&names.payload(number)) =>
        {
            Ok(())
        }
        Some(Attributes::WorkflowExecutionCompletedEventAttributes(_)) => {
            Err("its result is not its input".to_string())
        }
        _ => Err("its last event is not WorkflowExecutionCompleted".to_string()),
    }
}

async fn signals(bench: &Arc<Bench>) -> (Faults, u64) {
    let mut faults = Faults::default();
    let mut seen: Vec<u32> = Vec::new();
    let workflows = bench.lanes.started();
    for &lane in &workflows {
        let id = bench.names.lane_id(lane);
        match bench.lanes.closes(lane) {
            0 => faults.lost(format!("{id} never closed")),
            1 => {}
            closes => faults.doubled(format!("{id} was closed {closes} times")),
        }
        match bench.api.history(&id, "").await {
            Ok(events) => {
                if let Err(why) = contiguous(&events) {
                    faults.wrong(format!("{id}: {why}"));
                }
                tally(&events, &mut seen);
            }
            Err(status) => faults.lost(format!("{id}: no history: {status}")),
        }
    }
    faults.add(exactly_once(&bench.ledger.accepted_numbers(), &seen));
    (faults, workflows.len() as u64)
}

/// Counts the signals of a history by their numbers.
fn tally(events: &[HistoryEvent], seen: &mut Vec<u32>) {
    for event in events {
        let Some(Attributes::WorkflowExecutionSignaledEventAttributes(signal)) = &event.attributes else {
            continue;
        };
        if signal.signal_name != SIGNAL {
            continue;
        }
        if let Some(number) = number_in(signal.input.as_ref()) {
            if seen.len() <= number {
                seen.resize(number + 1, 0);
            }
            seen[number] += 1;
        }
    }
}

/// Every acknowledged signal once; one that was refused at most once.
fn exactly_once(accepted: &[usize], seen: &[u32]) -> Faults {
    let mut faults = Faults::default();
    for &number in accepted {
        if seen.get(number).copied().unwrap_or(0) == 0 {
            faults.lost(format!("signal {number} was acknowledged and is in no history"));
        }
    }
    for (number, &times) in seen.iter().enumerate() {
        if times > 1 {
            faults.doubled(format!("signal {number} is in the histories {times} times"));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_has_both_ends_and_the_asked_size() {
        let numbers: Vec<usize> = (10..110).collect();
        let chosen = sample(&numbers, Some(7));
        assert_eq!((chosen.len(), chosen.first(), chosen.last()), (7, Some(&10), Some(&109)));
        assert_eq!(sample(&numbers, None), numbers);
        assert_eq!(sample(&numbers, Some(100)), numbers);
        assert_eq!(sample(&[], Some(7)), Vec::<usize>::new());
    }

    #[test]
    fn a_signal_that_is_missing_is_lost_and_one_that_is_there_twice_is_doubled() {
        let faults = exactly_once(&[0, 1, 2], &[1, 0, 2, 1]);
        assert_eq!((faults.lost, faults.doubled, faults.wrong), (1, 1, 0));
        assert!(exactly_once(&[0, 2], &[1, 0, 1]).none());
    }

    #[test]
    fn a_gap_in_the_event_ids_is_seen() {
        let event = |event_id| HistoryEvent { event_id, ..HistoryEvent::default() };
        assert!(contiguous(&[event(1), event(2)]).is_ok());
        assert_eq!(contiguous(&[event(1), event(3)]), Err("event 3 stands at place 2".to_string()));
    }
}
