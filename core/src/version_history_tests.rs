//! R300–R318 and the worked examples EX7–EX13, as far as lists alone decide them.

use super::*;

fn item(event: i64, version: i64) -> Item {
    Item::new(EventId(event), FailoverVersion(version))
}

fn list(items: &[(i64, i64)]) -> VersionHistory {
    VersionHistory::new(items.iter().map(|&(e, v)| item(e, v)).collect::<Vec<_>>()).unwrap()
}

fn added(items: &[(i64, i64)]) -> VersionHistory {
    items.iter().fold(VersionHistory::default(), |list, &(e, v)| list.with(item(e, v)).unwrap())
}

#[test]
fn both_columns_must_strictly_increase() {
    // R300, R301
    for bad in [
        &[(0, 0)][..],
        &[(-1, 1)],
        &[(1, -1)],
        &[(3, 1), (3, 2)],
        &[(3, 1), (2, 2)],
        &[(3, 1), (4, 1)],
        &[(3, 2), (4, 1)],
    ] {
        let items: Vec<_> = bad.iter().map(|&(e, v)| item(e, v)).collect();
        assert!(VersionHistory::new(items).is_err(), "{bad:?}");
    }
    assert!(VersionHistory::new(Vec::new()).unwrap().is_empty());
    assert_eq!(list(&[(3, 0), (4, 1)]).last(), Some(item(4, 1)));
}

#[test]
fn adding_grows_or_appends() {
    // R303, EX7
    assert_eq!(added(&[(1, 1), (2, 1), (3, 1)]), list(&[(3, 1)]));
    assert_eq!(added(&[(3, 1), (4, 2)]), list(&[(3, 1), (4, 2)]));
    assert_eq!(added(&[(3, 1), (4, 2), (5, 2)]), list(&[(3, 1), (5, 2)]));
    let base = list(&[(3, 2)]);
    assert_eq!(base.with(item(4, 1)).unwrap_err().last, item(3, 2));
    assert!(base.with(item(3, 3)).is_err());
    assert!(base.with(item(3, 2)).is_err());
    assert!(VersionHistory::default().with(item(0, 0)).is_err());
}

#[test]
fn containment_and_version_of_an_event() {
    // R305, R306
    let branch = list(&[(3, 1), (5, 12)]);
    for (event, version) in [(1, 1), (3, 1), (4, 12), (5, 12)] {
        assert!(branch.contains(EventId(event), FailoverVersion(version)));
        assert_eq!(branch.version_of(EventId(event)), Some(FailoverVersion(version)));
    }
    for (event, version) in [(0, 1), (-1, 1), (3, 12), (4, 1), (6, 12), (4, 2)] {
        assert!(!branch.contains(EventId(event), FailoverVersion(version)), "{event}@{version}");
    }
    assert_eq!(branch.version_of(EventId(0)), None);
    assert_eq!(branch.version_of(EventId(6)), None);
}

#[test]
fn common_ancestors() {
    // R307: EX8, EX9, EX10, EX11, EX12, EX13
    for (a, b, expected) in [
        (&[(2, 1), (4, 2)][..], &[(2, 1), (3, 2), (4, 3)][..], Some((3, 2))),
        (&[(10, 1)], &[(5, 1)], Some((5, 1))),
        (&[(5, 1)], &[(9, 1)], Some((5, 1))),
        (&[(10, 102), (12, 202)], &[(10, 102), (15, 302)], Some((10, 102))),
        (&[(10, 1), (12, 2)], &[(10, 1), (11, 2)], Some((11, 2))),
        (&[(14, 22), (15, 33)], &[(16, 22)], Some((14, 22))),
        (&[(3, 1)], &[(3, 2)], None),
        (&[], &[(3, 2)], None),
    ] {
        let (a, b) = (list(a), list(b));
        let expected = expected.map(|(e, v)| item(e, v)).ok_or(NoJointPoint);
        assert_eq!(a.common_ancestor(&b), expected, "{a} {b}");
        assert_eq!(b.common_ancestor(&a), expected, "{b} {a}");
    }
}

#[test]
fn best_ancestor_prefers_depth_then_shortness_then_place() {
    // R308
    let incoming = list(&[(10, 1), (12, 2), (14, 3)]);
    let branches = [
        list(&[(10, 1), (11, 2), (20, 13)]),
        list(&[(10, 1), (12, 2), (13, 12), (14, 21)]),
        list(&[(10, 1), (12, 2), (13, 21)]),
        list(&[(10, 1), (12, 2), (15, 31)]),
    ];
    assert_eq!(incoming.best_common_ancestor(&branches), Ok((item(12, 2), 2)));
    assert_eq!(incoming.best_common_ancestor(&branches[..1]), Ok((item(11, 2), 0)));
    assert_eq!(incoming.best_common_ancestor([]), Err(NoJointPoint));
}

#[test]
fn appending_copying_comparing() {
    let branch = list(&[(2, 1), (4, 2)]);
    // R309
    assert!(branch.appendable(item(4, 2)));
    assert!(!branch.appendable(item(3, 2)));
    // R310, EX8
    assert_eq!(branch.copy_until(item(3, 2)).unwrap(), list(&[(2, 1), (3, 2)]));
    assert_eq!(branch.copy_until(item(2, 1)).unwrap(), list(&[(2, 1)]));
    assert_eq!(branch.copy_until(item(1, 1)).unwrap(), list(&[(1, 1)]));
    assert_eq!(branch.copy_until(item(3, 1)), Err(NotContained(item(3, 1))));
    assert!(branch.copy_until(item(5, 2)).is_err());
    // R311
    assert!(list(&[(2, 1), (3, 3)]).compare(&list(&[(9, 2)])).is_gt());
    assert!(list(&[(2, 1), (4, 2)]).compare(&list(&[(2, 1), (3, 2)])).is_gt());
    assert!(branch.compare(&branch).is_eq());
    assert!(VersionHistory::default().compare(&branch).is_lt());
    // R312
    assert!(branch.same_branch(&list(&[(2, 1)])));
    assert!(list(&[(2, 1)]).same_branch(&branch));
    assert!(!branch.same_branch(&list(&[(2, 1), (3, 2), (4, 3)])));
}

#[test]
fn local_prefix_ends_with_the_last_own_item() {
    // R314
    let branch = list(&[(2, 1), (4, 2), (6, 11), (8, 12)]);
    let own = |class: i64| move |version: FailoverVersion| version.0 % 10 == class;
    assert_eq!(branch.local_prefix(own(1)).len(), 3);
    assert_eq!(branch.local_prefix(own(2)).len(), 4);
    assert!(branch.local_prefix(own(3)).is_empty());
}

#[test]
fn wire_form_round_trips_and_text_is_compact() {
    let branch = list(&[(10, 1), (12, 2), (13, 12)]);
    assert_eq!(VersionHistory::from_wire(&branch.to_wire()), Ok(branch.clone()));
    assert_eq!(branch.to_string(), "[1..10@1 11..12@2 13@12]");
    assert_eq!(VersionHistory::default().to_string(), "[]");
    let bad = [wire::VersionItem { event_id: 0, version: 1 }];
    assert!(VersionHistory::from_wire(&bad).is_err());
}
