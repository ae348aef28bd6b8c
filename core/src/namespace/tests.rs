//! EX1, EX3–EX6, F1–F4, R200–R228, and: any order of delivery of any updates over three regions gives equal bytes.

use proptest::prelude::*;

use super::*;
use crate::{region::Region, version::Increment};

const NAMES: [&str; 3] = ["east", "west", "north"];

fn regions() -> Regions {
    let members = [Region::new("east", 1), Region::new("west", 2), Region::new("north", 3)];
    Regions::new(Increment::DEFAULT, members).unwrap()
}

fn start(name: &str, by: u32) -> Start {
    Start {
        id: NamespaceId::from_random([by as u8; 16]),
        name: name.to_owned(),
        info: Info::default(),
        config: Config { retention_seconds: 86_400 },
        fold_version: 1,
        by: RegionId(by),
    }
}

fn act<'a>(regions: &'a Regions, here: &'a str) -> Act<'a> {
    Act { regions, here, now: Timestamp(1), who: "operator", why: "test" }
}

fn global(members: &[&str]) -> Record {
    Record::new_global(start("orders", 1), "east", members.iter().copied(), &regions()).unwrap()
}

fn version(number: i64) -> FailoverVersion {
    FailoverVersion(number)
}

/// A graceful failover to its end.
fn moved(record: &Record, regions: &Regions, target: &str) -> Result<Record, Refusal> {
    let from = act(regions, record.active());
    let draining = record.begin_drain(&from, target, "op", Timestamp(9))?;
    draining.release(&from, "op")?.activate_released(&act(regions, target), 5)
}

/// A10: the fold version that a namespace was made with is stored, read and merged with it.
#[test]
fn the_fold_version_stays_with_its_record() {
    let made = Start { fold_version: 3, ..start("orders", 1) };
    let record = Record::new_global(made, "east", NAMES, &regions()).unwrap();
    assert_eq!(record.fold_version(), 3);
    let read = Record::from_wire(&record.to_wire()).unwrap();
    assert_eq!((read.fold_version(), &read), (3, &record));
}

#[test]
fn versions_follow_the_worked_example() {
    // EX1, A = east, B = west.
    let regions = regions();
    let alpha = global(&NAMES);
    assert_eq!(alpha.version(), version(1));
    let beta = Record::new_global(start("beta", 2), "west", ["east"], &regions).unwrap();
    assert_eq!(beta.version(), version(2));
    let alpha = moved(&alpha, &regions, "west").unwrap();
    assert_eq!(alpha.version(), version(2));
    assert_eq!(moved(&beta, &regions, "east").unwrap().version(), version(11));
    // R104: to where it is already: nothing changes.
    assert_eq!(moved(&alpha, &regions, "west"), Err(Refusal::AlreadyActive("west".into())));
    let alpha = moved(&alpha, &regions, "east").unwrap();
    let alpha = moved(&alpha, &regions, "west").unwrap();
    let alpha = moved(&alpha, &regions, "east").unwrap();
    assert_eq!(alpha.version(), version(21));
    let versions: Vec<_> = alpha.history().keys().map(|version| version.0).collect();
    assert_eq!(versions, [2, 11, 12, 21]);
    assert_eq!(alpha.history()[&version(12)].from, "east");
}

#[test]
fn promotion_mints_the_first_version_and_has_no_way_back() {
    // R200, R205, R206, EX3
    let regions = regions();
    let local = Record::new_local(start("orders", 1), "east").unwrap();
    assert_eq!((local.version(), local.is_global()), (version(0), false));
    assert_eq!(local.writable("east"), Some(version(0)));
    assert_eq!(local.members(), ["east".to_owned()].into());
    assert!(matches!(local.promote(&act(&regions, "west")), Err(Refusal::NotHome { .. })));
    assert_eq!(local.set_members(&act(&regions, "east"), NAMES), Err(Refusal::Local("east".into())));
    let promoted = local.promote(&act(&regions, "east")).unwrap();
    assert_eq!((promoted.version(), promoted.is_global()), (version(1), true));
    let entry = &promoted.history()[&version(1)];
    assert_eq!((entry.who.as_str(), entry.why.as_str(), entry.to.as_str()), ("operator", "test", "east"));
    assert_eq!((entry.at, entry.predicted_loss_runs, entry.from.as_str()), (Timestamp(1), Some(0), ""));
    assert_eq!(promoted.promote(&act(&regions, "east")), Err(Refusal::AlreadyGlobal));
    let mut late = promoted.clone();
    assert!(!late.merge(&local));
    let listed = promoted.set_members(&act(&regions, "east"), NAMES).unwrap();
    assert_eq!(listed.members().len(), 3);
}

#[test]
fn a_version_of_another_life_may_not_be_written_under() {
    // E2: the store of east is restored; what it owned waits until east has minted a new version in this life.
    let regions = regions();
    let (one, two) = (Incarnation(7), Incarnation(8));
    let record = global(&["east", "west"]).minted_in(one);
    assert_eq!(record.standing_in("east", one), Standing::Writable(version(1)));
    let waits = Standing::HandingOver { target: "east".into(), deadline: None };
    assert_eq!(record.standing_in("east", two), waits);
    assert!(record.is_of_another_life("east", two));
    // The others know it as east's, and a namespace of one region has no versions to mint.
    assert_eq!(record.standing_in("west", two), Standing::Passive { active: "east".into() });
    let local = Record::new_local(start("alone", 1), "east").unwrap().minted_in(one);
    assert!(!local.is_of_another_life("east", two));
    // A record of before this field was written is not held against anybody.
    assert_eq!(global(&["east"]).standing_in("east", two), Standing::Writable(version(1)));
    // An undone hand-over keeps the life that minted the version; force mints.
    let east = act(&regions, "east");
    let undone =
        record.begin_drain(&east, "west", "op", Timestamp(9)).unwrap().undo_drain(&east, "op").unwrap();
    assert_eq!(undone.standing_in("east", two), waits);
    // F1: what another life released is the target's.
    let released =
        record.begin_drain(&east, "west", "op", Timestamp(9)).unwrap().release(&east, "op").unwrap();
    assert!(!released.is_of_another_life("east", two));
    assert_eq!(released.writable("east"), None);
    let forced =
        undone.force(&east, Forced { seen_max: version(1), ..Forced::default() }).unwrap().minted_in(two);
    assert_eq!(forced.standing_in("east", two), Standing::Writable(version(11)));
    // The life travels, and comes back equal.
    assert_eq!(Record::from_bytes(&forced.to_bytes()).unwrap(), forced);
}

#[test]
fn a_version_that_two_lives_minted_is_nobodys() {
    // G2: east was restored to a time before it minted 11, and minted 11 again before it heard of the first.
    let regions = regions();
    let east = act(&regions, "east");
    let mint = |life| {
        let forced = Forced { seen_max: version(1), ..Forced::default() };
        global(&["east", "west"]).force(&east, forced).unwrap().minted_in(Incarnation(life))
    };
    let join = |a: &Record, b: &Record| {
        let mut joined = a.clone();
        joined.merge(b);
        joined
    };
    let (first, second) = (mint(7), mint(8));
    let both = join(&first, &second);
    assert_eq!(both, join(&second, &first));
    for life in [7, 8] {
        assert!(both.is_of_another_life("east", Incarnation(life)));
        // Whatever comes late of either account changes nothing, and a step that one of them took does not hide the other.
        assert_eq!(join(&both, &mint(life)), both);
        let undone = mint(life).begin_drain(&east, "west", "op", Timestamp(9)).unwrap();
        let undone = undone.undo_drain(&east, "op").unwrap();
        assert!(join(&both, &undone).is_of_another_life("east", Incarnation(life)));
        assert!(join(&mint(15 - life), &undone).is_of_another_life("east", Incarnation(life)));
    }
    let again = both.force(&east, Forced { seen_max: version(11), ..Forced::default() }).unwrap();
    let again = again.minted_in(Incarnation(8));
    assert_eq!(join(&both, &again).standing_in("east", Incarnation(8)), Standing::Writable(version(21)));
    // From a region that does not know lives, nothing follows.
    assert_eq!(join(&first, &mint(0)), first);
    assert_eq!(Record::from_bytes(&both.to_bytes()).unwrap(), both);
}

#[test]
fn a_handover_goes_step_by_step_and_only_by_the_owner() {
    // F1
    let regions = regions();
    let (east, west) = (act(&regions, "east"), act(&regions, "west"));
    let record = global(&["east", "west"]);
    assert!(matches!(record.begin_drain(&west, "west", "op", Timestamp(9)), Err(Refusal::NotOwner { .. })));
    assert_eq!(
        record.begin_drain(&east, "north", "op", Timestamp(9)),
        Err(Refusal::NotMember("north".into()))
    );
    let draining = record.begin_drain(&east, "west", "op", Timestamp(9)).unwrap();
    assert!(matches!(draining.standing("east"), Standing::HandingOver { deadline: Some(_), .. }));
    assert_eq!(draining.standing("west"), Standing::Passive { active: "east".into() });
    assert_eq!(draining.begin_drain(&east, "west", "op", Timestamp(9)), Ok(draining.clone()));
    assert!(matches!(draining.begin_drain(&east, "west", "other", Timestamp(9)), Err(Refusal::Busy { .. })));
    assert!(matches!(draining.activate_released(&west, 0), Err(Refusal::NotReleased(_))));
    assert_eq!(draining.activate_released(&east, 0), Err(Refusal::NotReleased("east".into())));
    assert_eq!(record.activate_released(&west, 0), Err(Refusal::NotReleased("west".into())));
    // The target of a hand-over stays in the list.
    assert!(draining.set_members(&east, ["east", "west"]).is_ok());
    assert!(
        matches!(draining.set_members(&east, ["east"]), Err(Refusal::CannotLeave { region, .. }) if region == "west")
    );
    // Undone: east writes on under the same version.
    let undone = draining.undo_drain(&east, "op").unwrap();
    assert_eq!(undone.writable("east"), Some(version(1)));
    assert_eq!(undone.release(&east, "op"), Err(Refusal::NotDraining("op".into())));
    // Released: nobody writes, nobody undoes.
    let released = draining.release(&east, "op").unwrap();
    for region in NAMES {
        assert_eq!(released.writable(region), None, "{region}");
    }
    assert!(matches!(released.undo_drain(&east, "op"), Err(Refusal::Released { .. })));
    assert!(matches!(released.delete(&east), Err(Refusal::Released { .. })));
    assert_eq!(released.standing("west"), Standing::MayActivate { version: version(2) });
    assert_eq!(released.standing("north"), Standing::Passive { active: "east".into() });
    let active = released.activate_released(&west, 7).unwrap();
    assert_eq!(active.writable("west"), Some(version(2)));
    assert_eq!(active.writable("east"), None);
    assert_eq!(active.activate_released(&west, 7), Err(Refusal::AlreadyActive("west".into())));
    let entry = &active.history()[&version(2)];
    assert_eq!((entry.from.as_str(), entry.to.as_str()), ("east", "west"));
    assert_eq!((entry.unavailable_millis, entry.forced), (7, false));
}

#[test]
fn every_step_outranks_the_one_before_in_any_order() {
    // F1: a late draining does not undo an undo, a late release does not undo an activation.
    let regions = regions();
    let east = act(&regions, "east");
    let record = global(&["east", "west"]);
    let draining = record.begin_drain(&east, "west", "op", Timestamp(9)).unwrap();
    let undone = draining.undo_drain(&east, "op").unwrap();
    let mut late = undone.clone();
    assert!(!late.merge(&draining) && late == undone);
    let again = undone.begin_drain(&east, "west", "op2", Timestamp(9)).unwrap();
    let released = again.release(&east, "op2").unwrap();
    let active = released.activate_released(&act(&regions, "west"), 0).unwrap();
    let mut late = active.clone();
    for old in [&record, &draining, &undone, &again, &released] {
        assert!(!late.merge(old));
    }
    assert_eq!(late, active);
}

#[test]
fn force_mints_above_everything_seen() {
    // F3: the record is really 21@east; west still knows 2@west.
    let regions = regions();
    let west = act(&regions, "west");
    let stale = moved(&global(&["east", "west"]), &regions, "west").unwrap();
    assert_eq!(stale.version(), version(2));
    let forced = stale.force(&west, Forced::default()).unwrap();
    assert_eq!(forced.version(), version(12));
    let seen =
        Forced { seen_max: version(21), not_asked: ["east".to_owned()].into(), predicted_loss_runs: Some(3) };
    let forced = stale.force(&west, seen).unwrap();
    assert_eq!(forced.version(), version(22));
    let entry = &forced.history()[&version(22)];
    assert!(entry.forced && entry.not_asked.contains("east"));
    assert_eq!(entry.predicted_loss_runs, Some(3));
    assert_eq!(
        stale.force(&act(&regions, "north"), Forced::default()),
        Err(Refusal::NotMember("north".into()))
    );
}

#[test]
fn a_stranded_release_is_taken_back_by_force() {
    // F1: west never activates; east forces, and west's late activation loses.
    let regions = regions();
    let east = act(&regions, "east");
    let record = global(&["east", "west"]);
    let draining = record.begin_drain(&east, "west", "op", Timestamp(9)).unwrap();
    let released = draining.release(&east, "op").unwrap();
    let back = released.force(&east, Forced::default()).unwrap();
    assert_eq!(back.writable("east"), Some(version(11)));
    let mut west = released.activate_released(&act(&regions, "west"), 0).unwrap();
    west.merge(&back);
    assert_eq!(west.writable("west"), None);
    assert_eq!(west.active(), "east");
    assert_eq!(west.history().len(), 2);
    // Released to north under 3: west's force must not mint 2.
    let record = global(&NAMES);
    let draining = record.begin_drain(&east, "north", "op", Timestamp(9)).unwrap();
    let released = draining.release(&east, "op").unwrap();
    let forced = released.force(&act(&regions, "west"), Forced::default()).unwrap();
    assert_eq!(forced.version(), version(12));
}

#[test]
fn settings_and_failover_do_not_disturb_each_other() {
    // EX4: east changes the description while west fails over.
    let regions = regions();
    let base = moved(&global(&["east", "west"]), &regions, "west").unwrap();
    let base = moved(&base, &regions, "east").unwrap();
    let info = Info { description: "orders of Europe".into(), ..Info::default() };
    let mut east = base.update_info(&act(&regions, "east"), info.clone()).unwrap();
    let mut west = base.force(&act(&regions, "west"), Forced::default()).unwrap();
    let (sent_by_east, sent_by_west) = (east.clone(), west.clone());
    assert!(east.merge(&sent_by_west) && west.merge(&sent_by_east));
    assert_eq!(east.to_bytes(), west.to_bytes());
    assert_eq!((east.info(), east.version()), (&info, version(12)));
}

#[test]
fn racing_settings_end_equal() {
    // EX5, W24: the incumbent keeps 7 here and 9 there for ever.
    let regions = regions();
    let base = global(&["east", "west"]);
    let days = |days: i64| Config { retention_seconds: days * 86_400 };
    let mut east = base.update_config(&act(&regions, "east"), days(7)).unwrap();
    let mut west = base.update_config(&act(&regions, "west"), days(9)).unwrap();
    let (sent_by_east, sent_by_west) = (east.clone(), west.clone());
    east.merge(&sent_by_west);
    west.merge(&sent_by_east);
    assert_eq!(east.to_bytes(), west.to_bytes());
    assert_eq!(east.config(), days(9));
}

#[test]
fn the_active_region_is_in_the_list_whatever_the_list_says() {
    // EX6, W25: east removes north while north becomes active.
    let regions = regions();
    let base = global(&NAMES);
    let mut east = base.set_members(&act(&regions, "east"), ["east", "west"]).unwrap();
    let north = base.force(&act(&regions, "north"), Forced::default()).unwrap();
    assert!(!east.members().contains("north"));
    east.merge(&north);
    assert_eq!(east.active(), "north");
    assert_eq!(east.members().len(), 3);
    assert!(east.has_member("north"));
    // R207: nor can it be removed then; removed and added again it stays added.
    let again = east.set_members(&act(&regions, "east"), ["east"]);
    assert!(matches!(again, Err(Refusal::CannotLeave { .. })));
    let added = east.set_members(&act(&regions, "north"), NAMES).unwrap();
    let mut late = added;
    late.merge(&base);
    assert!(late.members.contains("north"));
}

#[test]
fn removing_one_of_two_regions_added_together_keeps_the_other() {
    let regions = regions();
    let east = act(&regions, "east");
    let both = global(&["east"]).set_members(&east, NAMES).unwrap();
    let one = both.set_members(&east, ["east", "north"]).unwrap();
    assert_eq!(one.members(), ["east".to_owned(), "north".to_owned()].into());
    let unknown = both.set_members(&east, ["east", "south"]);
    assert!(matches!(unknown, Err(Refusal::Region(_))));
}

#[test]
fn of_two_homes_the_greater_stays_in_any_order() {
    let (mut east, mut west) = (global(&NAMES), global(&NAMES));
    east.home = "east".to_owned();
    west.home = "west".to_owned();
    for records in [[&east, &west], [&west, &east]] {
        let mut joined = records[0].clone();
        joined.merge(records[1]);
        assert_eq!(joined.home, "west");
    }
}

#[test]
fn deletion_absorbs() {
    // F4, R214
    let regions = regions();
    let base = global(&["east", "west"]);
    assert!(matches!(base.delete(&act(&regions, "west")), Err(Refusal::NotOwner { .. })));
    let deleted = base.delete(&act(&regions, "east")).unwrap();
    let mut updated = base.force(&act(&regions, "west"), Forced::default()).unwrap();
    updated.merge(&deleted);
    assert!(updated.is_deleted());
    assert_eq!(updated.standing("west"), Standing::Deleted);
    assert_eq!(updated.rename(&act(&regions, "west"), "x"), Err(Refusal::Deleted));
}

#[test]
fn equal_versions_take_the_texts_of_the_smaller_stamp() {
    // F4
    let regions = regions();
    let base = global(&["east", "west"]);
    let west = |why| Act { why, ..act(&regions, "west") };
    let first = base.force(&west("fire"), Forced::default()).unwrap();
    let renamed = base.rename(&west(""), "other").unwrap();
    let second = renamed.force(&west("flood"), Forced::default()).unwrap();
    assert_eq!(first.version(), second.version());
    let (mut a, mut b) = (first.clone(), second.clone());
    a.merge(&second);
    b.merge(&first);
    assert_eq!(a.to_bytes(), b.to_bytes());
    assert_eq!(a.history()[&first.version()].why, "fire");
}

#[test]
fn one_name_for_two_namespaces() {
    // F4
    let regions = regions();
    let east = global(&["east", "west"]);
    let west = Record::new_global(start("orders", 2), "west", [], &regions).unwrap();
    let north = Record::new_global(start("orders", 3), "north", [], &regions).unwrap();
    let names = resolve_names([&west, &north, &east], &regions);
    assert_eq!(names[&east.id()], "orders");
    assert_eq!(names[&west.id()], "orders.conflict-west");
    assert_eq!(names[&north.id()], "orders.conflict-north");
    // Renamed, it is free of the conflict; deleted, it gives the name up.
    let renamed = west.rename(&act(&regions, "west"), "orders-west").unwrap();
    let names = resolve_names([&east, &renamed], &regions);
    assert_eq!(names[&renamed.id()], "orders-west");
    let gone = east.delete(&act(&regions, "east")).unwrap();
    let names = resolve_names([&gone, &west], &regions);
    assert_eq!(names.len(), 1);
    assert_eq!(names[&west.id()], "orders");
    // Somebody registered the derived name: still one name each.
    let squatter = Record::new_global(
        Start { id: NamespaceId::from_random([9; 16]), ..start("orders.conflict-west", 2) },
        "west",
        [],
        &regions,
    )
    .unwrap();
    let names = resolve_names([&east, &west, &squatter], &regions);
    let distinct: BTreeSet<_> = names.values().collect();
    assert_eq!(distinct.len(), 3);
}

#[test]
fn bytes_round_trip_and_bad_fields_are_named() {
    let regions = regions();
    let record = moved(&global(&NAMES), &regions, "west").unwrap();
    let draining = record.begin_drain(&act(&regions, "west"), "east", "op", Timestamp(9)).unwrap();
    let released = draining.release(&act(&regions, "west"), "op").unwrap();
    for record in [&record, &draining, &released] {
        assert_eq!(Record::from_bytes(&record.to_bytes()), Ok(record.clone()));
    }
    // No retention is none, not a mistake.
    let mut brief = record.clone();
    brief.config.value.retention_seconds = 0;
    assert_eq!(Record::from_bytes(&brief.to_bytes()), Ok(brief));
    let refused = |change: fn(&mut antipode_proto::core::NamespaceRecord)| {
        let mut bad = record.to_wire();
        change(&mut bad);
        Record::from_wire(&bad).unwrap_err().to_string()
    };
    assert_eq!(refused(|r| r.id = "x".into()), "namespace record field id is not a UUID");
    assert_eq!(refused(|r| r.name = None), "namespace record field name is missing");
    assert_eq!(refused(|r| r.failover = None), "namespace record field failover is missing");
    assert!(refused(|r| r.global = false).contains("failover.version"));
    assert!(Record::from_bytes(b"\xff").is_err());
    assert_eq!(Record::new_local(start("", 1), "east").unwrap_err(), Refusal::EmptyName);
}

/// What somebody does in some region; it may be refused there.
#[derive(Clone, Debug)]
enum Action {
    Describe(u8),
    Retain(i64),
    Rename(u8),
    Members(u8),
    Drain(usize),
    Undo,
    Release,
    Activate,
    Force(i64),
    Durable(u32),
    Promote,
    Delete,
    /// The region's store is restored: its record is an earlier one again, and it mints the same stamps and versions for other
    /// content (E2). The merge must be total even over that.
    Restore(usize),
    /// Receive what another region knows.
    Hear(usize),
}

fn any_action() -> impl Strategy<Value = (usize, Action)> {
    let action = prop_oneof![
        1 => (0u8..4).prop_map(Action::Describe),
        1 => (1i64..4).prop_map(Action::Retain),
        1 => (0u8..3).prop_map(Action::Rename),
        1 => (0u8..8).prop_map(Action::Members),
        3 => (0usize..3).prop_map(Action::Drain),
        1 => Just(Action::Undo),
        2 => Just(Action::Release),
        3 => Just(Action::Activate),
        2 => (0i64..30).prop_map(Action::Force),
        1 => (0u32..3).prop_map(Action::Durable),
        1 => Just(Action::Promote),
        1 => (0usize..40).prop_map(Action::Restore),
        4 => (0usize..3).prop_map(Action::Hear),
    ];
    (0usize..3, prop_oneof![30 => action, 1 => Just(Action::Delete)])
}

fn perform(
    records: &mut [Record],
    sent: &[Record],
    here: usize,
    action: &Action,
    why: &str,
) -> Result<(), Refusal> {
    let regions = regions();
    let by = Act { why, ..act(&regions, NAMES[here]) };
    let mine = records[here].clone();
    records[here] = match action {
        Action::Describe(n) => {
            mine.update_info(&by, Info { description: n.to_string(), ..Info::default() })?
        }
        Action::Retain(n) => mine.update_config(&by, Config { retention_seconds: *n })?,
        Action::Rename(n) => mine.rename(&by, &format!("name-{n}"))?,
        Action::Members(bits) => {
            let names = NAMES.iter().enumerate().filter(|(i, _)| bits & (1 << i) != 0);
            mine.set_members(&by, names.map(|(_, name)| *name))?
        }
        Action::Drain(target) => mine.begin_drain(&by, NAMES[*target], "op", Timestamp(9))?,
        Action::Undo => mine.undo_drain(&by, "op")?,
        Action::Release => mine.release(&by, "op")?,
        Action::Activate => mine.activate_released(&by, 1)?,
        Action::Force(seen) => {
            mine.force(&by, Forced { seen_max: FailoverVersion(*seen), ..Forced::default() })?
        }
        Action::Durable(peers) => {
            mine.update_durability(&by, Durability { peers: *peers, degrade: false })?
        }
        Action::Promote => mine.promote(&by)?,
        Action::Delete => mine.delete(&by)?,
        Action::Restore(moment) => sent.get(moment % sent.len().max(1)).cloned().unwrap_or(mine),
        Action::Hear(other) => {
            let mut merged = mine;
            merged.merge(&records[*other]);
            merged
        }
    };
    Ok(())
}

/// Every state that any region was ever in: what messages can carry. No two steps have the same texts.
fn updates(base: &Record, actions: &[(usize, Action)]) -> Vec<Record> {
    let mut records = vec![base.clone(); 3];
    let mut sent = vec![base.clone()];
    for (step, (here, action)) in actions.iter().enumerate() {
        let why = format!("step {step}");
        if perform(&mut records, &sent, *here, action, &why).is_ok() {
            sent.push(records[*here].clone());
        }
    }
    sent
}

/// A namespace of three regions, or one that is still local to east.
fn any_base() -> impl Strategy<Value = Record> {
    any::<bool>().prop_map(|local| match local {
        true => Record::new_local(start("orders", 1), "east").unwrap(),
        false => global(&NAMES),
    })
}

proptest! {
    #[test]
    fn any_order_of_delivery_gives_equal_bytes(
        (sent, shuffled) in (any_base(), prop::collection::vec(any_action(), 0..40))
            .prop_map(|(base, actions)| updates(&base, &actions))
            .prop_flat_map(|sent| (Just(sent.clone()), Just(sent).prop_shuffle()))
    ) {
        let deliver = |order: &[Record]| {
            let mut record = order[0].clone();
            for update in order {
                record.merge(update);
            }
            record
        };
        let (a, mut b) = (deliver(&sent), deliver(&shuffled));
        prop_assert_eq!(a.to_bytes(), b.to_bytes());
        // Idempotent: everything again changes nothing.
        for update in &sent {
            prop_assert!(!b.merge(update));
        }
        // V13, W25.
        prop_assert!(a.has_member(a.active()));
        let greatest = sent.iter().map(Record::version).max();
        prop_assert_eq!(Some(a.version()), greatest);
        prop_assert_eq!(Record::from_bytes(&a.to_bytes()), Ok(a));
    }

    /// F4: namespaces that were registered under the same names in regions that did not see each other: each living one is
    /// found under one name of its own, the oldest keeps what it registered, and every region derives the same.
    #[test]
    fn names_do_not_depend_on_the_order(
        (records, shuffled) in prop::collection::vec((0u8..3, 0u32..3, 1u64..4, any::<bool>()), 1..7)
            .prop_map(|namespaces| {
                let record = |(number, (name, by, counter, deleted)): (u8, (u8, u32, u64, bool))| {
                    let mut record = global(&NAMES);
                    record.id = NamespaceId::from_random([number; 16]);
                    let stamp = Stamp { counter, region: RegionId(by + 1) };
                    record.name = Lww::new(format!("name-{name}"), stamp);
                    record.deleted = deleted;
                    record
                };
                (0u8..).zip(namespaces).map(record).collect::<Vec<_>>()
            })
            .prop_flat_map(|records| (Just(records.clone()), Just(records).prop_shuffle()))
    ) {
        let regions = regions();
        let names = resolve_names(&records, &regions);
        prop_assert_eq!(&names, &resolve_names(&shuffled, &regions));
        let living: Vec<_> = records.iter().filter(|record| !record.is_deleted()).collect();
        prop_assert_eq!(names.len(), living.len());
        prop_assert_eq!(names.values().collect::<BTreeSet<_>>().len(), living.len());
        for record in &living {
            let rivals = living.iter().filter(|other| other.name() == record.name());
            let oldest = rivals.min_by_key(|other| (other.name.stamp, other.id)).unwrap();
            prop_assert_eq!(oldest.id == record.id, names[&record.id] == record.name());
        }
    }

    #[test]
    fn merge_is_commutative_and_associative(
        actions in prop::collection::vec(any_action(), 3..40),
        picks in prop::array::uniform3(any::<prop::sample::Index>()),
    ) {
        let sent = updates(&global(&NAMES), &actions);
        let [a, b, c] = picks.map(|pick| pick.get(&sent).clone());
        let join = |a: &Record, b: &Record| {
            let mut joined = a.clone();
            joined.merge(b);
            joined
        };
        prop_assert_eq!(join(&a, &b), join(&b, &a));
        prop_assert_eq!(join(&join(&a, &b), &c), join(&a, &join(&b, &c)));
    }

    #[test]
    fn at_most_one_region_writes_under_a_version(
        actions in prop::collection::vec(any_action(), 0..40)
    ) {
        // F1, V12: whoever may write does so under a version of its own class, and two regions never under one version.
        let regions = regions();
        let mut records = vec![global(&NAMES); 3];
        for (here, action) in &actions {
            if matches!(action, Action::Restore(_)) {
                continue; // A restored store mints again what it minted; that it must not write is E2.
            }
            // A refusal leaves the record as it was.
            let _ = perform(&mut records, &[], *here, action, "test");
            for (index, record) in records.iter().enumerate() {
                if let Some(version) = record.writable(NAMES[index]) {
                    prop_assert!(regions.owns(NAMES[index], version));
                }
            }
        }
    }
}
