//! Verdicts in the log: the words as the message, the whole report as JSON in the field `report`, for those who search. Both are
//! made only when somebody listens.

use antipode_conflict::{Judgement, stale::Discard};
use antipode_core::ids::{RunKey, ShardId};
use tracing::Level;

/// What was said to a replicated entry, or what a run became among those of its workflow id.
pub(crate) fn judged(shard: ShardId, run: &RunKey, judgement: &Judgement) {
    if !tracing::enabled!(Level::DEBUG) || judgement.is_routine() {
        return;
    }
    let (verdict, report) = (judgement.verdict(), judgement.json());
    tracing::debug!(%shard, %run, verdict, %report, "{}", judgement.words());
}

/// Why a task was discarded.
pub(crate) fn discarded(shard: ShardId, run: &RunKey, discard: &Discard) {
    if tracing::enabled!(Level::INFO) {
        let report = discard.json();
        tracing::info!(%shard, %run, %report, "{}", discard.words());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]

    use std::{
        collections::BTreeMap,
        fmt,
        sync::{Arc, Mutex},
    };

    use antipode_conflict::{
        RunFacts,
        explain::{Explanation, Reason},
        standing::{Change, Standing},
    };
    use antipode_core::ids::{FailoverVersion, NamespaceId, Place, RunId, RunOrder};
    use tracing::{Event, Metadata, Subscriber, field, span};

    use super::*;

    type Fields = BTreeMap<&'static str, String>;

    /// Keeps the fields of events.
    struct Kept(Arc<Mutex<Vec<Fields>>>);

    struct Visit(Fields);

    impl field::Visit for Visit {
        fn record_debug(&mut self, field: &field::Field, value: &dyn fmt::Debug) {
            self.0.insert(field.name(), format!("{value:?}"));
        }
        fn record_str(&mut self, field: &field::Field, value: &str) {
            self.0.insert(field.name(), value.to_owned());
        }
    }

    impl Subscriber for Kept {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }
        fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
            span::Id::from_u64(1)
        }
        fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
        fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
        fn event(&self, event: &Event<'_>) {
            let mut visit = Visit(Fields::new());
            event.record(&mut visit);
            self.0.lock().unwrap().push(visit.0);
        }
        fn enter(&self, _: &span::Id) {}
        fn exit(&self, _: &span::Id) {}
    }

    fn run(number: u8) -> RunId {
        RunId::from_random([number; 16])
    }

    #[test]
    fn words_and_the_report_are_logged() {
        let facts = |number, version| RunFacts {
            run: run(number),
            order: RunOrder { version: FailoverVersion(version), place: Place { epoch: 1, sequence: 1 } },
            open: true,
        };
        let zombie = Standing { change: Change::Zombie, owner: facts(2, 2), other: facts(1, 1) };
        let state = antipode_proto::core::RunState::default();
        let merged = Explanation::of_state(&state, None, "Merge", Reason::StateNew);
        let zombie = Judgement::Standing(zombie);
        let discard = Discard {
            reason: "no_task".to_owned(),
            task: "workflow task of event 4@2, attempt 1".to_owned(),
            run: "[1..5@2]".to_owned(),
            why: "no workflow task is pending".to_owned(),
        };
        let key =
            RunKey { namespace: NamespaceId::from_random([9; 16]), workflow: "order".into(), run: run(1) };
        let kept = Arc::new(Mutex::new(Vec::new()));
        tracing::subscriber::with_default(Kept(Arc::clone(&kept)), || {
            judged(ShardId(1), &key, &zombie);
            judged(ShardId(1), &key, &Judgement::Entry(merged));
            discarded(ShardId(1), &key, &discard);
        });
        let kept = kept.lock().unwrap();
        assert_eq!(kept.len(), 2, "what is routine is not told: {kept:?}");
        assert_eq!((&kept[0]["message"], &kept[0]["verdict"]), (&zombie.words(), &"Zombie".to_owned()));
        assert_eq!(kept[0]["report"], zombie.json().to_string());
        assert_eq!(
            (&kept[1]["message"], &kept[1]["report"]),
            (&discard.words(), &discard.json().to_string())
        );
        assert!(kept[1]["report"].contains("\"reason\":\"no_task\""));
    }
}
