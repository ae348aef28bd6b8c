//! Namespaces, for the operator: created, described and listed.

use antipode_core::namespace::{Config, Info};
use antipode_history::namespaces::{Entry, NewNamespace};
use antipode_proto::admin::{
    CreateNamespaceRequest, DescribeNamespaceRequest, ListNamespacesReply, NamespaceReply,
};
use tonic::Status;

use super::Service;
use crate::wiring::namespaces::{regions, status};

/// Retention when nothing is said.
const RETENTION_DEFAULT_SECONDS: i64 = 72 * 3600;
/// Shortest retention of a global namespace (R204).
const RETENTION_GLOBAL_MIN_SECONDS: i64 = 24 * 3600;

/// Mints a namespace. What can be wrong is told by its field, before anything is written.
pub(super) async fn create(
    service: &Service,
    request: CreateNamespaceRequest,
) -> Result<NamespaceReply, Status> {
    crate::names::check(&request.name).map_err(Status::invalid_argument)?;
    let retention_seconds = match request.retention_seconds {
        0 => RETENTION_DEFAULT_SECONDS,
        given => given,
    };
    if request.global && retention_seconds < RETENTION_GLOBAL_MIN_SECONDS {
        let why = format!(
            "retention: {retention_seconds} s is below the 24 h that a global namespace keeps at least"
        );
        return Err(Status::invalid_argument(why));
    }
    let known = service.namespaces.regions();
    for region in request.regions.iter().chain((!request.active.is_empty()).then_some(&request.active)) {
        known.require(region).map_err(|error| Status::invalid_argument(error.to_string()))?;
    }
    let regions = if request.regions.is_empty() {
        known.members().map(|region| region.name.clone()).collect()
    } else {
        request.regions
    };
    let new = NewNamespace {
        name: request.name,
        info: Info { description: request.description, ..Info::default() },
        config: Config { retention_seconds },
        global: request.global,
        active: request.active,
        regions,
    };
    let entry = service.namespaces.create(new).await.map_err(|error| status(&error))?;
    Ok(reply(service, &entry))
}

/// By id, or by name.
pub(super) fn describe(
    service: &Service,
    request: &DescribeNamespaceRequest,
) -> Result<NamespaceReply, Status> {
    let found = match request.id.as_str() {
        "" => service.namespaces.by_name(&request.name),
        id => {
            let id = id.parse().map_err(|_| Status::invalid_argument(format!("id: {id:?} is not a UUID")))?;
            service.namespaces.by_id(id)
        }
    };
    let asked = if request.id.is_empty() { &request.name } else { &request.id };
    found.map(|entry| reply(service, &entry)).ok_or_else(|| unknown(service, asked))
}

/// All that are not deleted, by name.
pub(super) fn list(service: &Service) -> ListNamespacesReply {
    let mut entries = service.namespaces.all();
    entries.retain(|entry| !entry.is_deleted());
    entries.sort_by(|one, other| one.name().cmp(other.name()));
    ListNamespacesReply { namespaces: entries.iter().map(|entry| reply(service, entry)).collect() }
}

/// The refusal of a name that this region does not know.
pub(super) fn unknown(service: &Service, name: &str) -> Status {
    Status::not_found(format!("namespace {name:?} is not known in region {}", service.region))
}

fn reply(service: &Service, entry: &Entry) -> NamespaceReply {
    let mut record = entry.to_wire();
    // Shown under the name by which it is found here (F4).
    if let Some(name) = &mut record.name {
        name.name = entry.name().to_string();
    }
    NamespaceReply {
        regions: regions(&service.namespaces, &entry.record),
        active_here: entry.active_here(),
        region: service.region.to_string(),
        record: Some(record),
    }
}
