//! Verdicts as a set (B1, I03).

use proptest::prelude::*;

use super::*;
use crate::identity::ExternalKind;

fn record(key: u8, run: u8, chain: u8, at: i64, words: &str) -> wire::Unclaimed {
    let identity = Identity::client(ExternalKind::Signal, format!("k{key}"));
    let id = |number: u8| RunId(uuid::Uuid::from_bytes([number; 16]));
    let basis = match (run, chain) {
        (0, _) => Basis::Nothing,
        (run, 0) if words == DELIVERED => Basis::Taken(id(run)),
        (run, 0) => Basis::Owner(id(run)),
        (run, chain) => Basis::Branch { run: id(run), chain: ChainValue([chain; 16]) },
    };
    let verdict = Verdict {
        identity: &identity,
        event: EventId(i64::from(key)),
        version: FailoverVersion(1),
        words,
        basis,
        // Two lives of the run that it rests on.
        order: RunOrder { version: FailoverVersion(at % 2), place: Place::default() },
    };
    let record = verdict.record(id(1), Timestamp(at));
    assert_eq!(Basis::of(&record), basis, "a basis is read as it was written");
    record
}

fn set(records: &[wire::Unclaimed]) -> Verdicts {
    let mut verdicts = Verdicts::default();
    for record in records {
        verdicts.add(record);
    }
    verdicts
}

proptest! {
    /// The merge is a union: in whatever order, and however often, records come, the bytes are the same.
    #[test]
    fn any_order_gives_the_same_set(
        records in proptest::collection::vec(
            (0..3_u8, 0..3_u8, 0..3_u8, 0..3_i64, prop_oneof![Just("a"), Just("b"), Just(DELIVERED)]), 0..12),
        again in 0..12_usize,
        seed in any::<u64>(),
    ) {
        let records: Vec<_> =
            records.into_iter().map(|(key, run, chain, at, words)| record(key, run, chain, at, words)).collect();
        let mut shuffled = records.clone();
        shuffled.extend(records.iter().cycle().take(again.min(records.len())).cloned());
        let mut state = seed;
        for at in (1..shuffled.len()).rev() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            shuffled.swap(at, usize::try_from(state >> 33).unwrap_or(0) % (at + 1));
        }
        let (one, other) = (set(&records), set(&shuffled));
        prop_assert_eq!(one.to_wire(), other.to_wire());
        // Stored and read again it is the same, and adding it once more changes nothing.
        let mut read = set(&one.to_wire());
        prop_assert_eq!(&read, &one);
        for record in &records {
            prop_assert!(!read.add(record));
        }
    }
}

#[test]
fn of_two_for_one_place_the_first_stays() {
    let both = set(&[
        record(1, 2, 3, 9, "later"),
        record(1, 2, 3, 5, "first"),
        record(1, 2, 3, 4, "of an earlier life"),
    ]);
    assert_eq!(both.len(), 1);
    assert_eq!(both.to_wire()[0].recorded_unix_nanos, 5);
    // Another basis is another place.
    assert_eq!(set(&[record(1, 2, 3, 9, "a"), record(1, 2, 0, 9, "a"), record(1, 0, 0, 9, "a")]).len(), 3);
}
