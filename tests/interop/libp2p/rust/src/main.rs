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
    swarm::{NetworkBehaviour, SwarmEvent},
    tcp, tls, websocket, yamux, Multiaddr, PeerId, StreamProtocol, Swarm, Transport,
};
use libp2p_mplex as mplex;
use libp2p_stream as raw;
use serde_json::{json, Value};
use tokio::{io::AsyncReadExt as _, time::timeout};

mod serve;

type Failure = Box<dyn Error + Send + Sync>;

const ECHO: StreamProtocol = StreamProtocol::new("/echo/1.0.0");
const PERF: StreamProtocol = StreamProtocol::new("/perf/1.0.0");
const CHUNK: usize = 64 * 1024;
const BLOCK: usize = 65_521;

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
    ping: ping::Behaviour,
    serve: serve::Behaviour,
    stream: raw::Behaviour,
}

struct Flags(HashMap<String, String>);

impl Flags {
    fn text(&self, name: &str, default: &str) -> String {
        self.0
            .get(name)
            .cloned()
            .unwrap_or_else(|| default.to_owned())
    }

    fn number(&self, name: &str, default: usize) -> Result<usize, Failure> {
        Ok(self.0.get(name).map_or(Ok(default), |text| text.parse())?)
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

fn node(flags: &Flags) -> Result<Swarm<Behaviour>, Failure> {
    let key = identity_of(flags.0.get("seed"))?;
    let peer = key.public().to_peer_id();
    let about = identify::Config::new("ipfs/0.1.0".into(), key.public())
        .with_agent_version("rust-libp2p/0.57.1".into());
    let behaviour = Behaviour {
        identify: identify::Behaviour::new(about),
        // The operation asks for many at once; a listener keeps the usual rhythm.
        ping: ping::Behaviour::new(
            ping::Config::new().with_interval(match flags.0.get("dial") {
                Some(_) => Duration::from_millis(1),
                None => Duration::from_secs(15),
            }),
        ),
        serve: serve::Behaviour,
        stream: raw::Behaviour::new(),
    };
    // Ten idle seconds are the default, and a test that waits for its next turn must not lose its listener's connection.
    let config = swarm::Config::with_tokio_executor()
        .with_idle_connection_timeout(Duration::from_secs(600))
        .with_max_negotiating_inbound_streams(1024);
    Ok(Swarm::new(transport(&key, flags)?, behaviour, peer, config))
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
    let mut swarm = node(&flags)?;
    let mut wanted = Vec::new();
    if flags.0.contains_key("tcp-port") || !flags.0.contains_key("ws-port") {
        wanted.push(format!(
            "/ip4/127.0.0.1/tcp/{}",
            flags.text("tcp-port", "0")
        ));
    }
    if let Some(port) = flags.0.get("ws-port") {
        wanted.push(format!("/ip4/127.0.0.1/tcp/{port}/ws"));
    }
    for address in &wanted {
        swarm.listen_on(address.parse()?)?;
    }
    let mut addresses: Vec<Multiaddr> = Vec::new();
    let mut stdin = tokio::io::stdin();
    let mut ignored = [0; 1024];
    loop {
        tokio::select! {
            event = swarm.select_next_some() => {
                if let SwarmEvent::NewListenAddr { address, .. } = event {
                    addresses.push(address.with(multiaddr::Protocol::P2p(*swarm.local_peer_id())));
                    if addresses.len() == wanted.len() {
                        // In the order of the command line, whichever came up first.
                        addresses.sort_by_key(|address| address.iter().any(|part| matches!(part, multiaddr::Protocol::Ws(_))));
                        say(json!({
                            "event": "listening", "impl": "rust", "peer": swarm.local_peer_id().to_string(),
                            "addrs": addresses.iter().map(Multiaddr::to_string).collect::<Vec<_>>(),
                            "protocols": ["/echo/1.0.0", "/ipfs/id/1.0.0", "/ipfs/id/push/1.0.0", "/ipfs/ping/1.0.0", "/perf/1.0.0"],
                        }));
                    }
                }
            }
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
    let mut swarm = node(&flags)?;
    let control = swarm.behaviour().stream.new_control();
    let start = Instant::now();
    swarm.dial(address.clone())?;
    let connecting = async {
        loop {
            match swarm.select_next_some().await {
                SwarmEvent::ConnectionEstablished { peer_id, .. } => return Ok(peer_id),
                SwarmEvent::OutgoingConnectionError { error, .. } => {
                    return Err(format!("{error:?}"))
                }
                _ => {}
            }
        }
    };
    let peer = match timeout(limit, connecting).await {
        Ok(Ok(peer)) => peer,
        Ok(Err(error)) => {
            say(json!({"event": "failed", "error": error}));
            return Ok(false);
        }
        Err(_) => {
            say(json!({"event": "failed", "error": "too slow"}));
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
    // What the swarm reports while operations run: identify comes once by itself, pings in a row.
    let (told_identify, mut identified) = tokio::sync::mpsc::unbounded_channel();
    let (told_ping, mut pinged) = tokio::sync::mpsc::unbounded_channel();
    let driver = tokio::spawn(async move {
        loop {
            match swarm.select_next_some().await {
                SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received {
                    info,
                    ..
                })) => {
                    let _ = told_identify.send(Ok(info));
                }
                SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Error {
                    error,
                    ..
                })) => {
                    let _ = told_identify.send(Err(error.to_string()));
                }
                SwarmEvent::Behaviour(BehaviourEvent::Ping(ping::Event { result, .. })) => {
                    let _ = told_ping.send(result);
                }
                SwarmEvent::ConnectionClosed { cause, .. } => {
                    eprintln!("connection closed: {cause:?}")
                }
                _ => {}
            }
        }
    });
    let mut all = true;
    for op in flags
        .text("ops", "identify,ping,echo,perf")
        .split(',')
        .filter(|op| !op.is_empty())
    {
        let working = async {
            match op {
                "identify" => {
                    let info = identified.recv().await.ok_or("no identify")??;
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
                        times.push(pinged.recv().await.ok_or("no ping")??.as_secs_f64() * 1e3);
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
                _ => Err("no such operation".into()),
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
    let mut flags = HashMap::new();
    while let Some(word) = words.next() {
        match word.strip_prefix("--") {
            Some(name) => flags.insert(name.to_owned(), words.next().unwrap_or_default()),
            None => flags.insert("dial".to_owned(), word),
        };
    }
    let ended = match mode.as_str() {
        "listen" => listen(Flags(flags)).await,
        "dial" => dial(Flags(flags)).await,
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
