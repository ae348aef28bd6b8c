//! Words of refused registrations and updates, what an update changes, and which failover an update asks for.

use std::time::Duration as Patience;

use antipode_proto::api::{namespace::v1::NamespaceFilter, replication::v1::NamespaceReplicationConfig};
use tonic::Code;

use super::*;
use crate::fakes::{Node, call, global_namespace};

fn days(days: i64) -> Option<Duration> {
    Some(Duration { seconds: days * 24 * 3600, nanos: 0 })
}

fn registration() -> ws::RegisterNamespaceRequest {
    ws::RegisterNamespaceRequest {
        namespace: "fresh".to_string(),
        workflow_execution_retention_period: days(3),
        ..Default::default()
    }
}

fn clusters(names: &[&str]) -> Vec<ClusterReplicationConfig> {
    let cluster =
        |name: &&str| ClusterReplicationConfig { cluster_name: (*name).to_string(), ..Default::default() };
    names.iter().map(cluster).collect()
}

#[tokio::test]
async fn registrations_in_the_apis_words() {
    let node = Node::new("east");
    type Change = fn(&mut ws::RegisterNamespaceRequest);
    let table: [(Change, Code, &str); 9] = [
        (|r| r.namespace.clear(), Code::InvalidArgument, "Namespace not set on request."),
        (
            |r| r.workflow_execution_retention_period = None,
            Code::InvalidArgument,
            "A valid retention period is not set on request.",
        ),
        (
            |r| {
                r.is_global_namespace = true;
                r.workflow_execution_retention_period = Some(Duration { seconds: 3600, nanos: 0 });
            },
            Code::InvalidArgument,
            "A valid retention period is not set on request.",
        ),
        (|r| r.namespace = "orders".into(), Code::AlreadyExists, "Namespace \"orders\" already exists"),
        (
            |r| r.active_cluster_name = "west".into(),
            Code::InvalidArgument,
            "ActiveClusterName of a local namespace must be east, not west.",
        ),
        (
            |r| r.clusters = clusters(&["east", "west"]),
            Code::InvalidArgument,
            "Clusters of a local namespace must be east alone, not west.",
        ),
        (
            |r| {
                r.is_global_namespace = true;
                r.clusters = clusters(&["east", "moon"]);
            },
            Code::InvalidArgument,
            "Clusters: moon is not known here.",
        ),
        (
            |r| {
                r.is_global_namespace = true;
                r.clusters = clusters(&["east", "north"]);
            },
            Code::InvalidArgument,
            "Clusters: the connection to north is disabled.",
        ),
        (
            |r| {
                r.is_global_namespace = true;
                r.clusters = clusters(&["west"]);
            },
            Code::InvalidArgument,
            "ActiveClusterName east is not in Clusters.",
        ),
    ];
    for (change, code, words) in table {
        let mut request = registration();
        change(&mut request);
        let call = call("RegisterNamespace", Patience::from_secs(5));
        let status = register_namespace(node.context(), &call, request).await.expect_err(words);
        assert_eq!((status.code(), status.message()), (code, words));
    }
    assert!(node.namespaces.registered.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_global_registration() {
    let node = Node::new("east");
    let request = ws::RegisterNamespaceRequest {
        is_global_namespace: true,
        clusters: clusters(&["east", "west", "east"]),
        ..registration()
    };
    let call = call("RegisterNamespace", Patience::from_secs(5));
    register_namespace(node.context(), &call, request).await.expect("whole");
    let registered = node.namespaces.registered.lock().unwrap();
    assert_eq!((registered[0].active.as_str(), registered[0].global), ("east", true));
    assert_eq!(registered[0].regions, ["east", "west"]);
}

#[tokio::test]
async fn descriptions() {
    let node = Node::new("east");
    let call = call("DescribeNamespace", Patience::from_secs(5));
    let describe = |name: &str, id: &str| {
        let request =
            ws::DescribeNamespaceRequest { namespace: name.into(), id: id.into(), ..Default::default() };
        describe_namespace(node.context(), &call, request)
    };
    let empty = describe("", "").await.expect_err("neither");
    assert_eq!((empty.code(), empty.message()), (Code::InvalidArgument, "Namespace not set on request."));
    let missing = describe("no-1", "").await.expect_err("missing");
    assert_eq!((missing.code(), missing.message()), (Code::NotFound, "Namespace no-1 is not found."));
    let by_name = describe("orders", "").await.expect("there");
    let id = by_name.namespace_info.clone().expect("filled").id;
    assert_eq!(describe("", &id).await.expect("there"), by_name);
}

#[tokio::test]
async fn lists_in_pages() {
    let node = Node::new("east");
    for name in ["a", "bb", "ccc"] {
        node.namespaces.put(global_namespace(name, "east"));
    }
    let mut deleted = global_namespace("deleted", "east");
    deleted.record.deleted = true;
    node.namespaces.put(deleted);
    let call = call("ListNamespaces", Patience::from_secs(5));
    let mut names = Vec::new();
    let mut token = Bytes::new();
    loop {
        let request =
            ws::ListNamespacesRequest { page_size: 2, next_page_token: token, namespace_filter: None };
        let page = list_namespaces(node.context(), &call, request).await.expect("a page");
        names.extend(page.namespaces.into_iter().map(|one| one.namespace_info.expect("filled").name));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(names, ["a", "bb", "ccc", "notes", "orders"]);
    let with_deleted = ws::ListNamespacesRequest {
        namespace_filter: Some(NamespaceFilter { include_deleted: true }),
        ..Default::default()
    };
    let all = list_namespaces(node.context(), &call, with_deleted).await.expect("a page");
    assert_eq!(all.namespaces.len(), 6);
}

async fn update(
    node: &Node,
    request: ws::UpdateNamespaceRequest,
) -> Result<ws::UpdateNamespaceResponse, Status> {
    let call = call("UpdateNamespace", Patience::from_secs(5));
    update_namespace(
        node.context(),
        &call,
        ws::UpdateNamespaceRequest { namespace: "orders".into(), ..request },
    )
    .await
}

fn active(name: &str) -> Option<NamespaceReplicationConfig> {
    Some(NamespaceReplicationConfig { active_cluster_name: name.into(), ..Default::default() })
}

#[tokio::test]
async fn another_active_cluster_is_a_hand_over() {
    let node = Node::new("east");
    update(&node, ws::UpdateNamespaceRequest { replication_config: active("west"), ..Default::default() })
        .await
        .expect("handed over");
    let failovers = node.operations.failovers.lock().unwrap();
    assert_eq!(
        (failovers[0].namespace.as_str(), failovers[0].to.as_str(), failovers[0].force),
        ("orders", "west", false)
    );
}

#[tokio::test]
async fn it_is_forced_when_the_active_region_does_not_answer() {
    let west = Node::new("west");
    *west.operations.reachable.lock().unwrap() = false;
    update(&west, ws::UpdateNamespaceRequest { replication_config: active("west"), ..Default::default() })
        .await
        .expect("forced");
    assert!(west.operations.failovers.lock().unwrap()[0].force);
}

#[tokio::test]
async fn naming_the_active_cluster_changes_nothing() {
    let node = Node::new("east");
    let answer = update(
        &node,
        ws::UpdateNamespaceRequest { replication_config: active("east"), ..Default::default() },
    )
    .await
    .expect("nothing to do");
    assert_eq!(answer.failover_version, 1);
    assert!(node.operations.failovers.lock().unwrap().is_empty());
}

/// R209.
#[tokio::test]
async fn a_failover_and_a_change_are_two_calls() {
    let node = Node::new("east");
    let request = ws::UpdateNamespaceRequest {
        replication_config: active("west"),
        update_info: Some(UpdateNamespaceInfo { description: "new".into(), ..Default::default() }),
        ..Default::default()
    };
    let status = update(&node, request).await.expect_err("both at once");
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(node.operations.failovers.lock().unwrap().is_empty());
    assert!(node.namespaces.changes_made.lock().unwrap().is_empty());
}

#[tokio::test]
async fn only_what_differs_is_a_change() {
    let node = Node::new("east");
    let request = ws::UpdateNamespaceRequest {
        update_info: Some(UpdateNamespaceInfo {
            description: "new".into(),
            data: [("k".to_string(), "v".to_string())].into(),
            ..Default::default()
        }),
        config: Some(NamespaceConfig { workflow_execution_retention_ttl: days(3), ..Default::default() }),
        replication_config: Some(NamespaceReplicationConfig {
            clusters: clusters(&["west", "east"]),
            ..Default::default()
        }),
        ..Default::default()
    };
    update(&node, request).await.expect("a change");
    let changes = node.namespaces.changes_made.lock().unwrap();
    let expected = NamespaceChange {
        description: Some("new".into()),
        data: [("k".to_string(), "v".to_string())].into(),
        ..Default::default()
    };
    assert_eq!(*changes, [expected]);
}

#[tokio::test]
async fn the_active_region_stays_in_the_list() {
    let node = Node::new("east");
    let replication_config =
        Some(NamespaceReplicationConfig { clusters: clusters(&["west"]), ..Default::default() });
    let status = update(&node, ws::UpdateNamespaceRequest { replication_config, ..Default::default() })
        .await
        .expect_err("east is active");
    assert_eq!(status.message(), "ActiveClusterName east is not in Clusters.");
}
