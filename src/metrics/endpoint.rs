//! An HTTP endpoint for metrics, for programs that serve no HTTP of their own.
//!
//! A service that does serve HTTP has a better place for its metrics: a handler of its own that returns what
//! [`prometheus::TextEncoder`] makes of its registry. This is for the others, and for the command-line tool.
//!
//! It has a thread and a runtime of its own, as the workers do, so a scrape is answered also where there is no runtime, or one
//! that is busy. Whoever can reach the address can scrape: there is no password and no TLS, and so the address should be one of the
//! loopback, or of a network that only Prometheus is in. What a caller can make it do is bounded: so many connections at a time,
//! one request each, and so long for it.

use crate::foreign::contained;
use crate::fork::Home;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, server::conn::http1};
use hyper_util::rt::TokioIo;
use prometheus::{Registry, TEXT_FORMAT, TextEncoder};
use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// Where the metrics are, as Prometheus expects it.
const PATH: &str = "/metrics";

/// Connections that are served at a time; more wait in the system's queue. Two of Prometheus and a curious operator are three.
const CONNECTIONS_MAX: usize = 16;

/// A connection is closed after so long, whatever it is at: the default limit of a scrape.
const CONNECTION_LIFE: Duration = Duration::from_secs(10);

/// After a connection that could not be accepted, since the next one fails at once where descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Serves the metrics of a registry as `http://<address>/metrics`, in the text format of Prometheus, until it is dropped.
///
/// There is neither a password nor TLS, so think of who can reach the address; `127.0.0.1` with a port is safe.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let bus = jetring::Bus::start(jetring::Config::new("null:", "main", 1)?)?;
/// let registry = prometheus::Registry::new();
/// bus.register(&registry)?;
/// let endpoint = jetring::MetricsEndpoint::start("127.0.0.1:0", &registry)?;    // 0: any free port
/// println!("metrics at {}", endpoint.url());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "it serves until it is dropped"]
pub struct MetricsEndpoint {
    address: SocketAddr,
    home: Home,
    /// Dropping it stops the thread.
    stop: Option<oneshot::Sender<Infallible>>,
    thread: Option<JoinHandle<()>>,
}

impl MetricsEndpoint {
    /// Begins to serve at an address. When this returns, the address is taken.
    ///
    /// # Errors
    ///
    /// When there is no such address, when it is taken, or when the system refuses a thread.
    pub fn start(address: impl ToSocketAddrs, registry: &Registry) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let registry = registry.clone();
        let listen = async move {
            match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => accept(listener, registry).await,
                Err(error) => {
                    contained(|| tracing::error!(%error, "the metrics endpoint could not be started"));
                }
            }
        };
        let thread = std::thread::Builder::new().name("jetring-metrics".to_owned()).spawn(move || {
            let serve = async {
                tokio::select! {
                    _ = stopped => {}
                    () = listen => {}
                }
            };
            contained(move || runtime.block_on(serve));
        })?;
        Ok(Self { address, home: Home::here(), stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens: with the real port if it was to be any.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What to give to Prometheus, `curl` or `jetring stats`.
    pub fn url(&self) -> String {
        format!("http://{}{PATH}", self.address)
    }
}

impl Drop for MetricsEndpoint {
    fn drop(&mut self) {
        if !self.home.is_here() {
            // The thread is the parent's. Stopping it would ring at a runtime that is not here, and there is nobody to wait for.
            return std::mem::forget((self.stop.take(), self.thread.take()));
        }
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // A panic of its thread has been told of already; it must not become one of ours.
            let _ = thread.join();
        }
    }
}

async fn accept(listener: tokio::net::TcpListener, registry: Registry) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut was_well = true;
    while let Ok(slot) = Arc::clone(&slots).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                was_well = true;
                tokio::spawn(answer(stream, registry.clone(), slot));
            }
            Err(error) => {
                if std::mem::replace(&mut was_well, false) {
                    contained(|| tracing::warn!(%error, "the metrics endpoint cannot accept connections"));
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves one connection, and one request of it, so that no idle one keeps a slot.
async fn answer(stream: TcpStream, registry: Registry, _slot: OwnedSemaphorePermit) {
    let service = service_fn(|request: Request<Incoming>| {
        let response = respond(request.method(), request.uri().path(), &registry);
        async { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .keep_alive(false)
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(stream), service);
    // A caller that goes away or speaks no HTTP harms only itself.
    if let Ok(Err(error)) = tokio::time::timeout(CONNECTION_LIFE, connection).await {
        contained(|| tracing::debug!(%error, "a connection to the metrics endpoint failed"));
    }
}

fn respond(method: &Method, path: &str, registry: &Registry) -> Response<Full<Bytes>> {
    if path != PATH {
        return say(StatusCode::NOT_FOUND, format!("the metrics are at {PATH}\n"));
    }
    if !matches!(*method, Method::GET | Method::HEAD) {
        let mut response = say(StatusCode::METHOD_NOT_ALLOWED, "metrics can only be read\n".to_owned());
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    // The registry is the application's, and may have collectors of its own.
    let gathered = contained(|| TextEncoder::new().encode_to_string(&registry.gather()));
    let Some(encoded) = gathered else {
        return say(
            StatusCode::INTERNAL_SERVER_ERROR,
            "a collector of the registry has panicked\n".to_owned(),
        );
    };
    match encoded {
        Ok(text) => {
            let mut response = say(StatusCode::OK, text);
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(TEXT_FORMAT));
            response
        }
        Err(error) => say(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

fn say(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use prometheus::IntCounter;
    use std::io::{Read, Write};
    use std::net::TcpStream;

    /// A registry with a counter at 3, served.
    fn endpoint() -> MetricsEndpoint {
        let registry = Registry::new();
        let counter = IntCounter::new("apples_total", "Apples.").unwrap();
        counter.inc_by(3);
        registry.register(Box::new(counter)).unwrap();
        MetricsEndpoint::start("127.0.0.1:0", &registry).unwrap()
    }

    /// What comes back for a request, and that the connection ends then.
    fn ask(endpoint: &MetricsEndpoint, request: &str) -> String {
        let mut stream = TcpStream::connect(endpoint.address()).unwrap();
        write!(stream, "{request} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        response
    }

    #[test]
    fn metrics_are_served_as_prometheus_reads_them() {
        let endpoint = endpoint();
        let response = ask(&endpoint, "GET /metrics");
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(head.to_lowercase().contains("\r\ncontent-type: text/plain; version=0.0.4"), "{head}");
        assert_eq!(body, "# HELP apples_total Apples.\n# TYPE apples_total counter\napples_total 3\n");
        assert_eq!(endpoint.url(), format!("http://{}/metrics", endpoint.address()));
        let response = ask(&endpoint, "HEAD /metrics");
        assert!(response.starts_with("HTTP/1.1 200 OK\r\n") && response.ends_with("\r\n\r\n"), "{response}");
    }

    #[test]
    fn nothing_else_is_served() {
        let endpoint = endpoint();
        assert!(ask(&endpoint, "GET /").starts_with("HTTP/1.1 404 "));
        let refused = ask(&endpoint, "POST /metrics");
        assert!(refused.starts_with("HTTP/1.1 405 ") && refused.contains("allow: GET, HEAD"), "{refused}");
        assert!(ask(&endpoint, "hello\r\n").starts_with("HTTP/1.1 400 "));
    }

    #[test]
    fn callers_that_say_nothing_keep_nobody_out_below_the_limit() {
        let endpoint = endpoint();
        let silent = [(); CONNECTIONS_MAX - 1].map(|()| TcpStream::connect(endpoint.address()).unwrap());
        for _ in 0..3 {
            assert!(ask(&endpoint, "GET /metrics").ends_with("apples_total 3\n"));
        }
        drop(silent);
    }

    #[test]
    fn the_address_is_free_again_when_the_endpoint_is_dropped() {
        let endpoint = endpoint();
        let address = endpoint.address();
        let taken = MetricsEndpoint::start(address, &Registry::new()).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
        drop(endpoint);
        assert_eq!(TcpStream::connect(address).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(MetricsEndpoint::start(address, &Registry::new()).unwrap().address(), address);
    }
}
