//! Two and three regions in one process, linked by real gRPC: what one commits the others hold, across cuts, restarts,
//! redelivery, holes and failovers. The shards are the tests' own (see `shard`); everything else is the product.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests, outside of the functions that are marked as such"
)]

mod region;
mod shard;

use std::time::Duration;

use antipode_core::ids::{FailoverVersion, Incarnation, NamespaceId, RunId, RunKey};
use antipode_persistence::{rows::Identity, store::RegionStore};
use antipode_proto::{admin::FailoverRequest, link::ForwardRequest};
use region::{Region, eventually, places, run, start, within};
use tonic::{Code, Status};

fn failover(namespace: &str, to: &str, force: bool, deadline_millis: i64) -> FailoverRequest {
    FailoverRequest {
        namespace: namespace.to_string(),
        to: to.to_string(),
        force,
        deadline_millis,
        who: "operator".to_string(),
        why: "test".to_string(),
    }
}

#[tokio::test]
async fn what_one_region_commits_the_other_holds() {
    // Shard counts differ, in both directions (I06).
    let regions = start(&[("east", 2), ("west", 3)]).await;
    let (east, west) = (&regions[0], &regions[1]);
    let orders = east.namespace("orders", &["east", "west"]).await;
    for number in 0..20 {
        let key = run(orders.id(), &format!("w{number}"), number);
        east.shards.append(&key, 2).await.unwrap();
        east.shards.append(&key, 1).await.unwrap();
        east.shards.heartbeat(&key, 7).await.unwrap();
    }
    for number in 0..20 {
        west.holds_what(east, &run(orders.id(), &format!("w{number}"), number)).await;
    }
    // I10: the record came first, or nothing could have been applied.
    assert!(west.namespaces.by_name("orders").is_some());
}

#[tokio::test]
async fn namespaces_that_do_not_list_a_region_do_not_reach_it() {
    let regions = start(&[("east", 1), ("west", 1)]).await;
    let (east, west) = (&regions[0], &regions[1]);
    let alone = east.namespace("alone", &["east"]).await;
    let shared = east.namespace("shared", &["east", "west"]).await;
    east.shards.append(&run(alone.id(), "a", 1), 1).await.unwrap();
    let key = run(shared.id(), "b", 2);
    east.shards.append(&key, 1).await.unwrap();
    west.holds_what(east, &key).await;
    assert_eq!(west.shards.run(&run(alone.id(), "a", 1)), None);
    assert_eq!(west.namespaces.by_id(alone.id()), None);
}

#[tokio::test]
async fn shards_are_told_what_a_peer_has_proved_and_lacks() {
    // C6, C7, E1: closed runs wait for this.
    let regions = start(&[("east", 1), ("west", 1), ("north", 1)]).await;
    let (east, west) = (&regions[0], &regions[1]);
    let orders = east.namespace("orders", &["east", "west", "north"]).await;
    let (good, bad) = (run(orders.id(), "good", 1), run(orders.id(), "bad", 2));
    west.shards.held.lock().unwrap().broken.insert(bad.run);
    east.shards.append(&bad, 1).await.unwrap();
    east.shards.append(&good, 1).await.unwrap();
    for (from, to) in [("north", "west"), ("west", "north")] {
        west.replicator.gate().cut(from, to);
    }
    let told = |is: &dyn Fn(&antipode_history::shard::Proof) -> bool| {
        let held = east.shards.held.lock().unwrap();
        held.proofs.get(&(antipode_core::ids::ShardId(1), "west".to_string())).is_some_and(is)
    };
    eventually("east's shard knows what west has", || {
        told(&|proof| proof.through.0 >= 2 && proof.exceptions.contains(&bad) && proof.exceptions.len() == 1)
    })
    .await;
    eventually("and that it hears nothing from north", || {
        told(&|proof| proof.down.contains_key(&antipode_core::ids::RegionId(3)))
    })
    .await;
}

#[tokio::test]
async fn nothing_echoes_between_regions() {
    let regions = start(&[("east", 1), ("west", 1), ("north", 1)]).await;
    let (east, west, north) = (&regions[0], &regions[1], &regions[2]);
    let orders = east.namespace("orders", &["east", "west", "north"]).await;
    let key = run(orders.id(), "w", 1);
    for count in 1..=10 {
        east.shards.append(&key, 1).await.unwrap();
        east.shards.heartbeat(&key, count).await.unwrap();
        west.holds_what(east, &key).await;
        north.holds_what(east, &key).await;
    }
    // Every link is quiet: all that is committed is proved.
    for region in &regions {
        eventually("all is proved", || {
            region.replicator.status().peers.iter().all(|peer| peer.lag_entries == 0)
        })
        .await;
    }
    assert_eq!(east.shards.offered(), 0, "what east wrote came back to it");
    assert!(west.shards.offered() <= 20, "{} entries were offered", west.shards.offered());
}

#[tokio::test]
async fn a_cut_link_loses_nothing() {
    let regions = start(&[("east", 1), ("west", 1)]).await;
    let (east, west) = (&regions[0], &regions[1]);
    let orders = east.namespace("orders", &["east", "west"]).await;
    let key = run(orders.id(), "w", 1);
    east.shards.append(&key, 1).await.unwrap();
    west.holds_what(east, &key).await;
    for end in [east, west] {
        // Cut at either end: one is enough.
        end.replicator.gate().cut("east", "west");
        eventually("the stream is torn down", || !west.replicator.status().peers[0].receiving).await;
        east.shards.append(&key, 3).await.unwrap();
        let forwarded = west.replicator.forwarder().forward("east", ForwardRequest::default()).await;
        let refused = Status::from(forwarded.unwrap_err());
        assert!(refused.message().contains("the link east->west is cut"), "{refused}");
        assert_ne!(west.shards.run(&key), east.shards.run(&key));
        end.replicator.gate().heal("east", "west");
        west.holds_what(east, &key).await;
    }
}

#[tokio::test]
async fn a_request_whose_answer_is_cut_off_acts_and_fails() {
    let regions = start(&[("east", 1), ("west", 1)]).await;
    let (east, west) = (&regions[0], &regions[1]);
    let forward = |method: &str| ForwardRequest { method: method.to_string(), ..ForwardRequest::default() };
    let answer =
        within("a forward", west.replicator.forwarder().forward("east", forward("/x"))).await.unwrap();
    assert_eq!(&answer.message[..], b"east /x from 2");
    west.replicator.gate().cut("west", "east");
    let refused = Status::from(west.replicator.forwarder().forward("east", forward("/x")).await.unwrap_err());
    assert_eq!((refused.code(), refused.message()), (Code::Unavailable, "the link west->east is cut"));
    west.replicator.gate().heal("west", "east");
    east.replicator.gate().cut("east", "west");
    let lost = Status::from(west.replicator.forwarder().forward("east", forward("/x")).await.unwrap_err());
    assert!(lost.message().contains("the link east->west is cut"), "{lost}");
}

#[tokio::test]
async fn restarts_and_redelivery_change_nothing() {
    let (places, listeners) = places(&[("east", 2), ("west", 1)]).await;
    let mut listeners = listeners.into_iter();
    let east = Region::start(&places[0], &places, listeners.next().unwrap()).await;
    let west_listener = listeners.next().unwrap();
    let west = Region::start(&places[1], &places, west_listener.clone()).await;
    let orders = east.namespace("orders", &["east", "west"]).await;
    let key = run(orders.id(), "w", 1);
    east.shards.append(&key, 1).await.unwrap();
    west.holds_what(&east, &key).await;
    let positions = async || west.store.position_all().await.unwrap();
    within("positions are stored", async {
        while positions().await.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    west.stop().await;
    east.shards.append(&key, 1).await.unwrap();
    // A region that comes back with an empty memory and an old position: the test's shards forget all.
    let west = Region::start(&places[1], &places, west_listener).await;
    west.holds_what(&east, &key).await;
}

#[tokio::test]
async fn a_hole_is_fetched_and_the_entry_offered_again() {
    let regions = start(&[("east", 1), ("west", 1)]).await;
    let (east, west) = (&regions[0], &regions[1]);
    let orders = east.namespace("orders", &["east", "west"]).await;
    let key = run(orders.id(), "w", 1);
    east.shards.append(&key, 1).await.unwrap();
    west.holds_what(east, &key).await;
    // West forgets the run, as if its entries had never been sent.
    west.shards.held.lock().unwrap().runs.clear();
    east.shards.append(&key, 1).await.unwrap();
    west.holds_what(east, &key).await;
    assert_eq!(west.shards.held.lock().unwrap().verdicts.get("need_events"), Some(&1));
}

#[tokio::test]
async fn a_refusal_that_passes_delays_its_workflow_only() {
    let regions = start(&[("east", 1), ("west", 1)]).await;
    let (east, west) = (&regions[0], &regions[1]);
    let orders = east.namespace("orders", &["east", "west"]).await;
    let (slow, fast) = (run(orders.id(), "slow", 1), run(orders.id(), "fast", 2));
    west.shards.held.lock().unwrap().retries.insert(slow.run, 4);
    for _ in 0..5 {
        east.shards.append(&slow, 1).await.unwrap();
        east.shards.append(&fast, 1).await.unwrap();
    }
    west.holds_what(east, &fast).await;
    west.holds_what(east, &slow).await;
    let held = west.shards.held.lock().unwrap();
    let order: Vec<_> =
        held.order.iter().filter(|(run, _)| *run == slow.run).map(|(_, event)| *event).collect();
    assert_eq!(order, [1, 2, 3, 4, 5], "B8: a workflow's entries stay in order");
}

#[tokio::test]
async fn poison_is_quarantined_and_refuses_the_hand_over_until_it_is_mended() {
    let regions = start(&[("east", 1), ("west", 1)]).await;
    let (east, west) = (&regions[0], &regions[1]);
    let orders = east.namespace("orders", &["east", "west"]).await;
    let (bad, good) = (run(orders.id(), "bad", 1), run(orders.id(), "good", 2));
    west.shards.held.lock().unwrap().broken.insert(bad.run);
    for _ in 0..3 {
        east.shards.append(&bad, 1).await.unwrap();
        east.shards.append(&good, 1).await.unwrap();
    }
    west.holds_what(east, &good).await;
    eventually("the proof goes on", || east.replicator.status().peers[0].lag_entries == 0).await;
    let rows = west.store.quarantine_all().await.unwrap();
    assert_eq!((rows.len(), &rows[0].key, rows[0].reason.as_str()), (1, &bad, "broken on purpose"));
    // E1: the proof has passed it, and still it is loss.
    let refused = east.replicator.failover(failover("orders", "west", false, 3000)).await.unwrap_err();
    assert!(refused.to_string().contains("broken on purpose"), "{refused}");
    // What failed was here: it is mended, and the next stream brings the run.
    west.shards.held.lock().unwrap().broken.clear();
    west.replicator.gate().cut("east", "west");
    eventually("the stream is torn down", || !west.replicator.status().peers[0].receiving).await;
    west.replicator.gate().heal("east", "west");
    west.holds_what(east, &bad).await;
    within("the quarantine is empty", async {
        while !west.store.quarantine_all().await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let moved =
        within("hand-over", east.replicator.failover(failover("orders", "west", false, 10_000))).await;
    assert_eq!(moved.unwrap().version, 2);
}

#[tokio::test]
async fn a_successor_is_there_before_its_predecessor_closes() {
    let regions = start(&[("east", 1), ("west", 1)]).await;
    let (east, west) = (&regions[0], &regions[1]);
    let orders = east.namespace("orders", &["east", "west"]).await;
    let first = run(orders.id(), "w", 1);
    let second = run(orders.id(), "w", 2);
    east.shards.append(&first, 1).await.unwrap();
    east.shards.continue_as_new(&first, second.run).await.unwrap();
    west.holds_what(east, &first).await;
    west.holds_what(east, &second).await;
    let order: Vec<_> = west.shards.held.lock().unwrap().order.clone();
    let at = |run: RunId, event| order.iter().position(|entry| *entry == (run, event)).unwrap();
    assert!(at(second.run, 1) < at(first.run, 2), "B8: {order:?}");
}

#[tokio::test]
async fn a_held_run_comes_after_its_successor_and_complete() {
    let regions = start(&[("east", 1), ("west", 1)]).await;
    let (east, west) = (&regions[0], &regions[1]);
    let orders = east.namespace("orders", &["east", "west"]).await;
    let first = run(orders.id(), "w", 1);
    let second = run(orders.id(), "w", 2);
    east.replicator.gate().hold_run(first.run);
    east.shards.append(&first, 1).await.unwrap();
    east.shards.continue_as_new(&first, second.run).await.unwrap();
    east.shards.append(&second, 2).await.unwrap();
    west.holds_what(east, &second).await;
    assert_eq!(west.shards.run(&first), None);
    // A held run counts as one the peer lacks.
    let refused = east.replicator.failover(failover("orders", "west", false, 3000)).await.unwrap_err();
    assert!(refused.to_string().contains("held back here"), "{refused}");
    east.replicator.gate().release_run(first.run);
    west.holds_what(east, &first).await;
    let order: Vec<_> = west.shards.held.lock().unwrap().order.clone();
    assert_eq!(order, [(second.run, 1), (second.run, 2), (first.run, 1), (first.run, 2)]);
}

#[tokio::test]
async fn a_hand_over_moves_a_namespace_and_back_from_any_region() {
    let regions = start(&[("east", 2), ("west", 1), ("north", 1)]).await;
    let (east, west, north) = (&regions[0], &regions[1], &regions[2]);
    let orders = east.namespace("orders", &["east", "west", "north"]).await;
    let key = run(orders.id(), "w", 1);
    east.shards.append(&key, 1).await.unwrap();
    west.sees(orders.id(), "the namespace exists", |_| true).await;
    north.sees(orders.id(), "the namespace exists", |_| true).await;
    // Asked in north, which is neither end; east acts.
    let reply = within("hand-over", north.replicator.failover(failover("orders", "west", false, 20_000)))
        .await
        .unwrap();
    assert_eq!((reply.from.as_str(), reply.to.as_str()), ("east", "west"));
    assert_eq!((reply.version_before, reply.version, reply.forced), (1, 2, false));
    assert_eq!(west.shards.run(&key), east.shards.run(&key), "V18: west has all before it writes");
    for region in &regions {
        region.sees(orders.id(), "west is active", |entry| entry.version() == FailoverVersion(2)).await;
    }
    assert!(east.shards.append(&key, 1).await.is_err());
    west.shards.append(&key, 1).await.unwrap();
    east.holds_what(west, &key).await;
    // R104: again it changes nothing.
    let again = east.replicator.failover(failover("orders", "west", false, 5000)).await.unwrap();
    assert!(again.already_active && again.version == 2, "{again:?}");
    let back = within("fail back", east.replicator.failover(failover("orders", "east", false, 20_000)))
        .await
        .unwrap();
    assert_eq!((back.version_before, back.version), (2, 11));
    east.shards.append(&key, 1).await.unwrap();
    north.holds_what(east, &key).await;
    let history =
        &north.sees(orders.id(), "east is back", |entry| entry.version() == FailoverVersion(11)).await;
    let who: Vec<_> = history.record.history().values().map(|entry| entry.who.as_str()).collect();
    assert_eq!(who, ["operator", "operator"]);
}

#[tokio::test]
async fn a_hand_over_over_a_cut_link_ends_with_advice_and_nothing_changed() {
    let regions = start(&[("east", 1), ("west", 1)]).await;
    let (east, west) = (&regions[0], &regions[1]);
    let orders = east.namespace("orders", &["east", "west"]).await;
    west.sees(orders.id(), "the namespace exists", |_| true).await;
    for (from, to) in [("east", "west"), ("west", "east")] {
        east.replicator.gate().cut(from, to);
    }
    let key = run(orders.id(), "w", 1);
    east.shards.append(&key, 1).await.unwrap();
    for region in [east, west] {
        let refused =
            within("a refusal", region.replicator.failover(failover("orders", "west", false, 700))).await;
        let status = Status::from(refused.unwrap_err());
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
        assert!(
            status.message().contains("antipode failover orders --to west --force --address 127.0.0.1:"),
            "{status}"
        );
    }
    // East never froze for longer than it had to: it writes.
    east.shards.append(&key, 1).await.unwrap();
    assert_eq!(east.namespaces.by_id(orders.id()).unwrap().version(), FailoverVersion(1));
}

/// H2: what the link measures refuses a hand-over above thirty seconds, is told above one, and holds no force back.
#[tokio::test]
async fn a_hand_over_asks_the_clocks_and_force_does_not() {
    let regions = start(&[("east", 1), ("west", 1)]).await;
    let (east, west) = (&regions[0], &regions[1]);
    let orders = east.namespace("orders", &["east", "west"]).await;
    west.sees(orders.id(), "the namespace exists", |_| true).await;
    for (ahead, words) in [(40_000, "ahead of"), (-40_000, "behind")] {
        west.set_ahead(ahead);
        // Asked from either side; east acts.
        for region in [east, west] {
            let refused =
                within("a refusal", region.replicator.failover(failover("orders", "west", false, 20_000)))
                    .await;
            let status = Status::from(refused.unwrap_err());
            assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
            for part in [words, "clock skew", "more than 30 s", "Set the clocks right", "--force"] {
                assert!(status.message().contains(part), "{part}: {status}");
            }
        }
        let off = east.replicator.status().peers[0].clock_skew_millis.unwrap();
        assert!((ahead - off).abs() < 10_000, "{off} instead of {ahead}");
    }
    // Nothing was begun: east writes under its version.
    let key = run(orders.id(), "w", 1);
    east.shards.append(&key, 1).await.unwrap();
    assert_eq!(east.namespaces.by_id(orders.id()).unwrap().version(), FailoverVersion(1));
    west.set_ahead(15_000);
    let warned = within("hand-over", east.replicator.failover(failover("orders", "west", false, 20_000)))
        .await
        .unwrap();
    assert_eq!((warned.version, warned.warnings.len()), (2, 1), "{warned:?}");
    assert!(warned.warnings[0].contains("more than 1 s"), "{warned:?}");
    west.set_ahead(40_000);
    let forced =
        within("force", east.replicator.failover(failover("orders", "east", true, 20_000))).await.unwrap();
    assert!(forced.forced && forced.warnings.is_empty(), "{forced:?}");
}

#[tokio::test]
async fn force_takes_a_namespace_over_a_cut_and_both_agree_after_the_heal() {
    let regions = start(&[("east", 1), ("west", 1)]).await;
    let (east, west) = (&regions[0], &regions[1]);
    let orders = east.namespace("orders", &["east", "west"]).await;
    let key = run(orders.id(), "w", 1);
    east.shards.append(&key, 1).await.unwrap();
    west.holds_what(east, &key).await;
    for (from, to) in [("east", "west"), ("west", "east")] {
        west.replicator.gate().cut(from, to);
    }
    // F3: the target executes; east cannot reach it.
    let refused = east.replicator.failover(failover("orders", "west", true, 3000)).await.unwrap_err();
    assert_eq!(Status::from(refused).code(), Code::Unavailable);
    let reply =
        within("force", west.replicator.failover(failover("orders", "west", true, 5000))).await.unwrap();
    assert_eq!(
        (reply.version, reply.forced, reply.not_asked.as_slice()),
        (2, true, &["east".to_string()][..])
    );
    assert_eq!(reply.predicted_loss_runs, -1);
    assert!(east.namespaces.by_id(orders.id()).unwrap().active_here(), "split brain, as force has it");
    // Different runs, because the test's shards know no branches.
    let (there, here) = (run(orders.id(), "east's", 2), run(orders.id(), "west's", 3));
    east.shards.append(&there, 1).await.unwrap();
    west.shards.append(&here, 1).await.unwrap();
    east.shards.heartbeat(&key, 3).await.unwrap();
    west.shards.heartbeat(&key, 1).await.unwrap();
    for (from, to) in [("east", "west"), ("west", "east")] {
        west.replicator.gate().heal(from, to);
    }
    let after = east.sees(orders.id(), "west is active", |entry| entry.version() == FailoverVersion(2)).await;
    assert!(!after.active_here());
    west.holds_what(east, &there).await;
    east.holds_what(west, &here).await;
    // A register written in the losing region travels too; the higher version wins in both.
    east.holds_what(west, &key).await;
    assert_eq!(west.shards.run(&key).unwrap().registers(), [(1, 2, 1)]);
    // Force never keeps a version (F3).
    let again = west.replicator.failover(failover("orders", "west", true, 5000)).await.unwrap();
    assert_eq!(again.version, 12);
}

#[tokio::test]
async fn force_from_elsewhere_is_executed_by_the_target_above_all_it_can_see() {
    let regions = start(&[("east", 1), ("west", 1), ("north", 1)]).await;
    let (east, west, north) = (&regions[0], &regions[1], &regions[2]);
    let orders = east.namespace("orders", &["east", "west", "north"]).await;
    for region in [west, north] {
        region.sees(orders.id(), "the namespace exists", |_| true).await;
    }
    // West misses two moves.
    for (from, to) in [("east", "west"), ("west", "east"), ("north", "west"), ("west", "north")] {
        west.replicator.gate().cut(from, to);
    }
    within("to north", east.replicator.failover(failover("orders", "north", false, 20_000))).await.unwrap();
    within("back", east.replicator.failover(failover("orders", "east", false, 20_000))).await.unwrap();
    for (from, to) in [("north", "west"), ("west", "north")] {
        west.replicator.gate().heal(from, to);
    }
    // Sent from north; west asks north, which knows version 11, and mints above it.
    let reply =
        within("force", north.replicator.failover(failover("orders", "west", true, 10_000))).await.unwrap();
    assert_eq!((reply.version_before, reply.version), (11, 12));
    assert_eq!(reply.not_asked, ["east"]);
}

/// East and west are cut from each other; what east writes reaches north only, and then east stops.
async fn lost_east() -> (Vec<Region>, NamespaceId, RunKey) {
    let mut regions = start(&[("east", 2), ("west", 1), ("north", 3)]).await;
    let orders = regions[0].namespace("orders", &["east", "west", "north"]).await;
    let key = run(orders.id(), "w", 1);
    regions[0].shards.append(&key, 1).await.unwrap();
    regions[1].holds_what(&regions[0], &key).await;
    regions[2].holds_what(&regions[0], &key).await;
    for (from, to) in [("east", "west"), ("west", "east")] {
        regions[1].replicator.gate().cut(from, to);
    }
    regions[0].shards.append(&key, 3).await.unwrap();
    regions[0].shards.heartbeat(&key, 5).await.unwrap();
    regions[2].holds_what(&regions[0], &key).await;
    regions.remove(0).stop().await;
    (regions, orders.id(), key)
}

#[tokio::test]
async fn survivor_relay() {
    // C7: west hears nothing from east for a while, says so to north, and gets from it what it lacks.
    let (regions, _, key) = lost_east().await;
    regions[0].holds_what(&regions[1], &key).await;
}

#[tokio::test]
async fn force_takes_in_what_a_survivor_has_of_the_lost_region() {
    // C7: nothing that any reachable region has is behind the new version.
    let (regions, id, key) = lost_east().await;
    let (west, north) = (&regions[0], &regions[1]);
    // What north relays cannot be applied at once: the flip waits for it.
    west.shards.held.lock().unwrap().retries.insert(key.run, 4);
    let reply =
        within("force", west.replicator.failover(failover("orders", "west", true, 10_000))).await.unwrap();
    assert_eq!(west.shards.run(&key), north.shards.run(&key));
    assert_eq!(reply.not_asked, ["east"]);
    let caught_up = "caught up with north and what it has of those that do not answer";
    assert!(reply.steps.iter().any(|step| step == caught_up), "{:?}", reply.steps);
    assert_eq!(west.namespaces.by_id(id).unwrap().version(), FailoverVersion(2));
}

#[tokio::test]
async fn a_standard_call_hands_over_when_the_active_region_answers_and_forces_otherwise() {
    let regions = start(&[("east", 1), ("west", 1)]).await;
    let (east, west) = (&regions[0], &regions[1]);
    let orders = east.namespace("orders", &["east", "west"]).await;
    west.sees(orders.id(), "the namespace exists", |_| true).await;
    let handed =
        within("hand-over", west.replicator.update_active_cluster("orders", "west", "cli")).await.unwrap();
    assert!(!handed.forced);
    west.replicator.gate().cut("west", "east");
    let forced =
        within("force", east.replicator.update_active_cluster("orders", "east", "cli")).await.unwrap();
    assert!(forced.forced && forced.version == 11, "{forced:?}");
}

#[tokio::test]
async fn a_freeze_that_a_crash_left_is_undone_and_a_release_is_delivered() {
    let (places, listeners) = places(&[("east", 1), ("west", 1)]).await;
    let east = Region::start(&places[0], &places, listeners[0].clone()).await;
    let orders = east.namespace("orders", &["east", "west"]).await;
    let (id, regions) = (orders.id(), east.namespaces.regions());
    let now = || antipode_core::ids::Timestamp(antipode_env::Clock::now(&antipode_env::SystemClock));
    // As after a crash: the record says draining and nobody runs it.
    let drain = |operation: &'static str, nanos: i64| {
        let (namespaces, regions) = (&east.namespaces, &regions);
        async move {
            namespaces
                .update::<antipode_history::namespaces::Error>(id, |record| {
                    let act = namespaces.act(regions, "operator", "test");
                    let until = now().plus(antipode_core::ids::Nanos(nanos));
                    Ok(record.begin_drain(&act, "west", operation, until)?)
                })
                .await
                .unwrap()
        }
    };
    drain("one", -1).await;
    let thawed =
        east.sees(orders.id(), "the freeze is undone", |entry| entry.writable_version().is_some()).await;
    assert_eq!(thawed.version(), FailoverVersion(1));
    drain("two", 60_000_000_000).await;
    east.namespaces
        .update::<antipode_history::namespaces::Error>(orders.id(), |record| {
            Ok(record.release(&east.namespaces.act(&regions, "operator", "test"), "two")?)
        })
        .await
        .unwrap();
    // Released, and the target only comes up now.
    let west = Region::start(&places[1], &places, listeners[1].clone()).await;
    for region in [&east, &west] {
        region.sees(orders.id(), "west is active", |entry| entry.version() == FailoverVersion(2)).await;
    }
}

/// A place whose store is another one: what a backup held, in a new life.
fn restored(place: &region::Place, backup: &antipode_persistence::memory::MemoryStore) -> region::Place {
    let incarnation = Incarnation(place.store.identity().incarnation.0 + 1);
    let identity = Identity { incarnation, ..place.store.identity().clone() };
    region::Place { store: std::sync::Arc::new(backup.copy(identity)), ..place.clone() }
}

#[tokio::test]
async fn restore_source() {
    // E2: east is restored from a backup that lacks its last batch. It writes nothing before it has a version that no event
    // carries, and by then what it lost is back.
    let (places, listeners) = places(&[("east", 1), ("west", 1)]).await;
    let east = Region::start(&places[0], &places, listeners[0].clone()).await;
    let west = Region::start(&places[1], &places, listeners[1].clone()).await;
    let orders = east.namespace("orders", &["east", "west"]).await;
    let key = run(orders.id(), "w", 1);
    east.shards.append(&key, 1).await.unwrap();
    west.holds_what(&east, &key).await;
    let backup = east.store.copy(east.store.identity().clone());
    let lost_from = east.shards.run(&key).unwrap().chains.len();
    east.shards.append(&key, 1).await.unwrap();
    west.holds_what(&east, &key).await;
    east.stop().await;

    let place = restored(&places[0], &backup);
    let namespaces = antipode_history::namespaces::Namespaces::load(
        place.store.clone(),
        std::sync::Arc::new(antipode_env::SystemClock),
        std::sync::Arc::new(antipode_env::SeededEntropy::new(9)),
    );
    let asleep = namespaces.await.unwrap().by_id(orders.id()).unwrap();
    assert_eq!((asleep.version(), asleep.writable_version()), (FailoverVersion(1), None));
    let east = Region::start(&place, &places, listeners[0].clone()).await;
    let renewed = east.sees(orders.id(), "it is writable", |entry| entry.writable_version().is_some()).await;
    assert_eq!(renewed.version(), FailoverVersion(11));
    assert_eq!(renewed.record.history()[&FailoverVersion(11)].who, "restore");
    east.holds_what(&west, &key).await;
    assert_eq!(east.shards.run(&key).unwrap().chains.len(), lost_from + 1);
    east.shards.append(&key, 1).await.unwrap();
    west.holds_what(&east, &key).await;
}

#[tokio::test]
async fn restore_peer() {
    // E2: the peer was moved the namespace after the backup: the restored region does not take it back.
    let (places, listeners) = places(&[("east", 1), ("west", 1)]).await;
    let east = Region::start(&places[0], &places, listeners[0].clone()).await;
    let west = Region::start(&places[1], &places, listeners[1].clone()).await;
    let orders = east.namespace("orders", &["east", "west"]).await;
    let key = run(orders.id(), "w", 1);
    east.shards.append(&key, 1).await.unwrap();
    west.holds_what(&east, &key).await;
    let backup = east.store.copy(east.store.identity().clone());
    within("to west", east.replicator.failover(failover("orders", "west", false, 20_000))).await.unwrap();
    west.shards.append(&key, 2).await.unwrap();
    east.stop().await;

    let east = Region::start(&restored(&places[0], &backup), &places, listeners[0].clone()).await;
    east.sees(orders.id(), "west is active", |entry| entry.version() == FailoverVersion(2)).await;
    east.holds_what(&west, &key).await;
    let here = east.namespaces.by_id(orders.id()).unwrap();
    assert_eq!((here.version(), here.record.active()), (FailoverVersion(2), "west"));
}

#[tokio::test]
async fn regions_are_added_refused_disabled_and_removed() {
    let (places, listeners) = places(&[("east", 1), ("west", 1)]).await;
    let mut started = Vec::new();
    for (place, listener) in places.iter().zip(listeners) {
        started.push(Region::start(place, &[], listener).await);
    }
    let (east, west) = (&started[0], &started[1]);
    let own = east.replicator.region_upsert(&places[0].address, true).await.unwrap_err();
    assert!(own.to_string().contains("this region's own name"), "{own}");
    let nobody = east.replicator.region_upsert("127.0.0.1:1", true).await.unwrap_err();
    assert_eq!(Status::from(nobody).code(), Code::Unavailable);
    // R120: both sides have to be told.
    east.replicator.region_upsert(&places[1].address, true).await.unwrap();
    west.replicator.region_upsert(&places[0].address, true).await.unwrap();
    let names: Vec<_> =
        east.replicator.regions().into_iter().map(|region| (region.name, region.initial)).collect();
    assert_eq!(names, [("east".to_string(), 1), ("west".to_string(), 2)]);
    let orders = east.namespace("orders", &["east", "west"]).await;
    west.sees(orders.id(), "the namespace exists", |_| true).await;
    // R121
    let refused = east.replicator.region_remove("west").await.unwrap_err();
    assert!(refused.to_string().contains("namespace orders is shared with region west"), "{refused}");
    // R122
    east.replicator.region_upsert(&places[1].address, false).await.unwrap();
    eventually("streams to a disabled region end", || !west.replicator.status().peers[0].receiving).await;
    assert!(!east.replicator.regions()[1].enabled);
    let regions = east.namespaces.regions();
    east.namespaces
        .update::<antipode_history::namespaces::Error>(orders.id(), |record| {
            Ok(record.set_members(&east.namespaces.act(&regions, "", ""), ["east"])?)
        })
        .await
        .unwrap();
    east.replicator.region_remove("west").await.unwrap();
    assert_eq!(east.replicator.regions().len(), 1);
    // I29: the class stays west's.
    assert_eq!(east.namespaces.regions().owner(FailoverVersion(12)).to_string(), "west");
    assert_eq!(Status::from(east.replicator.region_remove("west").await.unwrap_err()).code(), Code::NotFound);
}

/// Goal: whatever the order of writes, cuts, heals and hand-overs, three healed regions hold the same. Hand-overs may fail
/// behind cuts; writes are made wherever the namespace can be written.
#[tokio::test]
async fn random_schedules_converge() {
    let mut moved = 0;
    for seed in 1..=6 {
        let regions = start(&[("east", 1), ("west", 2), ("north", 3)]).await;
        let names: Vec<&str> = regions.iter().map(|region| region.name).collect();
        let orders = regions[0].namespace("orders", &names).await;
        for region in &regions {
            region.sees(orders.id(), "the namespace exists", |_| true).await;
        }
        let random = antipode_env::SeededEntropy::new(seed);
        let pick = |count: usize| {
            let number = antipode_env::Entropy::u64(&random) % count as u64;
            usize::try_from(number).unwrap()
        };
        for step in 1..=80 {
            let key = run(orders.id(), &format!("w{}", pick(5)), 1);
            let writer = &regions[pick(3)];
            match pick(12) {
                0..=5 => drop(writer.shards.append(&key, 1).await),
                6 | 7 if writer.shards.run(&key).is_some() => {
                    drop(writer.shards.heartbeat(&key, step).await);
                }
                8 => {
                    writer.replicator.gate().cut(names[pick(3)], names[pick(3)]);
                }
                9 => {
                    writer.replicator.gate().heal(names[pick(3)], names[pick(3)]);
                }
                10 => {
                    let asked = failover("orders", names[pick(3)], false, 150);
                    let answer = writer.replicator.failover(asked).await;
                    moved += u32::from(answer.is_ok_and(|reply| !reply.already_active));
                }
                _ => tokio::task::yield_now().await,
            }
        }
        for region in &regions {
            for from in &names {
                for to in &names {
                    region.replicator.gate().heal(from, to);
                }
            }
        }
        let held = |region: &Region| region.shards.held.lock().unwrap().runs.clone();
        eventually(&format!("all regions hold the same, seed {seed}"), || {
            held(&regions[0]) == held(&regions[1]) && held(&regions[0]) == held(&regions[2])
        })
        .await;
        assert!(!held(&regions[0]).is_empty(), "seed {seed} wrote nothing");
        for region in regions {
            region.stop().await;
        }
    }
    assert!(moved > 0, "no schedule moved the namespace");
}
