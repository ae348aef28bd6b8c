//! A1, A5, A6: registers merge by a total order; the attempt never falls within a stamp generation.

use proptest::prelude::*;

use super::*;

const ANCHOR: Anchor = Anchor { event: EventId(11), version: FailoverVersion(1), chain: ChainValue([4; 16]) };

fn order(version: i64, count: u64) -> Order {
    Order { version: FailoverVersion(version), count }
}

fn attempt(version: i64, count: u64, attempt: i32, stamp: u32, who: &str) -> Register {
    let value =
        wire::ActivityAttempt { attempt, stamp, started_identity: who.to_owned(), ..Default::default() };
    Register::activity_attempt(ANCHOR, order(version, count), &value)
}

/// The same with more time (H2).
fn extended(register: Register) -> Register {
    let more = wire::Extension { version: 2, region: 2, started_nanos: 5, ..Default::default() };
    let value = wire::ActivityAttempt { extended: Some(more), ..read(&register) };
    Register::activity_attempt(register.anchor, register.order, &value)
}

fn merged(registers: &[Register]) -> Register {
    let mut set = RegisterSet::default();
    for register in registers {
        set.merge(register.clone());
    }
    set.get(ANCHOR, Kind::ActivityAttempt).unwrap().clone()
}

fn read(register: &Register) -> wire::ActivityAttempt {
    register.decode().unwrap()
}

#[test]
fn kinds_are_read_as_they_are_stored() {
    let kinds =
        [Kind::ActivityAttempt, Kind::ActivityHeartbeat, Kind::WorkflowTaskAttempt, Kind::ActivityOptions];
    for kind in kinds {
        assert_eq!(Kind::from_number(kind as u32), Some(kind));
    }
    assert_eq!((Kind::from_number(0), Kind::from_number(5)), (None, None));
}

#[test]
fn the_greater_order_wins_and_says_who_lost() {
    let (old, new) = (attempt(1, 7, 1, 0, "east"), attempt(2, 1, 1, 0, "west"));
    let mut set = RegisterSet::default();
    assert!(set.merge(new.clone()).changed);
    let late = set.merge(old.clone());
    assert_eq!(late, Merged { changed: false, fork: false, lost: Some(old.clone()) });
    assert_eq!(read(&merged(&[old.clone(), new.clone()])).started_identity, "west");
    assert_eq!(merged(&[old.clone(), new.clone()]), merged(&[new, old]));
}

#[test]
fn what_the_winner_had_seen_is_replaced_and_not_lost() {
    // A6: east wrote (1,7) and (1,8); west wrote (2,1) knowing (1,7).
    let (seen, unseen) = (attempt(1, 7, 1, 0, "east"), attempt(1, 8, 1, 0, "east"));
    let new = Register { base: order(1, 7), ..attempt(2, 1, 1, 0, "west") };
    let lost = |first: &Register, second: &Register| {
        let mut set = RegisterSet::default();
        set.merge(first.clone());
        set.merge(second.clone()).lost
    };
    assert_eq!(lost(&seen, &new), None);
    assert_eq!(lost(&new, &seen), None);
    assert_eq!(lost(&unseen, &new), Some(unseen.clone()));
    assert_eq!(lost(&new, &unseen), Some(unseen.clone()));
    // A later value of the same owner loses nothing.
    assert_eq!(lost(&seen, &unseen), None);
    // The base travels.
    assert_eq!(Register::from_wire(&new.to_wire()), Ok(new.clone()));
    let bad = wire::Register { base_version: -1, ..new.to_wire() };
    assert_eq!(
        Register::from_wire(&bad).unwrap_err().to_string(),
        "register field base_version is out of range"
    );
}

#[test]
fn the_attempt_does_not_fall_when_a_higher_version_wins() {
    // A6: attempt 5@1 must not become 2@2, or the retry limit is exceeded.
    let result = read(&merged(&[attempt(1, 9, 5, 0, "east"), attempt(2, 1, 2, 0, "west")]));
    assert_eq!((result.attempt, result.started_identity.as_str()), (5, "west"));
}

#[test]
fn an_extension_stays_with_the_value_that_has_it() {
    // H2, A6: the attempt of a value that lost is joined into the one that was extended, and nothing else is.
    let (known, late) = (attempt(1, 2, 1, 0, "east"), attempt(1, 3, 2, 0, "east"));
    let west = Register { base: order(1, 2), ..extended(attempt(2, 1, 1, 0, "west")) };
    let result = read(&merged(&[known, late, west.clone()]));
    assert_eq!((result.attempt, result.extended), (2, read(&west).extended));
    let retried = read(&merged(&[west, attempt(2, 2, 2, 0, "west")]));
    assert_eq!((retried.attempt, retried.extended), (2, None));
}

#[test]
fn a_later_stamp_generation_starts_attempts_anew() {
    // A5: a reset raised the stamp; attempts of the generation before are void, whatever their version.
    let result = read(&merged(&[attempt(2, 4, 6, 0, "west"), attempt(1, 9, 1, 1, "east")]));
    assert_eq!((result.attempt, result.stamp), (1, 1));
}

#[test]
fn equal_orders_with_different_bytes_are_a_fork() {
    let (a, b) = (attempt(1, 1, 1, 0, "one"), attempt(1, 1, 1, 0, "two"));
    let mut set = RegisterSet::default();
    set.merge(a.clone());
    assert!(set.merge(b.clone()).fork);
    assert_eq!(merged(&[a.clone(), b.clone()]), merged(&[b, a]));
    // A value whose attempt was raised by a merge is not a second value of its owner.
    let own = attempt(2, 1, 2, 0, "west");
    let mut set = RegisterSet::default();
    set.merge(attempt(1, 9, 5, 0, "east"));
    set.merge(own.clone());
    assert_eq!(set.merge(own), Merged::default());
}

#[test]
fn the_joined_attempt_does_not_decide_which_base_stays() {
    // The third value raises the attempt of whichever of the first two it meets.
    let knowing = Register { base: order(0, 1), ..attempt(2, 2, 1, 0, "west") };
    let ahead = attempt(2, 2, 2, 0, "west");
    let older = attempt(1, 0, 3, 0, "west");
    let one = merged(&[merged(&[knowing.clone(), ahead.clone()]), older.clone()]);
    let other = merged(&[ahead, merged(&[knowing, older])]);
    assert_eq!(one.to_wire(), other.to_wire());
    assert_eq!((one.base, read(&one).attempt), (order(0, 1), 3));
}

#[test]
fn anchors_of_two_branches_stay_apart() {
    // A1: attempt state of 11@1 lies dormant while 11@2 is current.
    let mut other = attempt(2, 1, 3, 0, "west");
    other.anchor.version = FailoverVersion(2);
    let mut set = RegisterSet::default();
    set.merge(attempt(1, 1, 1, 0, "east"));
    set.merge(other);
    assert_eq!(set.len(), 2);
    assert_eq!(read(set.get(ANCHOR, Kind::ActivityAttempt).unwrap()).attempt, 1);
}

#[test]
fn order_grows_with_each_change() {
    assert_eq!(order(1, 7).next(FailoverVersion(1)), order(1, 8));
    assert_eq!(order(1, 7).next(FailoverVersion(2)), order(2, 1));
    assert!(order(1, 7) < order(2, 1));
}

#[test]
fn wire_form_round_trips_and_bad_fields_are_named() {
    let mut set = RegisterSet::default();
    set.merge(attempt(1, 1, 1, 0, "east"));
    let beat = wire::ActivityHeartbeat { recorded_unix_nanos: 5, ..Default::default() };
    set.merge(Register::heartbeat(ANCHOR, order(1, 2), &beat));
    assert_eq!(RegisterSet::from_wire(&set.to_wire()), Ok(set.clone()));
    let good = set.to_wire()[0].clone();
    let refused = |bad: wire::Register| Register::from_wire(&bad).unwrap_err().to_string();
    assert_eq!(refused(wire::Register { kind: 77, ..good.clone() }), "register field kind: 77 is unknown");
    assert_eq!(
        refused(wire::Register { anchor_event_id: 0, ..good.clone() }),
        "register field anchor_event_id is out of range"
    );
    assert!(
        refused(wire::Register { value: Bytes::from_static(b"\xff"), ..good })
            .starts_with("register field value does not decode as ActivityAttempt")
    );
}

fn any_register() -> impl Strategy<Value = Register> {
    let scalars = (1i64..3, 0u64..3, 1i32..4, 0u32..3, 0u8..2);
    // Anchors of two lives of a store, and one that an older version wrote (G2).
    (scalars, 0u8..3, 11i64..13, 0u64..3, 0u8..3).prop_map(
        |((version, count, tries, stamp, who), kind, event, base, life)| {
            let who = if who == 0 { "one" } else { "two" };
            let mut register = match kind {
                0 => attempt(version, count, tries, stamp, who),
                1 => extended(attempt(version, count, tries, stamp, who)),
                _ => Register::workflow_task_attempt(
                    ANCHOR,
                    order(version, count),
                    &wire::WorkflowTaskAttempt { attempt: tries, ..Default::default() },
                ),
            };
            register.anchor = Anchor { event: EventId(event), chain: ChainValue([life; 16]), ..ANCHOR };
            register.base = order(0, base);
            register
        },
    )
}

#[test]
fn what_two_lives_wrote_is_kept_apart() {
    let (a, b) = (attempt(1, 3, 3, 0, "one"), attempt(1, 1, 1, 0, "two"));
    let other = Anchor { chain: ChainValue([5; 16]), ..ANCHOR };
    let b = Register { anchor: other, ..b };
    let mut set = set_of(&[a.clone(), b.clone()]);
    assert!(!set.merge(b.clone()).changed);
    let at = |set: &RegisterSet, anchor| set.at(anchor, Kind::ActivityAttempt).unwrap().into_owned();
    assert_eq!((at(&set, ANCHOR), at(&set, other)), (a.clone(), b.clone()));
    assert_eq!(RegisterSet::from_wire(&set.to_wire()), Ok(set.clone()));
    assert_eq!(set.of_several_lives().count(), 2);
    // An older version names the pair alone: what it wrote counts for whichever of them is there, and the attempt never falls.
    let old = Register { anchor: ANCHOR.bare(), ..attempt(2, 1, 2, 0, "old") };
    set.merge(old.clone());
    let read_at = |anchor| {
        let value = read(&at(&set, anchor));
        (value.attempt, value.started_identity)
    };
    assert_eq!(read_at(ANCHOR), (3, "old".to_owned()));
    assert_eq!(read_at(other), (2, "old".to_owned()));
    assert_eq!(at(&set, ANCHOR).anchor, ANCHOR);
    assert_eq!(set.of_several_lives().count(), 2);
    assert_eq!(set_of(&[a.clone(), old.clone()]).of_several_lives().count(), 0, "of one life");
    assert_eq!(at(&set, ANCHOR.bare()), old);
    // That version has them merged, and digests of both agree on it.
    let bare = |register: &Register| Register { anchor: ANCHOR.bare(), ..register.clone() };
    assert_eq!(set.by_pair(), set_of(&[bare(&a), bare(&b), old]));
    let bad = wire::Register { anchor_chain: Bytes::from_static(b"short"), ..a.to_wire() };
    assert_eq!(
        Register::from_wire(&bad).unwrap_err().to_string(),
        "register field anchor_chain is out of range"
    );
}

#[test]
fn what_hangs_on_a_batch_that_is_written_gets_its_chain_value() {
    let drafted =
        Register { anchor: Anchor { chain: Anchor::DRAFTED, ..ANCHOR }, ..attempt(1, 1, 2, 0, "one") };
    let old = Register { anchor: ANCHOR.bare(), ..attempt(1, 1, 1, 0, "old") };
    let mut set = set_of(&[drafted.clone(), old.clone()]);
    set.sealed(EventId(10), ANCHOR.chain);
    assert_eq!(set, set_of(&[Register { anchor: ANCHOR, ..drafted }, old]));
}

fn set_of(registers: &[Register]) -> RegisterSet {
    let mut set = RegisterSet::default();
    for register in registers {
        set.merge(register.clone());
    }
    set
}

fn join(a: &RegisterSet, b: &RegisterSet) -> RegisterSet {
    let mut joined = a.clone();
    for register in b.iter() {
        joined.merge(register.clone());
    }
    joined
}

proptest! {
    #[test]
    fn merge_is_commutative_associative_idempotent(
        a in prop::collection::vec(any_register(), 0..6),
        b in prop::collection::vec(any_register(), 0..6),
        c in prop::collection::vec(any_register(), 0..6),
    ) {
        let (a, b, c) = (set_of(&a), set_of(&b), set_of(&c));
        prop_assert_eq!(join(&a, &b).to_wire(), join(&b, &a).to_wire());
        prop_assert_eq!(join(&join(&a, &b), &c).to_wire(), join(&a, &join(&b, &c)).to_wire());
        prop_assert_eq!(join(&a, &a).to_wire(), a.to_wire());
        let mut again = join(&a, &b);
        prop_assert!(a.iter().all(|register| !again.merge(register.clone()).changed));
    }

    #[test]
    fn every_order_of_arrival_gives_the_same_bytes(
        registers in prop::collection::vec(any_register(), 0..10),
        shuffled in any::<prop::sample::Index>(),
    ) {
        let mut other = registers.clone();
        if !other.is_empty() {
            let split = shuffled.index(other.len());
            other.rotate_left(split);
            other.reverse();
        }
        prop_assert_eq!(set_of(&registers).to_wire(), set_of(&other).to_wire());
    }
}
