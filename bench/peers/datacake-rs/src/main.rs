//! Replicated puts of the Rust system: nodes in one process, over loopback, driven by lines on standard input.
//!
//!   bench-datacake-rs NODES memory|sqlite DIRECTORY
//!
//! Prints `ready`, then answers each line `put|del LEVEL WRITERS SECONDS COUNT` (WRITERS 0: one thread that waits for each
//! write; COUNT 0: no limit) with
//!
//!   row datacake-rs NODES STORAGE OP LEVEL WRITERS OPS/S CPU_US DONE FAILED
//!
//! or `unavailable REASON` when the first write fails. These are the lines of bench/store.c.

use std::io::BufRead;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{bail, Context, Result};
use datacake::eventual_consistency::test_utils::MemStore;
use datacake::eventual_consistency::{
    EventuallyConsistentStore, EventuallyConsistentStoreExtension, ReplicatorKeyspaceHandle, Storage,
};
use datacake::node::{ConnectionConfig, Consistency, DCAwareSelector, DatacakeNode, DatacakeNodeBuilder};
use datacake::sqlite::SqliteStorage;

const VALUE_BYTES: usize = 100;
const KEYS: u64 = 100_000;

struct Cluster<S: Storage> {
    nodes: Vec<DatacakeNode>,
    stores: Vec<EventuallyConsistentStore<S>>,
}

/// Ports that were free a moment ago: this system does not take port 0.
fn free_addresses(count: usize) -> Result<Vec<SocketAddr>> {
    let listeners = (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<Vec<_>, _>>()?;
    Ok(listeners.iter().map(|listener| listener.local_addr()).collect::<Result<Vec<_>, _>>()?)
}

impl<S: Storage + Send + Sync + 'static> Cluster<S> {
    async fn start(storages: Vec<S>) -> Result<Self> {
        let addresses = free_addresses(storages.len())?;
        let mut nodes = Vec::new();
        for (i, address) in addresses.iter().enumerate() {
            let seeds = addresses.iter().filter(|seed| *seed != address).map(ToString::to_string);
            let config = ConnectionConfig::new(*address, *address, seeds);
            nodes.push(DatacakeNodeBuilder::<DCAwareSelector>::new(i as u8 + 1, config).connect().await?);
        }
        let ids: Vec<u8> = (1..=nodes.len() as u8).collect();
        for (i, node) in nodes.iter().enumerate() {
            let others = ids.iter().copied().filter(|id| *id as usize != i + 1).collect::<Vec<_>>();
            node.wait_for_nodes(&others, Duration::from_secs(30)).await?;
        }
        let mut stores = Vec::new();
        for (node, storage) in nodes.iter().zip(storages) {
            stores.push(node.add_extension(EventuallyConsistentStoreExtension::new(storage)).await?);
        }
        Ok(Cluster { nodes, stores })
    }

    async fn stop(self) {
        drop(self.stores);
        for node in self.nodes {
            node.shutdown().await;
        }
    }
}

/// One row: what to do, and how far it is.
struct Load {
    is_delete: bool,
    level: Consistency,
    end: Instant,
    count: u64,
    begun: AtomicU64,
    done: AtomicU64,
    failed: AtomicU64,
}

impl Load {
    async fn write<S: Storage + Send + Sync + 'static>(&self, store: &ReplicatorKeyspaceHandle<S>, n: u64) -> Result<()> {
        let key = n % KEYS;
        if self.is_delete {
            store.del(key, self.level).await?;
        } else {
            store.put(key, vec![b'v'; VALUE_BYTES], self.level).await?;
        }
        Ok(())
    }

    async fn run<S: Storage + Send + Sync + 'static>(&self, store: &ReplicatorKeyspaceHandle<S>) {
        loop {
            let n = self.begun.fetch_add(1, Ordering::Relaxed);
            if n >= self.count || Instant::now() >= self.end {
                return;
            }
            let outcome = if self.write(store, n).await.is_ok() { &self.done } else { &self.failed };
            outcome.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn cpu_seconds() -> f64 {
    // SAFETY: getrusage fills the struct that it is given.
    let usage = unsafe {
        let mut usage = std::mem::zeroed::<libc::rusage>();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 * 1e-6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

fn parse_level(text: &str) -> Result<Consistency> {
    Ok(match text {
        "none" => Consistency::None,
        "one" => Consistency::One,
        "two" => Consistency::Two,
        "three" => Consistency::Three,
        "quorum" => Consistency::Quorum,
        "all" => Consistency::All,
        _ => bail!("there is no level {text}"),
    })
}

async fn answer<S: Storage + Send + Sync + 'static>(cluster: &Cluster<S>, who: &str, line: &str) -> Result<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [op, level, writers, seconds, count] = words[..] else { bail!("not a row: {line}") };
    let (writer_count, limit) = (writers.parse::<usize>()?, count.parse::<u64>()?);
    let store = cluster.stores[0].handle_with_keyspace("bench");
    let mut load = Load {
        is_delete: op == "del",
        level: parse_level(level)?,
        end: Instant::now(),
        count: if limit == 0 { u64::MAX } else { limit },
        begun: AtomicU64::new(0),
        done: AtomicU64::new(0),
        failed: AtomicU64::new(0),
    };
    if let Err(error) = load.write(&store, 0).await {
        return Ok(format!("unavailable {error}"));
    }
    let (begin, cpu) = (Instant::now(), cpu_seconds());
    load.end = begin + Duration::from_secs_f64(seconds.parse()?);
    let load = Arc::new(load);
    if writer_count == 0 {
        load.run(&store).await; // here: the thread in block_on, as a program's main function
    } else {
        let tasks = (0..writer_count).map(|_| {
            let (load, store) = (load.clone(), store.clone());
            tokio::spawn(async move { load.run(&store).await })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await?;
        }
    }
    let (elapsed, cpu) = (begin.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    let (done, failed) = (load.done.load(Ordering::Relaxed), load.failed.load(Ordering::Relaxed));
    let (rate, cpu_us) = (done as f64 / elapsed, cpu * 1e6 / done.max(1) as f64);
    Ok(format!("row datacake-rs {who} {op} {level} {writers} {rate:.0} {cpu_us:.2} {done} {failed}"))
}

async fn serve<S: Storage + Send + Sync + 'static>(storages: Vec<S>, who: String) -> Result<()> {
    let cluster = Cluster::start(storages).await?;
    println!("ready");
    for line in std::io::stdin().lock().lines() {
        println!("{}", answer(&cluster, &who, &line?).await?);
    }
    cluster.stop().await;
    Ok(())
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, count, kind, directory] = &arguments[..] else {
        bail!("usage: bench-datacake-rs NODES memory|sqlite DIRECTORY")
    };
    let count: usize = count.parse().context("NODES")?;
    let who = format!("{count} {kind}");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match kind.as_str() {
            "memory" => serve((0..count).map(|_| MemStore::default()).collect(), who).await,
            "sqlite" => {
                let mut storages = Vec::new();
                for i in 0..count {
                    storages.push(SqliteStorage::open(format!("{directory}/{i}.db")).await?);
                }
                serve(storages, who).await
            }
            _ => bail!("there is no storage {kind}"),
        }
    })
}
