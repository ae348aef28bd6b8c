//! The worked examples that versions, namespace records and version lists alone decide: EX1–EX12 of the reference and the
//! examples of the incumbent's public documentation, with their exact numbers. Each case carries the name of its example. What
//! needs batches and runs stands in `conflict/tests/examples.rs`. A = east (initial version 1), B = west (2), C = north (3).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use antipode_core::{
    ids::{EventId, FailoverVersion, NamespaceId, RegionId, Timestamp},
    namespace::{Act, Config, Forced, Info, Record, Start},
    region::{Region, Regions},
    version::Increment,
    version_history::VersionHistory,
};
use support::{item, list};

const A: &str = "east";
const B: &str = "west";
const C: &str = "north";

fn regions() -> Regions {
    let members = [Region::new(A, 1), Region::new(B, 2), Region::new(C, 3)];
    Regions::new(Increment::DEFAULT, members).unwrap()
}

fn act<'a>(regions: &'a Regions, here: &'a str) -> Act<'a> {
    Act { regions, here, now: Timestamp(1), who: "operator", why: "example" }
}

fn start(name: &str) -> Start {
    Start {
        id: NamespaceId::from_random([u8::try_from(name.len()).unwrap(); 16]),
        name: name.to_owned(),
        info: Info::default(),
        config: Config { retention_seconds: 86_400 },
        fold_version: 1,
        by: RegionId(1),
    }
}

fn registered(name: &str, active: &str) -> Record {
    Record::new_global(start(name), active, [A, B, C], &regions()).unwrap()
}

/// Hands the namespace over; naming the region that is active already changes nothing (R104).
fn moved(record: &Record, target: &str) -> Record {
    let regions = regions();
    if record.active() == target {
        let again = record.begin_drain(&act(&regions, target), target, "op", Timestamp(9));
        assert!(again.is_err(), "R104");
        return record.clone();
    }
    let from = act(&regions, record.active());
    let draining = record.begin_drain(&from, target, "op", Timestamp(9)).unwrap();
    draining.release(&from, "op").unwrap().activate_released(&act(&regions, target), 0).unwrap()
}

/// EX1 and "version change" of the documentation (its first four moments): (namespace, active afterwards, version).
#[test]
fn versions_of_two_namespaces() {
    let (mut alpha, mut beta) = (None, None);
    for (example, namespace, target, version) in [
        ("version change, T=0", "alpha", A, 1),
        ("version change, T=1", "beta", B, 2),
        ("version change, T=2", "alpha", B, 2),
        ("version change, T=3", "beta", A, 11),
        ("EX1, alpha to B again", "alpha", B, 2),
        ("EX1, alpha back to A", "alpha", A, 11),
        ("EX1, then B", "alpha", B, 12),
        ("EX1, A again", "alpha", A, 21),
    ] {
        let slot = if namespace == "alpha" { &mut alpha } else { &mut beta };
        let record = match slot.take() {
            None => registered(namespace, target),
            Some(known) => moved(&known, target),
        };
        assert_eq!(record.version(), FailoverVersion(version), "{example}");
        assert_eq!(record.writable(target), Some(FailoverVersion(version)), "{example}");
        *slot = Some(record);
    }
}

/// R104, EX1–EX3: (example, region, present version, minted version), increment 10.
#[test]
fn minting() {
    for (example, region, current, minted) in [
        ("EX1, alpha registered in A", 1, 0, 1),
        ("EX1, beta registered in B", 2, 0, 2),
        ("EX1, alpha to B", 2, 1, 2),
        ("EX1, beta to A", 1, 2, 11),
        ("EX1, alpha to B again: no change", 2, 2, 2),
        ("EX1, A after 12", 1, 12, 21),
        ("EX2, A mints from 3", 1, 3, 11),
        ("EX2, B mints from 3 at the same time", 2, 3, 12),
        ("EX3, promotion in A", 1, 0, 1),
    ] {
        let version = Increment::DEFAULT.next(RegionId(region), FailoverVersion(current));
        assert_eq!(version, Ok(FailoverVersion(minted)), "{example}");
    }
}

/// EX2: two regions force from 3, the active C being gone: the larger version wins everywhere, although A was first.
#[test]
fn ex2_racing_failovers() {
    let regions = regions();
    let lost = registered("race", C);
    assert_eq!(lost.version(), FailoverVersion(3));
    let by = |region| lost.force(&act(&regions, region), Forced::default()).unwrap();
    let (mut a, mut b) = (by(A), by(B));
    assert_eq!((a.version().0, b.version().0), (11, 12));
    let (told_by_a, told_by_b) = (a.clone(), b.clone());
    assert!(a.merge(&told_by_b));
    assert!(b.merge(&told_by_a), "only the history of failovers grows");
    assert_eq!(a.to_bytes(), b.to_bytes());
    assert_eq!((a.active(), a.version().0), (B, 12));
    assert_eq!(a.writable(A), None);
    // R228 differs: the loser's entry stays.
    assert_eq!(a.history().keys().map(|version| version.0).collect::<Vec<_>>(), [11, 12]);
}

/// EX3: promotion in A goes from 0 to 1.
#[test]
fn ex3_promotion() {
    let local = Record::new_local(start("local"), A).unwrap();
    assert_eq!(local.version(), FailoverVersion(0));
    assert_eq!(local.promote(&act(&regions(), A)).unwrap().version(), FailoverVersion(1));
}

/// Who may change a run, as the documentation says it: the namespace's version is this region's, and the last event's version
/// is not above it. (last event's version, namespace's version, region, may it?)
#[test]
fn who_may_write() {
    for (last, namespace, region, may) in [
        (1, 1, 1, true),
        (1, 2, 2, true),
        (1, 2, 1, false),
        (2, 11, 1, true),
        (12, 11, 1, false),
        (11, 12, 2, true),
        (11, 12, 1, false),
    ] {
        let owns = Increment::DEFAULT.class(FailoverVersion(namespace)) == Some(RegionId(region));
        let before = list(&[(3, last)]);
        let grows = before.with(item(4, namespace)).is_ok();
        assert_eq!(owns && grows, may, "last event {last}, namespace {namespace}, region {region}");
    }
}

/// EX4: A changes the description while B fails over (11 to 12): both hold afterwards, and both records are equal.
#[test]
fn ex4_settings_and_failover_race() {
    let regions = regions();
    let base = moved(&moved(&registered("orders", A), B), A);
    assert_eq!(base.version(), FailoverVersion(11));
    let info = Info { description: "new".to_owned(), ..Info::default() };
    let mut a = base.update_info(&act(&regions, A), info).unwrap();
    let mut b = base.force(&act(&regions, B), Forced::default()).unwrap();
    let (told_by_a, told_by_b) = (a.clone(), b.clone());
    a.merge(&told_by_b);
    b.merge(&told_by_a);
    assert_eq!(a.to_bytes(), b.to_bytes());
    assert_eq!((a.info().description.as_str(), a.version().0, a.active()), ("new", 12, B));
}

/// EX5: A sets retention 7, B sets 9. The incumbent keeps 7 here and 9 there for ever (W24); here both end with 9.
#[test]
fn ex5_settings_race() {
    let regions = regions();
    let base = registered("orders", A);
    let days = |days: i64| Config { retention_seconds: days * 86_400 };
    let mut a = base.update_config(&act(&regions, A), days(7)).unwrap();
    let mut b = base.update_config(&act(&regions, B), days(9)).unwrap();
    let (told_by_a, told_by_b) = (a.clone(), b.clone());
    a.merge(&told_by_b);
    b.merge(&told_by_a);
    assert_eq!(a.to_bytes(), b.to_bytes());
    assert_eq!(a.config().retention_seconds, 9 * 86_400);
}

/// EX6: A takes C out of the list while C becomes active (13). The incumbent ends with active C and list [A, B] (W25); here
/// the active region is always in the list.
#[test]
fn ex6_list_and_failover_race() {
    let regions = regions();
    let base = moved(&moved(&registered("orders", A), B), A);
    let mut a = base.set_members(&act(&regions, A), [A, B]).unwrap();
    let mut c = base.force(&act(&regions, C), Forced::default()).unwrap();
    assert_eq!(c.version(), FailoverVersion(13));
    let (told_by_a, told_by_c) = (a.clone(), c.clone());
    a.merge(&told_by_c);
    c.merge(&told_by_a);
    assert_eq!(a.to_bytes(), c.to_bytes());
    assert_eq!(a.active(), C);
    assert_eq!(a.members(), [A.to_owned(), B.to_owned(), C.to_owned()].into());
}

/// EX7 and "version history without conflict" of the documentation: (moment, event, version, the list afterwards).
#[test]
fn version_history_without_conflict() {
    let mut history = VersionHistory::default();
    for (example, event, version, expected) in [
        ("without conflict, T=0", 1, 1, &[(1, 1)][..]),
        ("without conflict, T=1", 2, 1, &[(2, 1)]),
        ("without conflict, T=2 and EX7", 3, 1, &[(3, 1)]),
        ("without conflict, T=3 and EX7", 4, 2, &[(3, 1), (4, 2)]),
        ("without conflict, T=4 and EX7", 5, 2, &[(3, 1), (5, 2)]),
    ] {
        history = history.with(item(event, version)).unwrap();
        assert_eq!(history, list(expected), "{example}");
    }
    assert_eq!(history.version_of(EventId(3)), Some(FailoverVersion(1)));
    assert_eq!(history.version_of(EventId(4)), Some(FailoverVersion(2)));
}

/// EX8 and "version history with conflict" of the documentation: both have 1..2@1 3@2; B adds 4@2, C adds 4@3.
#[test]
fn version_history_with_conflict() {
    let shared = list(&[(2, 1)]).with(item(3, 2)).unwrap();
    assert_eq!(shared, list(&[(2, 1), (3, 2)]));
    let on_b = shared.with(item(4, 2)).unwrap();
    let on_c = shared.with(item(4, 3)).unwrap();
    assert_eq!(on_b, list(&[(2, 1), (4, 2)]));
    assert_eq!(on_c, list(&[(2, 1), (3, 2), (4, 3)]));
    assert_eq!(on_b.common_ancestor(&on_c), Ok(item(3, 2)));
    assert_eq!(on_b.copy_until(item(3, 2)), Ok(shared));
    assert!(on_c.compare(&on_b).is_gt(), "C's branch wins");
}

/// EX8–EX13: (example, local list, incoming list, common ancestor, may be appended to the local branch?)
#[test]
fn common_ancestors() {
    for (example, local, incoming, ancestor, appendable) in [
        ("EX8, on B", &[(2, 1), (4, 2)][..], &[(2, 1), (3, 2), (4, 3)][..], (3, 2), false),
        ("EX8, on C", &[(2, 1), (3, 2), (4, 3)], &[(2, 1), (4, 2)], (3, 2), false),
        ("EX9", &[(10, 1)], &[(5, 1)], (5, 1), false),
        ("EX10", &[(5, 1)], &[(9, 1)], (5, 1), true),
        ("EX11, Y then X", &[(10, 102), (15, 302)], &[(10, 102), (12, 202)], (10, 102), false),
        ("EX11, X then Y", &[(10, 102), (12, 202)], &[(10, 102), (15, 302)], (10, 102), false),
        ("EX12", &[(10, 1), (12, 2)], &[(10, 1), (11, 2)], (11, 2), false),
        ("EX13", &[(14, 22), (15, 33)], &[(16, 22)], (14, 22), false),
    ] {
        let (local, incoming) = (list(local), list(incoming));
        let (event, version) = ancestor;
        assert_eq!(local.common_ancestor(&incoming), Ok(item(event, version)), "{example}");
        assert_eq!(local.appendable(item(event, version)), appendable, "{example}");
    }
    // EX11, the impossible half: 11..12@2 after 10@102.
    assert!(list(&[(10, 102)]).with(item(12, 2)).is_err(), "EX11, a falling version");
}
