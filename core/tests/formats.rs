//! Stored bytes of earlier versions stay readable: what stands here as hexadecimal was encoded before `base` of a register, `lost`
//! of a head, `recent` of an envelope and `origin` of a pending event were added, and is read by the code of today. A change
//! that breaks one of these needs a migration, not another constant.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::sync::Arc;

use antipode_core::{
    batch::Batch,
    digest::digest,
    ids::FailoverVersion,
    register::{Order, RegisterSet},
    run::Run,
};
use antipode_proto::core as wire;
use prost::Message;
use support::*;

/// Envelope and events of a run: started; a task that schedules activity `a`; signal `x`; a task in a worker's hand.
const BATCHES: [(&str, &str); 5] = [
    (
        "0a2430303030303030302d303030302d303030302d303030302d3030303030303030303030311201771a2430\
         303030303030302d303030302d303030302d303030302d303030303030303030303032222430303030303030\
         302d303030302d303030302d303030302d3030303030303030303030322801300238014a0408021001520808\
         011001180120015a040801100160016a0d08011209080612057374617274800101",
        "0a7508011202086418012001280132670a060a04747970652a090a0571756575651001722430303030303030\
         302d303030302d303030302d303030302d30303030303030303030303282012430303030303030302d303030\
         302d303030302d303030302d303030303030303030303032900101e20101770a1f0802120208641805200128\
         0152110a090a05717565756510011202080a1801",
    ),
    (
        "0a2430303030303030302d303030302d303030302d303030302d3030303030303030303030311201771a2430\
         303030303030302d303030302d303030302d303030302d303030303030303030303032222430303030303030\
         302d303030302d303030302d303030302d30303030303030303030303228033003380142105b11f21db33143\
         f53084323dea3f07714a0408031001520808011001180120025a04080110026002800101",
        "0a130803120208641806200128025a050802289401",
    ),
    (
        "0a2430303030303030302d303030302d303030302d303030302d3030303030303030303030311201771a2430\
         303030303030302d303030302d303030302d303030302d303030303030303030303032222430303030303030\
         302d303030302d303030302d303030302d30303030303030303030303228043005380142104772ed2e317e49\
         24c540254f774488974a0408051001520808011001180120045a04080110036003800101",
        "0a120804120208641807200128036204080210030a47080512020864180a200128037a390a016112080a0663\
         686172676522090a05717565756510013a0042004a02080f5202080a580462110a0208011100000000000000\
         401a020864",
    ),
    (
        "0a2430303030303030302d303030302d303030302d303030302d3030303030303030303030311201771a2430\
         303030303030302d303030302d303030302d303030302d303030303030303030303032222430303030303030\
         302d303030302d303030302d303030302d3030303030303030303030322806300738014210eef42cc2b2250c\
         3236d7c8fbc45888034a0408071001520808011001180120055a040801100560056a110806120d0801120972\
         6571756573742d78800101",
        "0a12080612020864181a20012805d201030a01780a1f08071202086418052001280552110a090a0571756575\
         6510011202080a1801",
    ),
    (
        "0a2430303030303030302d303030302d303030302d303030302d3030303030303030303030311201771a2430\
         303030303030302d303030302d303030302d303030302d303030303030303030303032222430303030303030\
         302d303030302d303030302d303030302d30303030303030303030303228083008380142106751cc48d52f1f\
         eb0f66620fca5e17014a0408081001520808011001180120065a04080110066006800101",
        "0a130808120208641806200128065a05080728b102",
    ),
];

/// The run's head: the activity was started, and the signal `waits` waits for the task to end.
const HEAD: &str = "0a2430303030303030302d303030302d303030302d303030302d303030303030303030303032121e0a040808\
     10011210d3da25dcc348089d2f714b82a358df381a0408011006223408051001180120012801322808011001\
     1880d0dbc3f40220012a08776f726b65722d313880d0dbc3f4024a08776f726b65722d312a2d0a110801120d\
     726571756573742d7761697473120e0a0c181ad201070a05776169747332040801100738014001380140c402";

/// Its digest (G3), which peers of any version must agree on.
const DIGEST: &str = "807758fce53bc9acfc1f8a9ea436e5c0";

fn bytes(hex: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(digit).collect()
}

/// The run as today's code writes it.
fn today() -> Author {
    let mut east = Author::begin();
    east.step(vec![activity("a")]);
    east.start_activity("a");
    east.signal("x");
    east.start_task();
    east.signal("waits");
    east
}

#[test]
fn an_earlier_run_is_read_whole() {
    let batches = BATCHES.map(|(envelope, events)| {
        Arc::new(Batch::open(bytes(envelope).into(), bytes(events).into()).unwrap())
    });
    let head = wire::RunHead::decode(&*bytes(HEAD)).unwrap();
    let run = Run::restore(run_key(2), &head, batches.iter().cloned()).unwrap();
    assert_eq!(digest(&run), DIGEST);
    assert_eq!(run.items(), list(&[(8, 1)]));
    let view = run.activity(run.state.activity_ids["a"]).unwrap();
    assert!(view.attempt.started && view.attempt.attempt == 1);
    let register = run.registers.iter().next().unwrap();
    assert_eq!(register.order, Order { version: FailoverVersion(1), count: 1 });
    assert_eq!(register.base, Order::default());
    let waits = run.pending_live();
    assert_eq!(waits.len(), 1);
    assert_eq!(waits[0].0, signal_identity("waits"));
    assert_eq!(waits[0].1.origin, None);
    assert_eq!(run.lost, []);
    assert_eq!(RegisterSet::from_wire(&head.registers).unwrap().to_wire(), head.registers);
    // And it goes on.
    let mut author = Author { run, batches: batches.to_vec(), ..today() };
    author.complete(vec![]);
    assert_eq!(author.signals(), ["x 6@1", "waits 10@1"]);
}

/// What today's code writes without the new fields is byte for byte what was written before.
#[test]
fn the_same_run_is_written_as_before() {
    let today = today();
    for (batch, (envelope, events)) in today.batches.iter().zip(BATCHES) {
        assert_eq!(batch.envelope_bytes, bytes(envelope));
        assert_eq!(batch.events, bytes(events));
    }
    let mut head = today.run.head();
    for register in &mut head.registers {
        // Added later: without it the pair decides.
        assert_eq!(register.anchor_chain.len(), 16);
        register.anchor_chain.clear();
    }
    // Added later, for those who list the runs of a workflow id.
    assert!(std::mem::take(&mut head.open));
    assert_eq!(head.encode_to_vec(), bytes(HEAD));
    assert_eq!(digest(&today.run), DIGEST);
}

/// A first batch of a chain that passed on everything, as an earlier version wrote it: all of it is kept.
#[test]
fn an_earlier_inheritance_is_kept() {
    let mut chain = today();
    chain.complete(vec![continue_as_new()]);
    chain.start_task();
    chain.complete(vec![continue_as_new()]);
    chain.follow();
    let mut envelope = chain.batches[0].envelope.to_wire();
    assert_eq!(envelope.recent.len(), 2);
    envelope.inherited = std::mem::take(&mut envelope.recent);
    let first = Batch::open(envelope.encode_to_vec().into(), chain.batches[0].events.clone()).unwrap();
    let mut run = Run::new(run_key(3), run_id(2));
    run.push(&Arc::new(first)).unwrap();
    assert!(run.knows(&signal_identity("x")) && run.knows(&signal_identity("waits")));
    let mut old = Author { run, ..chain };
    old.now += 2 * SECOND;
    old.settle();
    old.step(vec![continue_as_new()]);
    old.follow();
    assert_eq!(old.batches[0].envelope.inherited.len(), 2);
    assert_eq!(old.batches[0].envelope.recent, []);
}
