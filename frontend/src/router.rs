//! What the server adds to its gRPC listener: both public services and health, all of them with gzip in both directions, which
//! clients use by default, and all of them counted.

use antipode_proto::temporal::api::{
    operatorservice::v1::operator_service_server::OperatorServiceServer,
    workflowservice::v1::workflow_service_server::WorkflowServiceServer,
};
use tonic::{codec::CompressionEncoding::Gzip, server::NamedService, service::Routes};
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::{limits, observe::Observed, service::Frontend};

/// The routes, and the switch of what health says. All is SERVING at first; the server says NOT_SERVING before it stops.
pub async fn router(frontend: Frontend) -> (Routes, HealthReporter) {
    let metrics = frontend.context().metrics.clone();
    let workflow = WorkflowServiceServer::new(frontend.clone())
        .accept_compressed(Gzip)
        .send_compressed(Gzip)
        .max_decoding_message_size(limits::MESSAGE_BYTES_MAX)
        .max_encoding_message_size(limits::MESSAGE_BYTES_MAX);
    let operator = OperatorServiceServer::new(frontend)
        .accept_compressed(Gzip)
        .send_compressed(Gzip)
        .max_decoding_message_size(limits::MESSAGE_BYTES_MAX);
    let (reporter, health) = tonic_health::server::health_reporter();
    for name in services() {
        reporter.set_service_status(name, ServingStatus::Serving).await;
    }
    let health = health.accept_compressed(Gzip).send_compressed(Gzip);
    let routes = Routes::new(Observed::new(workflow, metrics.clone()))
        .add_service(Observed::new(operator, metrics))
        .add_service(health);
    (routes, reporter)
}

/// Names that health knows: the whole server, and each service.
#[must_use]
pub fn services() -> [&'static str; 3] {
    [
        "",
        <WorkflowServiceServer<Frontend> as NamedService>::NAME,
        <OperatorServiceServer<Frontend> as NamedService>::NAME,
    ]
}
