//! One nats-server, or three that are a cluster, with the stream.

use super::plan::Storage;
use crate::peer::ours::STREAM;
use crate::server::{Port, Process};
use anyhow::{Context, Result, bail};
use async_nats::jetstream::{self, stream};
use nix::unistd::Pid;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A cluster elects its leaders first, which takes some seconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// The servers. Dropping them kills them.
#[derive(Debug)]
pub(crate) struct Cluster {
    nodes: Vec<Node>,
}

#[derive(Debug)]
struct Node {
    /// Killed before its store goes.
    process: Process,
    port: Port,
    _store: TempDir,
}

impl Cluster {
    /// Starts so many servers, and makes the stream with as many replicas.
    pub(crate) fn start(servers: usize, storage: Storage) -> Result<Self> {
        let reserve = || (0..servers).map(|_| Port::reserve()).collect::<Result<Vec<_>>>();
        let (ports, routes) = (reserve()?, reserve()?);
        let peers: Vec<String> = routes.iter().map(Port::url).collect();
        let nodes = ports.into_iter().zip(&routes).enumerate().map(|(index, (port, route))| {
            let store = TempDir::with_prefix("jetring-perf-")?;
            let mut config = format!(
                "listen: \"{}\"\nserver_name: node_{index}\njetstream {{ store_dir: {:?} }}\n",
                port.address(),
                store.path().join("store"),
            );
            if servers > 1 {
                let (listen, routes) = (route.address(), peers.join(", "));
                config += &format!("cluster {{ name: perf, listen: \"{listen}\", routes: [{routes}] }}\n");
            }
            Ok(Node { process: Process::start(&config, store.path())?, port, _store: store })
        });
        let cluster = Self { nodes: nodes.collect::<Result<_>>()? };
        cluster.make_stream(storage)?;
        Ok(cluster)
    }

    /// Of the server that everybody connects to, be it the stream's leader or not.
    pub(crate) fn url(&self) -> String {
        self.nodes[0].port.url()
    }

    pub(crate) fn pids(&self) -> impl Iterator<Item = Pid> {
        self.nodes.iter().map(|node| node.process.pid())
    }

    fn make_stream(&self, storage: Storage) -> Result<()> {
        let wanted = stream::Config {
            name: STREAM.to_owned(),
            subjects: vec!["event.1.>".to_owned()],
            storage: match storage {
                Storage::File => stream::StorageType::File,
                Storage::Memory => stream::StorageType::Memory,
            },
            num_replicas: self.nodes.len(),
            allow_direct: true,
            allow_batch_publish: true,
            ..Default::default()
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let start = Instant::now();
        loop {
            let made = runtime.block_on(async {
                let client = async_nats::connect(self.url()).await?;
                jetstream::new(client).create_stream(wanted.clone()).await.context("making the stream")
            });
            match made {
                Ok(_) => return Ok(()),
                Err(error) if start.elapsed() > PATIENCE => bail!("nats-server does not answer: {error:#}"),
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }
}
