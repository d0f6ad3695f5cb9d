//! rust-libp2p as the other side of Air's interop matrix. The command line is in README.md.

use std::{
    collections::HashMap, env, error::Error, process::ExitCode, time::Duration, time::Instant,
};

use futures::{future, AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::{
    core::{
        muxing::StreamMuxerBox, transport::upgrade::Version, transport::Boxed,
        upgrade::SelectUpgrade,
    },
    identify, identity, multiaddr, noise, ping, plaintext, swarm,
    swarm::{dial_opts::DialOpts, NetworkBehaviour, SwarmEvent},
    tcp, tls, websocket, yamux, Multiaddr, PeerId, StreamProtocol, Swarm, Transport,
};
use libp2p_mplex as mplex;
use libp2p_stream as raw;
use serde_json::{json, Value};
use tokio::{
    io::AsyncReadExt as _,
    sync::mpsc::{unbounded_channel, UnboundedReceiver, UnboundedSender},
    time::timeout,
};

mod kad;
mod serve;

type Failure = Box<dyn Error + Send + Sync>;

const ECHO: StreamProtocol = StreamProtocol::new("/echo/1.0.0");
const PERF: StreamProtocol = StreamProtocol::new("/perf/1.0.0");
const CHUNK: usize = 64 * 1024;
const BLOCK: usize = 65_521;
const TABLE_WAIT: Duration = Duration::from_secs(10);

/// A stream's bytes are a window into one repeated block, so that a byte out of place never goes unseen.
fn pattern() -> Vec<u8> {
    (0..2 * BLOCK)
        .map(|at| at % BLOCK)
        .map(|at| (at * 167 + (at >> 8)) as u8)
        .collect()
}

#[derive(NetworkBehaviour)]
struct Behaviour {
    identify: identify::Behaviour,
    kad: kad::Behaviour,
    ping: ping::Behaviour,
    serve: serve::Behaviour,
    stream: raw::Behaviour,
}

#[derive(Default)]
struct Flags(HashMap<String, Vec<String>>);

impl Flags {
    fn all(&self, name: &str) -> &[String] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    fn get(&self, name: &str) -> Option<&String> {
        self.all(name).last()
    }

    fn text(&self, name: &str, default: &str) -> String {
        self.get(name)
            .cloned()
            .unwrap_or_else(|| default.to_owned())
    }

    fn number(&self, name: &str, default: usize) -> Result<usize, Failure> {
        Ok(self.get(name).map_or(Ok(default), |text| text.parse())?)
    }

    fn ops(&self) -> Vec<String> {
        let ops = self.text("ops", "identify,ping,echo,perf");
        ops.split(',')
            .filter(|op| !op.is_empty())
            .map(str::to_owned)
            .collect()
    }

    fn asks_dht(&self) -> bool {
        self.ops().iter().any(|op| kad::OPS.contains(&op.as_str()))
    }

    /// Operations on the DHT imply a client of it.
    fn dht(&self) -> String {
        let mode = self.text("dht", "off");
        if mode == "off" && self.asks_dht() {
            "client".to_owned()
        } else {
            mode
        }
    }
}

fn say(line: Value) {
    println!("{line}");
}

fn identity_of(seed: Option<&String>) -> Result<identity::Keypair, Failure> {
    let Some(seed) = seed else {
        return Ok(identity::Keypair::generate_ed25519());
    };
    let bytes = (0..seed.len() / 2)
        .map(|at| u8::from_str_radix(&seed[2 * at..2 * at + 2], 16))
        .collect::<Result<Vec<u8>, _>>()?;
    Ok(identity::Keypair::ed25519_from_bytes(bytes)?)
}

/// One transport with the chosen security and muxers on top; each combination is a type of its own.
macro_rules! upgraded {
    ($transport:expr, $security:expr, $muxer:expr) => {{
        let secured = $transport.upgrade(Version::V1Lazy).authenticate($security);
        let many = mplex::Config::new()
            .set_max_num_streams(1024)
            .set_max_buffer_size(1024)
            .to_owned();
        let limit = Duration::from_secs(10);
        match $muxer {
            "yamux" => secured
                .multiplex(yamux::Config::default())
                .timeout(limit)
                .map(boxed)
                .boxed(),
            "mplex" => secured.multiplex(many).timeout(limit).map(boxed).boxed(),
            "both" => secured
                .multiplex(SelectUpgrade::new(yamux::Config::default(), many))
                .timeout(limit)
                .map(boxed)
                .boxed(),
            other => return Err(format!("--muxer {other}").into()),
        }
    }};
}

fn boxed<M, P>((peer, muxer): (PeerId, M), _: P) -> (PeerId, StreamMuxerBox)
where
    M: libp2p::core::muxing::StreamMuxer + Send + 'static,
    M::Substream: Send + 'static,
    M::Error: Send + Sync + 'static,
{
    (peer, StreamMuxerBox::new(muxer))
}

fn transport(
    key: &identity::Keypair,
    flags: &Flags,
) -> Result<Boxed<(PeerId, StreamMuxerBox)>, Failure> {
    let plain = || tcp::tokio::Transport::new(tcp::Config::default().nodelay(true));
    let web = || websocket::Config::new(plain());
    let muxer = flags.text("muxer", "yamux");
    let muxer = muxer.as_str();
    let (first, second) = match flags.text("security", "noise").as_str() {
        "noise" => (
            upgraded!(web(), noise::Config::new(key)?, muxer),
            upgraded!(plain(), noise::Config::new(key)?, muxer),
        ),
        "tls" => (
            upgraded!(web(), tls::Config::new(key)?, muxer),
            upgraded!(plain(), tls::Config::new(key)?, muxer),
        ),
        "plaintext" => (
            upgraded!(web(), plaintext::Config::new(key), muxer),
            upgraded!(plain(), plaintext::Config::new(key), muxer),
        ),
        other => return Err(format!("--security {other}").into()),
    };
    Ok(first
        .or_transport(second)
        .map(|either, _| either.into_inner())
        .boxed())
}

fn swarm_of(flags: &Flags) -> Result<Swarm<Behaviour>, Failure> {
    let key = identity_of(flags.get("seed"))?;
    let peer = key.public().to_peer_id();
    let about = identify::Config::new("ipfs/0.1.0".into(), key.public())
        .with_agent_version("rust-libp2p/0.57.1".into());
    let behaviour = Behaviour {
        identify: identify::Behaviour::new(about),
        kad: kad::behaviour(peer, &flags.dht())?,
        // The operation asks for many at once; a listener keeps the usual rhythm.
        ping: ping::Behaviour::new(ping::Config::new().with_interval(match flags.get("dial") {
            Some(_) => Duration::from_millis(1),
            None => Duration::from_secs(15),
        })),
        serve: serve::Behaviour,
        stream: raw::Behaviour::new(),
    };
    // Ten idle seconds are the default, and a test that waits for its next turn must not lose its listener's connection.
    let config = swarm::Config::with_tokio_executor()
        .with_idle_connection_timeout(Duration::from_secs(600))
        .with_max_negotiating_inbound_streams(1024);
    Ok(Swarm::new(transport(&key, flags)?, behaviour, peer, config))
}

/// The swarm, and where it tells what operations wait for.
struct Node {
    swarm: Swarm<Behaviour>,
    queries: kad::Queries,
    identified: UnboundedSender<(PeerId, Result<identify::Info, String>)>,
    pinged: UnboundedSender<(PeerId, Result<Duration, String>)>,
}

/// What the swarm tells while operations run: identify comes once by itself, pings in a row.
struct Told {
    identified: UnboundedReceiver<(PeerId, Result<identify::Info, String>)>,
    pinged: UnboundedReceiver<(PeerId, Result<Duration, String>)>,
}

/// The next that was told of this peer; others may have been dialled as well.
async fn next_of<T>(told: &mut UnboundedReceiver<(PeerId, T)>, peer: PeerId) -> Option<T> {
    while let Some((of, what)) = told.recv().await {
        if of == peer {
            return Some(what);
        }
    }
    None
}

impl Node {
    fn new(flags: &Flags) -> Result<(Node, Told), Failure> {
        let (identified, told_identify) = unbounded_channel();
        let (pinged, told_ping) = unbounded_channel();
        let node = Node {
            swarm: swarm_of(flags)?,
            queries: kad::Queries::default(),
            identified,
            pinged,
        };
        let told = Told {
            identified: told_identify,
            pinged: told_ping,
        };
        Ok((node, told))
    }

    /// Waiting for one event must not lose another, so all of them pass through here.
    async fn step(&mut self) -> SwarmEvent<BehaviourEvent> {
        let event = self.swarm.select_next_some().await;
        let kad = &mut self.swarm.behaviour_mut().kad;
        match &event {
            SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received {
                peer_id,
                info,
                ..
            })) => {
                kad::learn(kad, *peer_id, info);
                let _ = self.identified.send((*peer_id, Ok(info.clone())));
            }
            SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Error {
                peer_id,
                error,
                ..
            })) => {
                let _ = self.identified.send((*peer_id, Err(error.to_string())));
            }
            SwarmEvent::Behaviour(BehaviourEvent::Ping(ping::Event { peer, result, .. })) => {
                let took = result.as_ref().copied().map_err(ping::Failure::to_string);
                let _ = self.pinged.send((*peer, took));
            }
            SwarmEvent::Behaviour(BehaviourEvent::Kad(event)) => self.queries.heard(event),
            // A provider names itself by its external addresses, and by none if it has none.
            SwarmEvent::NewListenAddr { address, .. } if kad.is_enabled() => {
                self.swarm.add_external_address(address.clone());
            }
            _ => {}
        }
        event
    }

    async fn listen(&mut self, wanted: &[String]) -> Result<Vec<Multiaddr>, Failure> {
        for address in wanted {
            self.swarm.listen_on(address.parse()?)?;
        }
        let mut addresses = Vec::new();
        while addresses.len() < wanted.len() {
            if let SwarmEvent::NewListenAddr { address, .. } = self.step().await {
                addresses.push(address.with(multiaddr::Protocol::P2p(*self.swarm.local_peer_id())));
            }
        }
        Ok(addresses)
    }

    async fn connect(&mut self, address: Multiaddr) -> Result<PeerId, Failure> {
        let wanted = DialOpts::from(address);
        let id = wanted.connection_id();
        self.swarm.dial(wanted)?;
        loop {
            match self.step().await {
                SwarmEvent::ConnectionEstablished {
                    connection_id,
                    peer_id,
                    ..
                } if connection_id == id => return Ok(peer_id),
                SwarmEvent::OutgoingConnectionError {
                    connection_id,
                    error,
                    ..
                } if connection_id == id => return Err(format!("{error:?}").into()),
                _ => {}
            }
        }
    }

    /// Waits until the peer is in the routing table: identify has to name the protocol first.
    async fn until_known(&mut self, peer: PeerId, limit: Duration) -> Result<(), Failure> {
        let knowing = async {
            while !kad::knows(&mut self.swarm.behaviour_mut().kad, peer) {
                self.step().await;
            }
        };
        let late = format!("{peer} does not get into the routing table");
        let wait = limit.min(TABLE_WAIT);
        Ok(timeout(wait, knowing).await.map_err(|_| late)?)
    }

    async fn join(&mut self, bootstrap: &[String], limit: Duration) -> Result<(), Failure> {
        for address in bootstrap {
            let peer = timeout(limit, self.connect(address.parse()?)).await??;
            self.until_known(peer, limit).await?;
        }
        Ok(())
    }
}

async fn pour(stream: &mut (impl AsyncWriteExt + Unpin), count: usize) -> Result<(), Failure> {
    let zeroes = [0; CHUNK];
    let mut left = count;
    while left > 0 {
        let length = left.min(CHUNK);
        stream.write_all(&zeroes[..length]).await?;
        left -= length;
    }
    Ok(stream.flush().await?)
}

async fn listen(flags: Flags) -> Result<bool, Failure> {
    let (mut node, _) = Node::new(&flags)?;
    let mut wanted = Vec::new();
    if flags.get("tcp-port").is_some() || flags.get("ws-port").is_none() {
        wanted.push(format!(
            "/ip4/127.0.0.1/tcp/{}",
            flags.text("tcp-port", "0")
        ));
    }
    if let Some(port) = flags.get("ws-port") {
        wanted.push(format!("/ip4/127.0.0.1/tcp/{port}/ws"));
    }
    let mut addresses = node.listen(&wanted).await?;
    // In the order of the command line, whichever came up first.
    addresses.sort_by_key(|address| {
        address
            .iter()
            .any(|part| matches!(part, multiaddr::Protocol::Ws(_)))
    });
    let limit = Duration::from_millis(flags.number("timeout", 30_000)? as u64);
    node.join(flags.all("bootstrap"), limit).await?;
    let mut protocols = vec![
        ECHO,
        identify::PROTOCOL_NAME,
        identify::PUSH_PROTOCOL_NAME,
        ping::PROTOCOL_NAME,
        PERF,
    ];
    if flags.dht() == "server" {
        protocols.push(kad::ID);
    }
    say(json!({
        "event": "listening", "impl": "rust", "peer": node.swarm.local_peer_id().to_string(),
        "addrs": addresses.iter().map(Multiaddr::to_string).collect::<Vec<_>>(),
        "protocols": protocols.iter().map(|name| name.to_string()).collect::<Vec<_>>(),
    }));
    let mut stdin = tokio::io::stdin();
    let mut ignored = [0; 1024];
    loop {
        tokio::select! {
            _ = node.step() => {}
            read = stdin.read(&mut ignored) => if read? == 0 { return Ok(true) },
        }
    }
}

async fn echo_once(
    mut control: raw::Control,
    peer: PeerId,
    number: usize,
    count: usize,
) -> Result<(), Failure> {
    let stream = control.open_stream(peer, ECHO).await?;
    let (mut reader, mut writer) = stream.split();
    let pattern = pattern();
    let writing = async {
        let mut sent = 0;
        while sent < count {
            let (start, length) = ((number + sent) % BLOCK, (count - sent).min(CHUNK / 2));
            writer.write_all(&pattern[start..start + length]).await?;
            sent += length;
        }
        writer.close().await?;
        Ok::<(), Failure>(())
    };
    let reading = async {
        let (mut got, mut buffer) = (0, vec![0; CHUNK / 2]);
        loop {
            let length = reader.read(&mut buffer).await?;
            if length == 0 {
                return Ok::<usize, Failure>(got);
            }
            let start = (number + got) % BLOCK;
            if buffer[..length] != pattern[start..start + length] {
                return Err(format!("echo differs within {length} bytes after byte {got}").into());
            }
            got += length;
        }
    };
    let (_, got) = future::try_join(writing, reading).await?;
    if got != count {
        return Err(format!("echo: {got} bytes of {count} came back").into());
    }
    Ok(())
}

async fn op_echo(control: raw::Control, peer: PeerId, flags: &Flags) -> Result<Value, Failure> {
    let (count, bytes) = (flags.number("count", 1)?, flags.number("bytes", 1024)?);
    let all =
        (0..count).map(|number| tokio::spawn(echo_once(control.clone(), peer, number, bytes)));
    for ended in future::join_all(all).await {
        ended??;
    }
    Ok(json!({"count": count, "bytes": bytes}))
}

async fn op_perf(mut control: raw::Control, peer: PeerId, flags: &Flags) -> Result<Value, Failure> {
    let (up, down) = (flags.number("up", 1 << 20)?, flags.number("down", 1 << 20)?);
    let mut stream = control.open_stream(peer, PERF).await?;
    let start = Instant::now();
    stream.write_all(&(down as u64).to_be_bytes()).await?;
    pour(&mut stream, up).await?;
    stream.close().await?;
    let uploaded = Instant::now();
    let (mut got, mut buffer) = (0, vec![0; CHUNK]);
    loop {
        match stream.read(&mut buffer).await? {
            0 => break,
            length => got += length,
        }
    }
    if got != down {
        return Err(format!("perf: {got} bytes of {down} came down").into());
    }
    Ok(json!({
        "up": up, "down": down, "up_ms": (uploaded - start).as_secs_f64() * 1e3,
        "down_ms": uploaded.elapsed().as_secs_f64() * 1e3,
    }))
}

/// A reset stream takes nothing with it: the next one on the same connection is well.
async fn op_reset(mut control: raw::Control, peer: PeerId) -> Result<Value, Failure> {
    let pattern = pattern();
    for number in 0..20 {
        let mut stream = control.open_stream(peer, ECHO).await?;
        stream.write_all(&pattern[..1000 * number]).await?;
        stream.flush().await?;
        // Dropped without close: that resets it.
    }
    echo_once(control, peer, 7, 100_000).await?;
    Ok(json!({}))
}

async fn dial(flags: Flags) -> Result<bool, Failure> {
    let address: Multiaddr = flags.text("dial", "").parse()?;
    let limit = Duration::from_millis(flags.number("timeout", 30_000)? as u64);
    let (mut node, mut told) = Node::new(&flags)?;
    let control = node.swarm.behaviour().stream.new_control();
    if flags.dht() != "off" {
        node.listen(&["/ip4/127.0.0.1/tcp/0".to_owned()]).await?;
    }
    node.join(flags.all("bootstrap"), limit).await?;
    let start = Instant::now();
    let connected = timeout(limit, node.connect(address.clone())).await;
    let peer = match connected.unwrap_or_else(|_| Err("too slow".into())) {
        Ok(peer) => peer,
        Err(error) => {
            say(json!({"event": "failed", "error": error.to_string()}));
            return Ok(false);
        }
    };
    // rust-libp2p does not tell what was negotiated, so only a single choice can be named.
    say(json!({
        "event": "connected", "impl": "rust", "peer": peer.to_string(), "addr": address.to_string(),
        "encryption": match flags.text("security", "noise").as_str() {
            "tls" => "/tls/1.0.0", "plaintext" => "/plaintext/2.0.0", _ => "/noise",
        },
        "muxer": match flags.text("muxer", "yamux").as_str() {
            "yamux" => Some("/yamux/1.0.0"), "mplex" => Some("/mplex/6.7.0"), _ => None,
        },
        "ms": start.elapsed().as_secs_f64() * 1e3,
    }));
    let known = if flags.asks_dht() {
        node.until_known(peer, limit)
            .await
            .map_err(|late| late.to_string())
    } else {
        Ok(())
    };
    let (ask, mut asked) = unbounded_channel();
    let asker = kad::Asker(ask);
    let driver = tokio::spawn(async move {
        loop {
            tokio::select! {
                event = node.step() => {
                    if let SwarmEvent::ConnectionClosed { cause, .. } = event {
                        eprintln!("connection closed: {cause:?}")
                    }
                }
                Some(query) = asked.recv() => {
                    node.queries.start(&mut node.swarm.behaviour_mut().kad, query)
                }
            }
        }
    });
    let mut all = true;
    for op in flags.ops() {
        let working = async {
            match op.as_str() {
                "identify" => {
                    let info = next_of(&mut told.identified, peer)
                        .await
                        .ok_or("no identify")??;
                    Ok::<Value, Failure>(json!({
                        "agent": info.agent_version, "version": info.protocol_version,
                        "protocols": info.protocols.iter().map(|name| name.to_string()).collect::<Vec<_>>(),
                        "addrs": info.listen_addrs.iter().map(Multiaddr::to_string).collect::<Vec<_>>(),
                        "observed": info.observed_addr.to_string(), "signed": info.signed_peer_record.is_some(),
                    }))
                }
                "ping" => {
                    let count = flags.number("count", 1)?;
                    let mut times = Vec::new();
                    while times.len() < count {
                        let took = next_of(&mut told.pinged, peer).await.ok_or("no ping")??;
                        times.push(took.as_secs_f64() * 1e3);
                    }
                    times.sort_by(f64::total_cmp);
                    Ok(json!({"count": count, "ms": times[count / 2]}))
                }
                "echo" => op_echo(control.clone(), peer, &flags).await,
                "perf" => op_perf(control.clone(), peer, &flags).await,
                // Half-close before a byte is sent: the answer to nothing is an end.
                "half-close" => echo_once(control.clone(), peer, 0, 0)
                    .await
                    .map(|()| json!({})),
                "reset" => op_reset(control.clone(), peer).await,
                _ => {
                    known.clone()?;
                    asker.run(&op, peer, &flags).await
                }
            }
        };
        let result = timeout(limit, working)
            .await
            .unwrap_or_else(|_| Err("too slow".into()));
        let mut line = match &result {
            Ok(about) => about.clone(),
            Err(error) => json!({"error": error.to_string()}),
        };
        all &= result.is_ok();
        line["event"] = "result".into();
        line["op"] = op.into();
        line["ok"] = result.is_ok().into();
        say(line);
    }
    driver.abort();
    Ok(all)
}

#[tokio::main]
async fn main() -> ExitCode {
    let mut words = env::args().skip(1);
    let mode = words.next().unwrap_or_default();
    let mut flags = Flags::default();
    while let Some(word) = words.next() {
        let (name, value) = match word.strip_prefix("--") {
            Some(name) => (name.to_owned(), words.next().unwrap_or_default()),
            None => ("dial".to_owned(), word),
        };
        flags.0.entry(name).or_default().push(value);
    }
    let ended = match mode.as_str() {
        "listen" => listen(flags).await,
        "dial" => dial(flags).await,
        _ => Err("listen or dial?".into()),
    };
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
