//! Answers echo and perf streams. libp2p-stream has no room for an inbound stream that its reader has not asked for, and
//! drops some of a hundred that come at once; here each gets a task of its own.

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use futures::{future, AsyncReadExt, AsyncWriteExt};
use libp2p::{
    core::{
        transport::PortUse,
        upgrade::{DeniedUpgrade, InboundUpgrade, UpgradeInfo},
        Endpoint,
    },
    swarm::{
        handler::{ConnectionEvent, FullyNegotiatedInbound},
        ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm,
        NetworkBehaviour, SubstreamProtocol, THandlerInEvent, ToSwarm,
    },
    Multiaddr, PeerId, Stream, StreamProtocol,
};

use crate::{pour, Failure, CHUNK, ECHO, PERF};

#[derive(Clone, Copy)]
pub struct EchoOrPerf;

impl UpgradeInfo for EchoOrPerf {
    type Info = StreamProtocol;
    type InfoIter = [StreamProtocol; 2];

    fn protocol_info(&self) -> Self::InfoIter {
        [ECHO, PERF]
    }
}

impl InboundUpgrade<Stream> for EchoOrPerf {
    type Output = (Stream, StreamProtocol);
    type Error = Infallible;
    type Future = future::Ready<Result<Self::Output, Self::Error>>;

    fn upgrade_inbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        future::ready(Ok((stream, protocol)))
    }
}

pub struct Behaviour;
pub struct Handler;

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<Handler, ConnectionDenied> {
        Ok(Handler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<Handler, ConnectionDenied> {
        Ok(Handler)
    }

    fn on_swarm_event(&mut self, _: FromSwarm) {}

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: Infallible) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Infallible, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Infallible;
    type ToBehaviour = Infallible;
    type InboundProtocol = EchoOrPerf;
    type OutboundProtocol = DeniedUpgrade;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<EchoOrPerf> {
        SubstreamProtocol::new(EchoOrPerf, ())
    }

    fn on_behaviour_event(&mut self, event: Infallible) {
        match event {}
    }

    fn poll(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<DeniedUpgrade, (), Infallible>> {
        Poll::Pending
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<EchoOrPerf, DeniedUpgrade>) {
        if let ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
            protocol: (stream, name),
            ..
        }) = event
        {
            tokio::spawn(async move {
                let ended = if name == ECHO {
                    echo(stream).await
                } else {
                    perf(stream).await
                };
                if let Err(error) = ended {
                    eprintln!("{name}: {error}");
                }
            });
        }
    }
}

async fn echo(mut stream: Stream) -> Result<(), Failure> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let got = stream.read(&mut buffer).await?;
        if got == 0 {
            return Ok(stream.close().await?);
        }
        stream.write_all(&buffer[..got]).await?;
        stream.flush().await?;
    }
}

async fn perf(mut stream: Stream) -> Result<(), Failure> {
    let mut head = [0; 8];
    stream.read_exact(&mut head).await?;
    let mut buffer = vec![0; CHUNK];
    while stream.read(&mut buffer).await? > 0 {}
    pour(&mut stream, u64::from_be_bytes(head) as usize).await?;
    Ok(stream.close().await?)
}
