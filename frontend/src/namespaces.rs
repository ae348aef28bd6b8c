//! Calls about namespaces: describe, list, register, update. A failover through UpdateNamespace hands over when the active
//! region answers in time and forces otherwise, as the incumbent does; how it went stands in the failover history.

use std::{ops::Bound, sync::Arc};

use antipode_core::ids::NamespaceId;
use antipode_proto::{
    admin,
    api::{
        enums::v1::{ArchivalState, NamespaceState, ReplicationState},
        namespace::v1::{NamespaceConfig, UpdateNamespaceInfo},
        replication::v1::ClusterReplicationConfig,
        workflowservice::v1 as ws,
    },
};
use bytes::Bytes;
use prost_types::Duration;
use tonic::Status;

use crate::{
    call::Call,
    context::Context,
    errors, limits,
    namespace::Namespace,
    ports::{NamespaceChange, NewNamespace},
    validate,
};

/// DescribeNamespace, by name or id.
pub(crate) async fn describe_namespace(
    context: &Context,
    _call: &Call,
    request: ws::DescribeNamespaceRequest,
) -> Result<ws::DescribeNamespaceResponse, Status> {
    let found = match (request.namespace.as_str(), request.id.as_str()) {
        ("", "") => return Err(errors::invalid("Namespace not set on request.")),
        (name, "") => context.namespaces.by_name(name).ok_or_else(|| errors::namespace_not_found(name))?,
        (_, id) => {
            let parsed: Result<NamespaceId, _> = id.parse();
            let found = parsed.ok().and_then(|parsed| context.namespaces.by_id(parsed));
            found.ok_or_else(|| errors::namespace_not_found(id))?
        }
    };
    Ok(found.describe())
}

/// ListNamespaces, by name. The token is the last name of the page before.
pub(crate) async fn list_namespaces(
    context: &Context,
    _call: &Call,
    request: ws::ListNamespacesRequest,
) -> Result<ws::ListNamespacesResponse, Status> {
    let page_size = usize::try_from(request.page_size).ok().filter(|size| *size > 0);
    let page_size = page_size.unwrap_or(limits::NAMESPACE_PAGE_DEFAULT);
    let bad = |_| errors::invalid("Invalid NextPageToken.");
    let after = std::str::from_utf8(&request.next_page_token).map_err(bad)?;
    let include_deleted = request.namespace_filter.is_some_and(|filter| filter.include_deleted);
    let all = context.namespaces.all();
    let begins = if after.is_empty() { Bound::Unbounded } else { Bound::Excluded(after) };
    let is_behind = |name: &str| match begins {
        Bound::Excluded(after) => name > after,
        _ => true,
    };
    let shown = |namespace: &&Arc<Namespace>| {
        (include_deleted || !namespace.is_deleted()) && is_behind(&namespace.name)
    };
    let mut found: Vec<&Arc<Namespace>> = all.iter().filter(shown).collect();
    found.sort_by(|left, right| left.name.cmp(&right.name));
    let more = found.len() > page_size;
    found.truncate(page_size);
    let last = found.last().filter(|_| more);
    Ok(ws::ListNamespacesResponse {
        next_page_token: last.map(|last| Bytes::copy_from_slice(last.name.as_bytes())).unwrap_or_default(),
        namespaces: found.into_iter().map(|namespace| namespace.describe()).collect(),
    })
}

/// RegisterNamespace, local or global (R201–R204).
pub(crate) async fn register_namespace(
    context: &Context,
    _call: &Call,
    request: ws::RegisterNamespaceRequest,
) -> Result<ws::RegisterNamespaceResponse, Status> {
    if request.namespace.is_empty() {
        return Err(errors::invalid("Namespace not set on request."));
    }
    validate::bounded("Namespace", &request.namespace)?;
    let retention =
        retention(request.workflow_execution_retention_period.as_ref(), request.is_global_namespace)?;
    archival_is_off(request.history_archival_state, request.visibility_archival_state)?;
    if context.namespaces.by_name(&request.namespace).is_some() {
        return Err(errors::namespace_already_exists(&request.namespace));
    }
    let here = &context.region.name;
    let active = if request.active_cluster_name.is_empty() { here } else { &request.active_cluster_name };
    let mut regions = names(&request.clusters);
    if regions.is_empty() {
        regions.push(active.clone());
    }
    check_regions(context, request.is_global_namespace, active, &regions)?;
    let new = NewNamespace {
        name: request.namespace,
        description: request.description,
        owner_email: request.owner_email,
        data: request.data,
        retention_seconds: retention,
        global: request.is_global_namespace,
        active: active.clone(),
        regions,
    };
    context.namespaces.register(new).await?;
    Ok(ws::RegisterNamespaceResponse::default())
}

/// R203: a local namespace is its region's alone; a global one lists known regions, the active one among them.
fn check_regions(context: &Context, global: bool, active: &str, regions: &[String]) -> Result<(), Status> {
    let here = &context.region.name;
    if !global {
        if active != here {
            return Err(errors::invalid(format!(
                "ActiveClusterName of a local namespace must be {here}, not {active}."
            )));
        }
        return match regions.iter().find(|region| *region != here) {
            Some(other) => Err(errors::invalid(format!(
                "Clusters of a local namespace must be {here} alone, not {other}."
            ))),
            None => Ok(()),
        };
    }
    let known = context.operations.regions();
    for region in regions {
        match known.iter().find(|known| known.name == *region) {
            None => return Err(errors::invalid(format!("Clusters: {region} is not known here."))),
            Some(found) if !found.enabled => {
                return Err(errors::invalid(format!("Clusters: the connection to {region} is disabled.")));
            }
            Some(_) => {}
        }
    }
    if regions.iter().any(|region| region == active) {
        Ok(())
    } else {
        Err(errors::invalid(format!("ActiveClusterName {active} is not in Clusters.")))
    }
}

fn names(clusters: &[ClusterReplicationConfig]) -> Vec<String> {
    let mut names = Vec::new();
    for cluster in clusters {
        if !names.contains(&cluster.cluster_name) {
            names.push(cluster.cluster_name.clone());
        }
    }
    names
}

fn retention(period: Option<&Duration>, global: bool) -> Result<i64, Status> {
    let bad = || errors::invalid("A valid retention period is not set on request.");
    let least =
        if global { limits::RETENTION_GLOBAL_MIN_SECONDS } else { limits::RETENTION_LOCAL_MIN_SECONDS };
    period.map(|period| period.seconds).filter(|seconds| *seconds >= least).ok_or_else(bad)
}

fn archival_is_off(history: i32, visibility: i32) -> Result<(), Status> {
    let enabled = ArchivalState::Enabled as i32;
    if history == enabled || visibility == enabled {
        return Err(Status::unimplemented("Archival is not implemented"));
    }
    Ok(())
}

/// UpdateNamespace: info and config, or the list of regions, or promotion, or another active region (R209).
pub(crate) async fn update_namespace(
    context: &Context,
    call: &Call,
    request: ws::UpdateNamespaceRequest,
) -> Result<ws::UpdateNamespaceResponse, Status> {
    if request.namespace.is_empty() {
        return Err(errors::invalid("Namespace not set on request."));
    }
    let namespace = context.namespace(&request.namespace)?;
    let change = change_of(context, &namespace, &request)?;
    let target = request.replication_config.as_ref().map(|config| config.active_cluster_name.as_str());
    let target = target.filter(|target| !target.is_empty() && *target != namespace.active());
    let updated = match target {
        Some(_) if !change.is_empty() => {
            return Err(errors::invalid(
                "Cannot set active cluster and update other parameters at the same time.",
            ));
        }
        Some(target) => failover(context, call, &namespace, target).await?,
        // R104: the region that is active already keeps the version.
        None if change.is_empty() => namespace,
        None => context.namespaces.change(namespace.id, change).await?,
    };
    Ok(ws::UpdateNamespaceResponse {
        namespace_info: Some(updated.info()),
        config: Some(updated.config()),
        replication_config: Some(updated.replication()),
        failover_version: updated.failover_version(),
        is_global_namespace: updated.is_global(),
    })
}

fn change_of(
    context: &Context,
    namespace: &Namespace,
    request: &ws::UpdateNamespaceRequest,
) -> Result<NamespaceChange, Status> {
    if !request.delete_bad_binary.is_empty() {
        return Err(Status::unimplemented("UpdateNamespace.delete_bad_binary is not implemented"));
    }
    let mut change = NamespaceChange::default();
    if let Some(info) = &request.update_info {
        change_info(&mut change, namespace, info)?;
    }
    if let Some(config) = &request.config {
        change_config(&mut change, namespace, config)?;
    }
    change.promote = request.promote_namespace && !namespace.is_global();
    if let Some(replication) = &request.replication_config {
        if replication.state == ReplicationState::Handover as i32 {
            return Err(Status::unimplemented("UpdateNamespace to state Handover is not implemented"));
        }
        let regions = names(&replication.clusters);
        let is_same = regions.iter().all(|region| namespace.regions.contains(region))
            && regions.len() == namespace.regions.len();
        if !regions.is_empty() && !is_same {
            let global = namespace.is_global() || change.promote;
            check_regions(context, global, namespace.active(), &regions)?;
            change.regions = Some(regions);
        }
    }
    Ok(change)
}

fn change_info(
    change: &mut NamespaceChange,
    namespace: &Namespace,
    wanted: &UpdateNamespaceInfo,
) -> Result<(), Status> {
    if !matches!(
        NamespaceState::try_from(wanted.state),
        Ok(NamespaceState::Unspecified | NamespaceState::Registered)
    ) {
        return Err(Status::unimplemented("UpdateNamespace of the namespace's state is not implemented"));
    }
    let now = namespace.info();
    let differs =
        |wanted: &String, now: &String| (!wanted.is_empty() && wanted != now).then(|| wanted.clone());
    change.description = differs(&wanted.description, &now.description);
    change.owner_email = differs(&wanted.owner_email, &now.owner_email);
    let fresh = wanted.data.iter().filter(|(key, value)| now.data.get(*key) != Some(*value));
    change.data = fresh.map(|(key, value)| (key.clone(), value.clone())).collect();
    Ok(())
}

fn change_config(
    change: &mut NamespaceChange,
    namespace: &Namespace,
    wanted: &NamespaceConfig,
) -> Result<(), Status> {
    archival_is_off(wanted.history_archival_state, wanted.visibility_archival_state)?;
    if !wanted.custom_search_attribute_aliases.is_empty() {
        return Err(Status::unimplemented(
            "UpdateNamespace.custom_search_attribute_aliases is not implemented",
        ));
    }
    if wanted.bad_binaries.as_ref().is_some_and(|bad| !bad.binaries.is_empty()) {
        return Err(Status::unimplemented("UpdateNamespace.bad_binaries is not implemented"));
    }
    if let Some(period) = &wanted.workflow_execution_retention_ttl {
        let seconds = retention(Some(period), namespace.is_global())?;
        let now = namespace.record.config.as_ref().map(|config| config.retention_seconds);
        change.retention_seconds = Some(seconds).filter(|seconds| Some(*seconds) != now);
    }
    Ok(())
}

/// Hands over when the active region answers within 2 s, and forces otherwise.
async fn failover(
    context: &Context,
    call: &Call,
    namespace: &Namespace,
    target: &str,
) -> Result<Arc<Namespace>, Status> {
    if !namespace.is_global() {
        return Err(errors::invalid(format!(
            "Namespace {} is local: promote it before a failover.",
            namespace.name
        )));
    }
    if !namespace.regions.iter().any(|region| region == target) {
        return Err(errors::invalid(format!("ActiveClusterName {target} is not in Clusters.")));
    }
    let active = namespace.active();
    let is_here = active == context.region.name;
    let answers = is_here || context.operations.reachable(active, limits::ACTIVE_ANSWERS_WITHIN).await;
    let request = admin::FailoverRequest {
        namespace: namespace.name.clone(),
        to: target.to_string(),
        force: !answers,
        deadline_millis: 0,
        who: call.metadata.get("client-name").cloned().unwrap_or_else(|| "UpdateNamespace".to_string()),
        why: if answers { "UpdateNamespace" } else { "UpdateNamespace; the active region did not answer" }
            .to_string(),
    };
    let reply = context.operations.failover(request).await?;
    tracing::info!(
        namespace = %namespace.name, from = %reply.from, to = %reply.to, version = reply.version, forced = reply.forced,
        "failover by UpdateNamespace"
    );
    context.namespace_by_id(namespace.id)
}

#[cfg(test)]
#[path = "namespaces_tests.rs"]
mod tests;
