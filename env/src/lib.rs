//! The seams: everything through which a node touches the world it runs in. Production gives it the system's clock,
//! entropy, sockets and threads; the simulator gives it its own. Nothing here is global: each is handed in, so that several
//! regions live in one process, and no other crate asks the system for time, random numbers or sockets.

pub mod clock;
pub mod entropy;
pub mod executor;
pub mod grpc;
pub mod net;

pub use clock::{Clock, ManualClock, SystemClock};
pub use entropy::{Entropy, OsEntropy, SeededEntropy};
pub use executor::{Stopped, StoreExecutor, StorePool};
pub use net::{Connection, Connector, Listener, TcpConnector, TcpListener};
