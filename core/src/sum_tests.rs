//! Sums of states (G1).

use super::*;

/// Names every field: where one is added this does not compile, and the form is to be raised.
fn state() -> wire::RunState {
    let register = wire::Register {
        anchor_event_id: 5,
        anchor_version: 1,
        kind: 1,
        order_version: 1,
        order_count: 3,
        value: Bytes::from_static(&[8, 2]),
        base_version: 0,
        base_count: 0,
        anchor_chain: Bytes::from_static(&[9; 16]),
    };
    let pending = wire::PendingEvent {
        identity: Some(wire::Identity::default()),
        events: Bytes::from_static(b"events"),
        named_run: true,
        anchor_event_id: 5,
        anchor_version: 1,
        accepted: Some(wire::Place { epoch: 1, sequence: 2 }),
        accepted_version: 1,
        accepted_region: 1,
        origin_run_id: "origin".into(),
        anchor_chain: Bytes::from_static(&[9; 16]),
    };
    let verdict = wire::Unclaimed {
        identity: Some(wire::Identity::default()),
        event_id: 5,
        version: 1,
        run_id: "run".into(),
        verdict: "why".into(),
        recorded_unix_nanos: 3,
        basis_run_id: "run".into(),
        basis_chain: Bytes::from_static(&[7; 16]),
        delivered: true,
        basis_version: 11,
        basis_place: Some(wire::Place { epoch: 1, sequence: 2 }),
    };
    wire::RunState {
        namespace_id: "namespace".into(),
        workflow_id: "workflow".into(),
        run_id: "run".into(),
        registers: vec![register],
        pending: vec![pending],
        tip_chain: Bytes::from_static(&[7; 16]),
        sum: Bytes::new(),
        sum_form: 0,
        verdicts: vec![verdict],
        came_back: true,
        lost_tips: vec![Bytes::from_static(&[3; 16])],
        tombstone: Some(wire::RunHead { first_run_id: "first".into(), ..wire::RunHead::default() }),
    }
}

#[test]
fn no_bit_of_a_state_changes_unseen() {
    let sent = sealed(state());
    assert_eq!(check(&sent), Ok(()));
    let bytes = sent.encode_to_vec();
    let mut seen = 0;
    for bit in 0..bytes.len() * 8 {
        let mut changed = bytes.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        // What does not decode ends the stream by itself.
        let Ok(changed) = wire::RunState::decode(&*changed) else { continue };
        match check(&changed) {
            Err(Changed) => seen += 1,
            // Only the sum itself, its tag or its form: what it covers is whole.
            Ok(()) => {
                assert_eq!(
                    wire::RunState { sum: Bytes::new(), sum_form: 0, ..changed },
                    state(),
                    "bit {bit}"
                );
            }
        }
    }
    assert!(seen > 300, "{seen}");
}

#[test]
fn a_sum_that_is_not_known_here_is_not_compared() {
    // The previous version sends none, the next one may cover more.
    assert_eq!(check(&state()), Ok(()));
    let next = wire::RunState { sum_form: FORM + 1, ..sealed(state()) };
    assert_eq!(check(&next), Ok(()));
}
