//! The Kademlia operations.

use std::collections::{BTreeSet, HashMap};

use libp2p::{
    identify,
    kad::{
        self, store::MemoryStore, Event, GetClosestPeersOk, GetProvidersOk, GetRecordOk, Mode,
        PeerRecord, PutRecordError, QueryId, QueryResult, Quorum, Record, RecordKey,
    },
    swarm::behaviour::toggle::Toggle,
    PeerId, StreamProtocol,
};
use serde_json::{json, Value};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc::{unbounded_channel, UnboundedReceiver, UnboundedSender};

use crate::{Failure, Flags};

pub const ID: StreamProtocol = StreamProtocol::new("/ipfs/kad/1.0.0");
pub const OPS: [&str; 5] = [
    "kad-put",
    "kad-get",
    "provide",
    "find-providers",
    "find-peer",
];

type Table = kad::Behaviour<MemoryStore>;
pub type Behaviour = Toggle<Table>;

pub fn behaviour(peer: PeerId, mode: &str) -> Result<Behaviour, Failure> {
    let mode = match mode {
        "off" => return Ok(None.into()),
        "server" => Mode::Server,
        "client" => Mode::Client,
        other => return Err(format!("--dht {other}").into()),
    };
    let mut config = kad::Config::new(ID);
    config.set_periodic_bootstrap_interval(None);
    let mut table = Table::with_config(peer, MemoryStore::new(peer), config);
    table.set_mode(Some(mode));
    Ok(Some(table).into())
}

/// A peer that we dialled gets into the table by itself; where one that dialled us can be reached, only identify tells.
pub fn learn(kad: &mut Behaviour, peer: PeerId, info: &identify::Info) {
    if let Some(table) = kad.as_mut().filter(|_| info.protocols.contains(&ID)) {
        for address in &info.listen_addrs {
            table.add_address(&peer, address.clone());
        }
    }
}

/// Whether the peer is in the table; without a table there is nothing to wait for.
pub fn knows(kad: &mut Behaviour, peer: PeerId) -> bool {
    kad.as_mut().is_none_or(|table| {
        table.kbucket(peer).is_some_and(|bucket| {
            bucket
                .iter()
                .any(|entry| *entry.node.key.preimage() == peer)
        })
    })
}

type Told = Result<QueryResult, Failure>;

/// What an operation wants to be started, and where it hears what comes of it.
pub struct Query {
    start: Box<dyn FnOnce(&mut Table) -> Result<QueryId, Failure> + Send>,
    told: UnboundedSender<Told>,
}

/// The queries that run.
#[derive(Default)]
pub struct Queries(HashMap<QueryId, UnboundedSender<Told>>);

impl Queries {
    pub fn start(&mut self, kad: &mut Behaviour, query: Query) {
        let table = kad.as_mut().ok_or_else(|| "there is no DHT".into());
        match table.and_then(query.start) {
            Ok(id) => drop(self.0.insert(id, query.told)),
            Err(error) => drop(query.told.send(Err(error))),
        }
    }

    pub fn heard(&mut self, event: &Event) {
        if let Event::OutboundQueryProgressed {
            id, result, step, ..
        } = event
        {
            if let Some(told) = self.0.get(id) {
                let _ = told.send(Ok(result.clone()));
            }
            if step.last {
                self.0.remove(id);
            }
        }
    }
}

/// The operations' half: what they ask goes to the task that turns the swarm.
pub struct Asker(pub UnboundedSender<Query>);

impl Asker {
    fn ask(
        &self,
        start: impl FnOnce(&mut Table) -> Result<QueryId, Failure> + Send + 'static,
    ) -> UnboundedReceiver<Told> {
        let (told, hearing) = unbounded_channel();
        let _ = self.0.send(Query {
            start: Box::new(start),
            told,
        });
        hearing
    }

    pub async fn run(&self, op: &str, dialled: PeerId, flags: &Flags) -> Result<Value, Failure> {
        let key = flags.text("key", "");
        match op {
            "kad-put" => self.put(key, flags.text("value", "")).await,
            "kad-get" => self.get(key).await,
            "provide" => self.provide(multihash(&key), dialled).await,
            "find-providers" => self.find_providers(multihash(&key)).await,
            "find-peer" => {
                let target = flags.text("target", &dialled.to_string());
                self.find_peer(target.parse()?).await
            }
            _ => Err("no such operation".into()),
        }
    }

    async fn put(&self, key: String, value: String) -> Result<Value, Failure> {
        let record = Record::new(key.into_bytes(), value.into_bytes());
        // To want all twenty is to wait for every peer there is; one that acknowledges is enough.
        let mut hearing = self.ask(move |table| Ok(table.put_record(record, Quorum::All)?));
        while let Some(told) = hearing.recv().await {
            if let QueryResult::PutRecord(Err(
                PutRecordError::QuorumFailed { ref success, .. }
                | PutRecordError::Timeout { ref success, .. },
            )) = told?
            {
                if success.is_empty() {
                    return Err("nobody took it".into());
                }
            }
        }
        Ok(json!({}))
    }

    async fn get(&self, key: String) -> Result<Value, Failure> {
        let mut hearing = self.ask(|table| Ok(table.get_record(key.into_bytes().into())));
        let mut best: Option<Vec<u8>> = None;
        while let Some(told) = hearing.recv().await {
            match told? {
                // Without a peer it is what this process put itself.
                QueryResult::GetRecord(Ok(GetRecordOk::FoundRecord(PeerRecord {
                    peer: Some(_),
                    record,
                }))) => best = best.max(Some(record.value)),
                QueryResult::GetRecord(Err(error)) => return Err(error.into()),
                _ => {}
            }
        }
        let value = String::from_utf8(best.ok_or("nobody has it")?)?;
        Ok(json!({ "value": value }))
    }

    async fn provide(&self, key: RecordKey, dialled: PeerId) -> Result<Value, Failure> {
        let provided = key.clone();
        let mut hearing = self.ask(move |table| Ok(table.start_providing(provided)?));
        while let Some(told) = hearing.recv().await {
            if let QueryResult::StartProviding(Err(error)) = told? {
                return Err(error.into());
            }
        }
        // It is said to be done when the streams have yet to open. A lookup opens one behind each, and has to be answered.
        let mut hearing = self.ask(move |table| {
            // Or this process would later find itself without asking anybody.
            table.stop_providing(&key);
            Ok(table.get_closest_peers(dialled))
        });
        while let Some(told) = hearing.recv().await {
            if let QueryResult::GetClosestPeers(answered) = told? {
                if answered?.peers.is_empty() {
                    return Err("nobody took it".into());
                }
            }
        }
        Ok(json!({}))
    }

    async fn find_providers(&self, key: RecordKey) -> Result<Value, Failure> {
        let mut hearing = self.ask(move |table| Ok(table.get_providers(key)));
        let mut found = BTreeSet::new();
        while let Some(told) = hearing.recv().await {
            if let QueryResult::GetProviders(told) = told? {
                if let GetProvidersOk::FoundProviders { providers, .. } = told? {
                    found.extend(providers.iter().map(PeerId::to_string));
                }
            }
        }
        if found.is_empty() {
            return Err("nobody provides it".into());
        }
        Ok(json!({ "providers": found }))
    }

    /// Of a peer that is closest and answers, the query has the addresses that other peers told.
    async fn find_peer(&self, target: PeerId) -> Result<Value, Failure> {
        let mut hearing = self.ask(move |table| Ok(table.get_closest_peers(target)));
        let mut addresses = BTreeSet::new();
        while let Some(told) = hearing.recv().await {
            if let QueryResult::GetClosestPeers(told) = told? {
                let GetClosestPeersOk { peers, .. } = told?;
                for info in peers.into_iter().filter(|info| info.peer_id == target) {
                    let full = info.addrs.into_iter().map(|bare| bare.with_p2p(target));
                    addresses.extend(full.flatten().map(|address| address.to_string()));
                }
            }
        }
        if addresses.is_empty() {
            return Err("nobody knows its addresses".into());
        }
        Ok(json!({ "peer": target.to_string(), "addrs": addresses }))
    }
}

/// Providers are found under the bare multihash: sha2-256, 32 bytes.
fn multihash(key: &str) -> RecordKey {
    [&[0x12, 32], Sha256::digest(key).as_slice()]
        .concat()
        .into()
}
