// js-libp2p as the other side of Air's interop matrix. The command line is in README.md.
import { setMaxListeners } from 'node:events'
import { createRequire } from 'node:module'
import { parseArgs } from 'node:util'

// Node 20 lacks two things that js-libp2p takes for granted.
Promise.withResolvers ??= () => {
  const made = {}
  made.promise = new Promise((resolve, reject) => Object.assign(made, { resolve, reject }))
  return made
}
if (globalThis.WebSocket === undefined) {
  const { WebSocket } = createRequire(import.meta.resolve('@libp2p/websockets'))('ws')
  globalThis.WebSocket = class extends WebSocket {
    constructor (url) {
      super(url)
      // js-libp2p attaches its reader one turn after 'open', but bytes may come right behind the 101 answer.
      this.once('open', () => { this.pause(); setTimeout(() => this.resume(), 0) })
    }
  }
}

const { createLibp2p } = await import('libp2p')
const { generateKeyPairFromSeed } = await import('@libp2p/crypto/keys')
const { identify } = await import('@libp2p/identify')
const { mplex } = await import('@libp2p/mplex')
const { multiaddr } = await import('@multiformats/multiaddr')
const { CID } = await import('multiformats/cid')
const { noise } = await import('@libp2p/noise')
const { peerIdFromString } = await import('@libp2p/peer-id')
const { ping } = await import('@libp2p/ping')
const { plaintext } = await import('@libp2p/plaintext')
const { sha256 } = await import('multiformats/hashes/sha2')
const { tcp } = await import('@libp2p/tcp')
const { tls } = await import('@libp2p/tls')
const { webSockets } = await import('@libp2p/websockets')
const { yamux } = await import('@libp2p/yamux')

const ECHO = '/echo/1.0.0'
const PERF = '/perf/1.0.0'
const KAD = '/ipfs/kad/1.0.0'
const LOOPBACK = '/ip4/127.0.0.1/tcp/0'
const RAW = 0x55
const JOIN_MS = 10_000
const CHUNK = 64 * 1024
const STREAMS = { maxInboundStreams: 1000, maxOutboundStreams: 1000, runOnLimitedConnection: true }

const { values: flags, positionals: [mode, address] } = parseArgs({
  allowPositionals: true,
  options: {
    'tcp-port': { type: 'string' },
    'ws-port': { type: 'string' },
    muxer: { type: 'string', default: 'yamux' },
    security: { type: 'string', default: 'noise' },
    seed: { type: 'string' },
    strict: { type: 'boolean', default: false },
    ops: { type: 'string', default: 'identify,ping,echo,perf' },
    bytes: { type: 'string', default: '1024' },
    up: { type: 'string', default: '1048576' },
    down: { type: 'string', default: '1048576' },
    count: { type: 'string', default: '1' },
    dht: { type: 'string', default: 'off' },
    bootstrap: { type: 'string', multiple: true, default: [] },
    key: { type: 'string', default: '/air/k' },
    value: { type: 'string', default: 'v' },
    target: { type: 'string' },
    timeout: { type: 'string', default: '30000' }
  }
})

const say = (line) => process.stdout.write(JSON.stringify(line) + '\n')

const told = (error) => error instanceof Error ? `${error.name}: ${error.message}` : `${error?.type ?? error}: ${error?.error ?? ''}`

// A rejection that nobody awaits belongs to a stream that the other side reset: it is told on stderr, and the
// process goes on, as a listener has other streams to serve.
process.on('unhandledRejection', (error) => console.error('unhandled:', error?.stack ?? error))

async function makeNode (listen, dht) {
  return createLibp2p({
    privateKey: flags.seed ? await generateKeyPairFromSeed('Ed25519', Buffer.from(flags.seed, 'hex')) : undefined,
    addresses: { listen },
    transports: [tcp(), webSockets()],
    connectionEncrypters: [{ noise, tls, plaintext }[flags.security]()],
    // 100 streams at once are over the limit at which js-libp2p calls a peer hostile on mplex.
    streamMuxers: { yamux: [yamux()], mplex: [mplex(flags.strict ? {} : { disconnectThreshold: 10_000 })], both: [yamux(), mplex()] }[flags.muxer],
    // js-libp2p allows one identify stream per connection and direction: the dialer's is the operation `identify`.
    // It allows one ping stream, and counts one until the other side has closed it as well.
    services: {
      identify: identify({ runOnConnectionOpen: mode === 'listen' }),
      ping: ping({ maxInboundStreams: 4, maxOutboundStreams: 16 }),
      ...(dht === 'off' ? {} : { dht: await makeDht(dht) })
    },
    // The defaults slow a test down on purpose: 5 new connections per second and host.
    connectionManager: { inboundConnectionThreshold: 10_000, maxIncomingPendingConnections: 1000, maxParallelDials: 200 },
    connectionMonitor: { enabled: false }
  })
}

async function makeDht (role) {
  const { kadDHT, passthroughMapper } = await import('@libp2p/kad-dht')
  return kadDHT({
    protocol: KAD,
    clientMode: role !== 'server',
    // The default drops loopback addresses, and then the peers that have no others.
    peerInfoMapper: passthroughMapper,
    validators: { air: () => {} },
    // The greatest bytes win. js-libp2p selects in `get` alone: its server keeps the last value it was sent.
    selectors: { air: (key, values) => values.reduce((best, value, at) => Buffer.compare(value, values[best]) > 0 ? at : best, 0) },
    // A query waits for the first self-query; by default that begins after a second.
    initialQuerySelfInterval: 0
  })
}

// js-libp2p takes a peer into the routing table once identify has named the protocol and a ping was answered.
async function join (node, connection, signal) {
  if (await node.services.dht.routingTable.find(connection.remotePeer)) return
  if (mode === 'dial') await node.services.identify.identify(connection, { signal })
  for (const start = performance.now(); !await node.services.dht.routingTable.find(connection.remotePeer);) {
    if (performance.now() - start > JOIN_MS) throw new Error(`${connection.remotePeer} did not enter the routing table`)
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}

async function bootstrap (node) {
  for (const known of flags.bootstrap) {
    const signal = AbortSignal.timeout(Number(flags.timeout))
    const connection = await node.dial(multiaddr(known), { signal })
    if (node.services.dht !== undefined) await join(node, connection, signal)
  }
}

async function write (stream, data) {
  if (!stream.send(data)) await stream.onDrain()
}

// A stream's own iterator waits for ever when the remote's FIN came before it began to read, as it does from a peer
// that sends proposal, data and FIN in one go.
async function * chunks (stream) {
  const queue = []
  let failure
  let wake = () => {}
  const woken = () => wake()
  stream.addEventListener('message', (event) => { queue.push(event.data); wake() })
  stream.addEventListener('end', woken)
  stream.addEventListener('close', (event) => { failure = event.error; wake() })
  while (true) {
    if (queue.length > 0) yield queue.shift()
    else if (failure !== undefined) throw failure
    else if (stream.readBufferLength === 0 && (stream.readableEnded || stream.status !== 'open')) return
    else await new Promise((resolve) => { wake = resolve })
  }
}

async function serveEcho (stream) {
  try {
    for await (const chunk of chunks(stream)) await write(stream, chunk)
    await stream.close()
  } catch (error) {
    stream.abort(error)
  }
}

async function servePerf (stream) {
  try {
    let head = Buffer.alloc(0)
    for await (const chunk of chunks(stream)) {
      if (head.length < 8) head = Buffer.concat([head, chunk.subarray()])
    }
    if (head.length < 8) throw new Error('perf: no size')
    await pour(stream, Number(head.readBigUInt64BE(0)))
    await stream.close()
  } catch (error) {
    stream.abort(error)
  }
}

const ZEROES = new Uint8Array(CHUNK)

async function pour (stream, bytes) {
  for (let left = bytes; left > 0; left -= CHUNK) await write(stream, ZEROES.subarray(0, Math.min(left, CHUNK)))
}

async function listen () {
  const addresses = []
  if (flags['ws-port'] === undefined || flags['tcp-port'] !== undefined) addresses.push(`/ip4/127.0.0.1/tcp/${flags['tcp-port'] ?? 0}`)
  if (flags['ws-port'] !== undefined) addresses.push(`/ip4/127.0.0.1/tcp/${flags['ws-port']}/ws`)
  const node = await makeNode(addresses, flags.dht)
  await node.handle(ECHO, serveEcho, STREAMS)
  await node.handle(PERF, servePerf, STREAMS)
  await bootstrap(node)
  say({
    event: 'listening',
    impl: 'js',
    peer: node.peerId.toString(),
    addrs: node.getMultiaddrs().map(String),
    protocols: node.getProtocols()
  })
  process.stdin.on('end', async () => { await node.stop(); process.exit(0) }).resume()
}

// A stream's bytes are a window into one repeated block, so that a byte out of place never goes unseen.
const BLOCK = 65_521
const PATTERN = Buffer.alloc(2 * BLOCK)
for (let at = 0; at < PATTERN.length; at++) PATTERN[at] = ((at % BLOCK) * 167 + ((at % BLOCK) >> 8)) & 255
const expected = (from, length) => PATTERN.subarray(from % BLOCK, (from % BLOCK) + length)

async function echoOnce (connection, number, bytes, signal) {
  const stream = await connection.newStream(ECHO, { signal, ...STREAMS })
  signal.addEventListener('abort', () => stream.abort(new Error('too slow')))
  const writing = (async () => {
    for (let sent = 0; sent < bytes;) {
      const length = Math.min(bytes - sent, 32 * 1024)
      await write(stream, expected(number + sent, length))
      sent += length
    }
    await stream.close({ signal })
  })()
  writing.catch(() => {})
  let got = 0
  for await (const chunk of chunks(stream)) {
    for (let part = chunk.subarray(), at = 0; at < part.length;) {
      const length = Math.min(part.length - at, BLOCK)
      if (!expected(number + got, length).equals(part.subarray(at, at + length))) throw new Error(`echo differs within ${length} bytes after byte ${got}`)
      at += length
      got += length
    }
  }
  await writing
  if (got !== bytes) throw new Error(`echo: ${got} bytes of ${bytes} came back`)
}

const operations = {
  async identify (node, connection, signal) {
    const found = await node.services.identify.identify(connection, { signal })
    return {
      agent: found.agentVersion,
      version: found.protocolVersion,
      peer: found.peerId.toString(),
      protocols: found.protocols,
      addrs: found.listenAddrs.map(String),
      observed: found.observedAddr?.toString(),
      signed: found.signedPeerRecord !== undefined
    }
  },
  async ping (node, connection, signal, count) {
    const times = []
    for (let done = 0; done < count; done++) {
      const start = performance.now()
      await node.services.ping.ping(connection.remotePeer, { signal })
      times.push(performance.now() - start)
    }
    return { count, ms: times.sort((a, b) => a - b)[times.length >> 1] }
  },
  async echo (node, connection, signal, count) {
    const bytes = Number(flags.bytes)
    await Promise.all(Array.from({ length: count }, (_, number) => echoOnce(connection, number, bytes, signal)))
    return { count, bytes }
  },
  async perf (node, connection, signal) {
    const [up, down] = [Number(flags.up), Number(flags.down)]
    const stream = await connection.newStream(PERF, { signal, ...STREAMS })
    signal.addEventListener('abort', () => stream.abort(new Error('too slow')))
    const start = performance.now()
    const size = Buffer.alloc(8)
    size.writeBigUInt64BE(BigInt(down))
    let got = 0
    const reading = (async () => { for await (const chunk of chunks(stream)) got += chunk.byteLength })()
    reading.catch(() => {})
    await write(stream, size)
    await pour(stream, up)
    await stream.close({ signal })
    const uploaded = performance.now()
    await reading
    if (got !== down) throw new Error(`perf: ${got} bytes of ${down} came down`)
    return { up, down, up_ms: uploaded - start, down_ms: performance.now() - uploaded }
  },
  // Half-close before a byte is sent: the answer to nothing is an end, and the stream is over on both sides.
  async 'half-close' (node, connection, signal) {
    await echoOnce(connection, 0, 0, signal)
    return {}
  },
  // A reset stream takes nothing with it: the next one on the same connection is well.
  async reset (node, connection, signal) {
    for (let number = 0; number < 20; number++) {
      const stream = await connection.newStream(ECHO, { signal, ...STREAMS })
      await write(stream, expected(number, 1000 * number))
      stream.abort(new Error('on purpose'))
    }
    await echoOnce(connection, 7, 100_000, signal)
    return {}
  }
}

// js-libp2p asks its own stores as well. What these report came from others.
const kadOperations = {
  async 'kad-put' (dht, key, signal) {
    const value = Buffer.from(flags.value)
    let acknowledged = 0
    let failure = new Error('nobody to send it to')
    for await (const event of dht.put(key, value, { signal })) {
      if (event.name === 'QUERY_ERROR') failure = event.error
      if (event.name === 'PEER_RESPONSE' && event.messageName === 'PUT_VALUE' && event.record && value.equals(event.record.value)) acknowledged++
    }
    if (acknowledged === 0) throw failure
    return { acknowledged }
  },
  async 'kad-get' (dht, key, signal) {
    let heard = false
    let best
    for await (const event of dht.get(key, { signal })) {
      if (event.name === 'PEER_RESPONSE' && event.messageName === 'GET_VALUE' && event.record) heard = true
      if (event.name === 'VALUE') best = event.value
    }
    if (!heard) throw new Error('nobody has a value')
    return { value: Buffer.from(best).toString() }
  },
  async provide (dht, key, signal) {
    let sent = 0
    let failure = new Error('nobody to tell')
    for await (const event of dht.provide(CID.createV1(RAW, await sha256.digest(key)), { signal })) {
      if (event.name === 'QUERY_ERROR') failure = event.error
      if (event.name === 'PEER_RESPONSE' && event.messageName === 'ADD_PROVIDER') sent++
    }
    if (sent === 0) throw failure
    // Nobody acknowledges this message.
    return { sent }
  },
  async 'find-providers' (dht, key, signal) {
    const found = new Set()
    for await (const event of dht.findProviders(CID.createV1(RAW, await sha256.digest(key)), { signal })) {
      if (event.name !== 'PEER_RESPONSE' || event.from.equals(dht.components.peerId)) continue
      for (const provider of event.providers) found.add(provider.id.toString())
    }
    if (found.size === 0) throw new Error('nobody knows a provider')
    return { providers: [...found] }
  },
  async 'find-peer' (dht, key, signal, target) {
    for await (const event of dht.findPeer(target, { signal, useCache: false })) {
      // py-libp2p names itself without an address.
      if (event.name !== 'FINAL_PEER' || event.peer.multiaddrs.length === 0) continue
      return { peer: event.peer.id.toString(), addrs: event.peer.multiaddrs.map(String) }
    }
    throw new Error('nobody knows an address of the peer')
  }
}

async function operate (op, node, connection, signal) {
  if (operations[op] !== undefined) return operations[op](node, connection, signal, Number(flags.count))
  if (kadOperations[op] === undefined) throw new Error('no such operation')
  await join(node, connection, signal)
  const target = flags.target === undefined ? connection.remotePeer : peerIdFromString(flags.target)
  return kadOperations[op](node.services.dht, Buffer.from(flags.key), signal, target)
}

async function dial () {
  const ops = flags.ops.split(',').filter(Boolean)
  const dht = flags.dht === 'off' && ops.some((op) => op in kadOperations) ? 'client' : flags.dht
  // A provider is told of by its addresses, so a peer of the DHT listens.
  const node = await makeNode(dht === 'off' ? [] : [LOOPBACK], dht)
  const limit = Number(flags.timeout)
  let ok = true
  const start = performance.now()
  let connection
  try {
    connection = await node.dial(multiaddr(address), { signal: AbortSignal.timeout(limit) })
  } catch (error) {
    say({ event: 'failed', error: told(error), causes: (error.errors ?? []).map(String) })
    process.exit(1)
  }
  say({
    event: 'connected',
    impl: 'js',
    peer: connection.remotePeer.toString(),
    addr: connection.remoteAddr.toString(),
    encryption: connection.encryption,
    muxer: connection.multiplexer,
    ms: performance.now() - start
  })
  for (const op of ops) {
    try {
      const signal = AbortSignal.timeout(limit)
      setMaxListeners(0, signal)
      const about = await operate(op, node, connection, signal)
      say({ event: 'result', op, ok: true, ...about })
    } catch (error) {
      console.error(error)
      ok = false
      say({ event: 'result', op, ok: false, error: told(error) })
    }
  }
  await node.stop()
  process.exitCode = ok ? 0 : 1
  // A timer that js-libp2p forgot must not keep the process.
  setTimeout(() => process.exit(), 1000).unref()
}

await { listen, dial }[mode]()
