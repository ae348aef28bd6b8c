//! Nodes as a library: two regions in one process over real sockets, the operator service, and a stop that lets go of the
//! store. No wall clock is asserted on; what takes time is waited for.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

use std::{path::Path, sync::Arc, time::Duration};

use antipode::node::{Listeners, Node, Seams};
use antipode_config::{Listen, Log, Node as Config, Peer, Region, Store};
use antipode_env::{Listener, TcpListener, grpc};
use antipode_proto::{
    admin::{
        CreateNamespaceRequest, DescribeNamespaceRequest, FailoverRequest, InspectRunRequest,
        LinkStatusRequest, ListNamespacesRequest, SetLinkRequest, set_link_request::Action,
    },
    antipode::admin::v1::admin_client::AdminClient,
};
use tonic::{Code, transport::Channel};

/// How long a condition may take to come true before the test gives up.
const PATIENCE: Duration = Duration::from_secs(30);

struct Place {
    listener: Arc<dyn Listener>,
    name: &'static str,
    initial: u32,
}

impl Place {
    async fn new(name: &'static str, initial: u32) -> Self {
        let listener = Arc::new(TcpListener::bind(([127, 0, 0, 1], 0).into()).await.unwrap());
        Self { listener, name, initial }
    }

    fn config(&self, store: Store, others: &[&Self]) -> Config {
        let peer = |place: &&Self| Peer {
            name: place.name.to_string(),
            initial_version: place.initial,
            address: place.listener.local_addr().unwrap().to_string(),
        };
        Config {
            region: Region { name: self.name.to_string(), initial_version: self.initial, increment: 10 },
            shards: 2,
            listen: Listen { grpc: self.listener.local_addr().unwrap(), metrics: None },
            advertise: None,
            store,
            peers: others.iter().map(peer).collect(),
            log: Log::default(),
        }
    }

    async fn start(&self, store: Store, others: &[&Self]) -> Node {
        let listeners = Listeners { grpc: Arc::clone(&self.listener), metrics: None };
        Node::start(self.config(store, others), listeners, Seams::of_the_system().unwrap()).await.unwrap()
    }

    async fn admin(&self) -> AdminClient<Channel> {
        let address = self.listener.local_addr().unwrap().to_string();
        let channel = grpc::channel(&address, Arc::new(antipode_env::TcpConnector)).await.unwrap();
        AdminClient::new(channel)
    }
}

async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    match tokio::time::timeout(PATIENCE, looking).await {
        Ok(found) => found,
        Err(_) => panic!("never came true: {what}"),
    }
}

fn named(name: &str) -> CreateNamespaceRequest {
    CreateNamespaceRequest { name: name.into(), global: true, ..CreateNamespaceRequest::default() }
}

fn refused<T: std::fmt::Debug>(answer: Result<T, tonic::Status>, code: Code, words: &str) {
    let status = answer.unwrap_err();
    assert_eq!(status.code(), code, "{status:?}");
    assert!(status.message().contains(words), "{status:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_made_in_one_region_is_known_and_moved_in_the_other() {
    let (east, west) = (Place::new("east", 1).await, Place::new("west", 2).await);
    let one = east.start(Store::Memory {}, &[&west]).await;
    let two = west.start(Store::Memory {}, &[&east]).await;
    let (mut at_east, mut at_west) = (east.admin().await, west.admin().await);

    let made = at_east.create_namespace(named("orders")).await.unwrap().into_inner();
    assert_eq!(made.regions, ["east", "west"]);
    assert!(made.active_here);
    let asked = DescribeNamespaceRequest { name: "orders".into(), id: String::new() };
    let there =
        until("west knows the namespace", async || at_west.describe_namespace(asked.clone()).await.ok())
            .await;
    assert_eq!(there.into_inner().record, made.record, "the very record");

    let request =
        FailoverRequest { namespace: "orders".into(), to: "west".into(), ..FailoverRequest::default() };
    let moved = at_east.failover(request).await.unwrap().into_inner();
    assert_eq!((moved.version_before, moved.version, moved.forced), (1, 2, false));
    let listed = at_west.list_namespaces(ListNamespacesRequest {}).await.unwrap().into_inner().namespaces;
    assert_eq!(listed.iter().map(|namespace| namespace.active_here).collect::<Vec<_>>(), [true]);
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_name_what_is_wrong() {
    let (east, west) = (Place::new("east", 1).await, Place::new("west", 2).await);
    let node = east.start(Store::Memory {}, &[&west]).await;
    let mut admin = east.admin().await;
    admin.create_namespace(named("orders")).await.unwrap();

    refused(admin.create_namespace(named("orders")).await, Code::AlreadyExists, "\"orders\" already exists");
    refused(admin.create_namespace(named("a b")).await, Code::InvalidArgument, "namespace: \"a b\"");
    let short = CreateNamespaceRequest { retention_seconds: 3600, ..named("short") };
    refused(admin.create_namespace(short).await, Code::InvalidArgument, "retention: 3600 s");
    let nowhere = CreateNamespaceRequest { regions: vec!["mars".into()], ..named("nowhere") };
    refused(admin.create_namespace(nowhere).await, Code::InvalidArgument, "\"mars\" is not known");

    let link = |action: Action, from: &str, to: &str, run_id: &str| SetLinkRequest {
        action: action.into(),
        from: from.into(),
        to: to.into(),
        run_id: run_id.into(),
    };
    refused(
        admin.set_link(link(Action::Cut, "east", "mars", "")).await,
        Code::InvalidArgument,
        "to: region \"mars\"",
    );
    refused(
        admin.set_link(link(Action::Cut, "east", "east", "")).await,
        Code::InvalidArgument,
        "both are east",
    );
    let run = "906c432e-7eff-48ce-92f9-f276a7e926eb";
    refused(
        admin.set_link(link(Action::HoldRun, "west", "east", run)).await,
        Code::InvalidArgument,
        "where it is sent from",
    );
    refused(
        admin.set_link(link(Action::HoldRun, "east", "west", "x")).await,
        Code::InvalidArgument,
        "run_id: \"x\"",
    );

    let inspect = |namespace: &str, workflow_id: &str| InspectRunRequest {
        namespace: namespace.into(),
        workflow_id: workflow_id.into(),
        run_id: String::new(),
    };
    refused(admin.inspect_run(inspect("nope", "w")).await, Code::NotFound, "namespace \"nope\"");
    refused(admin.inspect_run(inspect("orders", "w")).await, Code::NotFound, "workflow \"w\"");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_is_seen_in_the_status_of_the_node_that_was_asked() {
    let (east, west) = (Place::new("east", 1).await, Place::new("west", 2).await);
    let one = east.start(Store::Memory {}, &[&west]).await;
    let two = west.start(Store::Memory {}, &[&east]).await;
    let mut admin = east.admin().await;
    let mut status =
        async || admin.link_status(LinkStatusRequest {}).await.unwrap().into_inner().peers.remove(0);
    until("the link is up", async || Some(status().await).filter(|peer| peer.sending && peer.receiving))
        .await;

    let mut admin = east.admin().await;
    let cut = SetLinkRequest {
        action: Action::Cut.into(),
        from: "east".into(),
        to: "west".into(),
        run_id: String::new(),
    };
    assert_eq!(admin.set_link(cut).await.unwrap().into_inner().cut, ["east->west"]);
    let peer = until("nothing is sent", async || Some(status().await).filter(|peer| !peer.sending)).await;
    assert!(peer.cut_out && !peer.cut_in, "{peer:?}");
    let heal = SetLinkRequest {
        action: Action::Heal.into(),
        from: "east".into(),
        to: "west".into(),
        run_id: String::new(),
    };
    assert!(admin.set_link(heal).await.unwrap().into_inner().cut.is_empty());
    until("it is up again", async || Some(status().await).filter(|peer| peer.sending && !peer.cut_out)).await;
    one.stop().await;
    two.stop().await;
}

/// Whether nobody holds the store of a region any more.
fn is_free(path: &Path) -> bool {
    antipode_persistence::sqlite::inspect(path).is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_node_lets_go_of_its_store_and_another_goes_on_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("east.db");
    let store = Store::Sqlite { path: path.clone() };
    let place = Place::new("east", 1).await;
    let node = place.start(store.clone(), &[]).await;
    let made = place.admin().await.create_namespace(named("orders")).await.unwrap().into_inner();
    assert!(!is_free(&path), "a running node holds it");
    node.stop().await;
    drop(node);
    until("the store is closed", async || is_free(&path).then_some(())).await;

    let again = Place::new("east", 1).await;
    let node = again.start(store, &[]).await;
    let listed = again.admin().await.list_namespaces(ListNamespacesRequest {}).await.unwrap().into_inner();
    assert_eq!(listed.namespaces, [made]);
    node.stop().await;
}
