//! Links, for the operator: cut, healed, and the test hook that holds one run back. A cut lives in the gate of the node that
//! is asked, so that node must stand at one of its ends.

use antipode_core::ids::RunId;
use antipode_proto::admin::{SetLinkReply, SetLinkRequest, set_link_request::Action};
use tonic::Status;

use super::Service;

pub(super) fn set(service: &Service, request: &SetLinkRequest) -> Result<SetLinkReply, Status> {
    check_ends(service, &request.from, &request.to)?;
    let gate = service.replicator.gate();
    let (from, to) = (request.from.as_str(), request.to.as_str());
    match request.action() {
        Action::Cut => {
            if gate.cut(from, to) {
                tracing::warn!(from, to, "the link was cut by an operator");
            }
        }
        Action::Heal => {
            if gate.heal(from, to) {
                tracing::info!(from, to, "the link was healed by an operator");
            }
        }
        Action::HoldRun => {
            at_source(service, from)?;
            gate.hold_run(run_id(&request.run_id)?);
        }
        Action::ReleaseRun => {
            at_source(service, from)?;
            gate.release_run(run_id(&request.run_id)?);
        }
        Action::Unspecified => return Err(Status::invalid_argument("action: not set")),
    }
    Ok(SetLinkReply { cut: gate.cuts() })
}

/// Both ends are regions, and this one is among them.
fn check_ends(service: &Service, from: &str, to: &str) -> Result<(), Status> {
    let known = service.namespaces.regions();
    for (field, region) in [("from", from), ("to", to)] {
        known.require(region).map_err(|error| Status::invalid_argument(format!("{field}: {error}")))?;
    }
    if from == to {
        return Err(Status::invalid_argument(format!("from, to: both are {from}")));
    }
    if from != &*service.region && to != &*service.region {
        let why =
            format!("this node is in region {}; ask a node of {from} or {to} (--address)", service.region);
        return Err(Status::invalid_argument(why));
    }
    Ok(())
}

/// A run is held where it is sent from.
fn at_source(service: &Service, from: &str) -> Result<(), Status> {
    if from == &*service.region {
        return Ok(());
    }
    let why = format!("a run is held where it is sent from; ask a node of {from} (--address)");
    Err(Status::invalid_argument(why))
}

fn run_id(text: &str) -> Result<RunId, Status> {
    text.parse().map_err(|_| Status::invalid_argument(format!("run_id: {text:?} is not a UUID")))
}
