//! Sockets behind two object-safe traits: every server accepts through a [`Listener`], every client connects through a
//! [`Connector`]. A cut link, a simulated network or TLS are other implementations, not other servers.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes in both directions.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// An open connection.
pub struct Connection {
    io: Box<dyn Io>,
    local: Option<SocketAddr>,
    peer: Option<SocketAddr>,
}

impl Connection {
    /// Over any byte stream.
    #[must_use]
    pub fn new(io: impl Io + 'static, local: Option<SocketAddr>, peer: Option<SocketAddr>) -> Self {
        Self { io: Box::new(io), local, peer }
    }

    /// Address on this side.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.local
    }

    /// Address of the other side.
    #[must_use]
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.peer
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

/// Where connections arrive.
#[async_trait]
pub trait Listener: Send + Sync {
    /// Waits for the next connection.
    async fn accept(&self) -> io::Result<Connection>;

    /// Where it listens: the real port when 0 was asked for.
    fn local_addr(&self) -> io::Result<SocketAddr>;
}

/// How connections are made.
#[async_trait]
pub trait Connector: Send + Sync {
    /// Connects to `host:port`.
    async fn connect(&self, address: &str) -> io::Result<Connection>;
}

/// Waits for the next connection and outlives failed attempts: what a server's accept loop wants.
pub async fn accept_next(listener: &dyn Listener) -> Connection {
    loop {
        match listener.accept().await {
            Ok(connection) => return connection,
            // The peer gave up between its SYN and our accept: its problem.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionAborted
                        | io::ErrorKind::ConnectionReset
                        | io::ErrorKind::ConnectionRefused
                        | io::ErrorKind::Interrupted
                ) => {}
            Err(error) => {
                // Out of descriptors or memory: spinning would make it worse.
                tracing::warn!(%error, "cannot accept connections; trying again");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// TCP, without Nagle's delay.
pub struct TcpListener(tokio::net::TcpListener);

impl TcpListener {
    /// Listens at `address`; port 0 takes a free one.
    ///
    /// # Errors
    /// The port is taken or not ours.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        tokio::net::TcpListener::bind(address).await.map(Self)
    }

    /// Takes over a listener of [`reserve`].
    ///
    /// # Errors
    /// The runtime refuses it.
    pub fn from_std(listener: std::net::TcpListener) -> io::Result<Self> {
        tokio::net::TcpListener::from_std(listener).map(Self)
    }
}

/// Takes a port before there is a runtime to accept on it: a process that needs several takes all or starts none.
///
/// # Errors
/// The port is taken or not ours.
pub fn reserve(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

#[async_trait]
impl Listener for TcpListener {
    async fn accept(&self) -> io::Result<Connection> {
        let (stream, peer) = self.0.accept().await?;
        stream.set_nodelay(true)?;
        let local = stream.local_addr().ok();
        Ok(Connection::new(stream, local, Some(peer)))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// TCP, without Nagle's delay.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpConnector;

#[async_trait]
impl Connector for TcpConnector {
    async fn connect(&self, address: &str) -> io::Result<Connection> {
        let stream = tokio::net::TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (local, peer) = (stream.local_addr().ok(), stream.peer_addr().ok());
        Ok(Connection::new(stream, local, peer))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn bytes_and_addresses_arrive() {
        let listener = TcpListener::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let target = address.to_string();
        let (mut there, here) = futures::join!(accept_next(&listener), TcpConnector.connect(&target));
        let mut here = here.unwrap();
        assert_eq!(here.peer_addr(), Some(address));
        assert_eq!(there.peer_addr(), here.local_addr());
        here.write_all(b"hello").await.unwrap();
        here.shutdown().await.unwrap();
        let mut text = String::new();
        there.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "hello");
    }

    #[tokio::test]
    async fn a_taken_port_is_an_error() {
        let listener = TcpListener::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let again = TcpListener::bind(listener.local_addr().unwrap()).await;
        assert_eq!(again.err().map(|error| error.kind()), Some(io::ErrorKind::AddrInUse));
    }
}
