// A gun.js client in Node, steered by JSON lines: one command per line on stdin, one answer or event per line
// on stdout. gun.js itself is loaded unmodified, core and SEA only, which is what a browser page loads; without
// its server part there is no disk, no AXE and no multicast, so everything it knows came through the relay.
//
// Command:  {"id": 1, "do": "put", ...}     Answer: {"id": 1, "ok": ...} or {"id": 1, "error": "text"}
// Event:    {"event": "on", "sub": 2, ...}  Frame:  {"event": "frame", "dir": "in", "text": "..."}
//
// A path is a list of steps: text or a lexical object is .get(it), {"map": lex?} is .map(lex?), and
// {"user": pub?} is .user(pub?).
'use strict'

const say = line => process.stdout.write(JSON.stringify(line) + '\n')
// gun.js greets on the console; stdout is ours.
console.log = console.info = console.warn = (...words) => console.error(...words)

const Gun = require('gun/gun')
const SEA = require('gun/sea')
const WebSocket = require('ws')

const setup = JSON.parse(process.argv[2])
const FRAME_EVENT_CHARS = 4000

// Frames are watched from outside, in the socket class handed to gun.js.
let tap = Boolean(setup.tap)
let sockets = []
const seen = (dir, text) => {
  if (tap) say({ event: 'frame', dir, length: text.length, text: text.slice(0, FRAME_EVENT_CHARS) })
}
class WatchedSocket extends WebSocket {
  constructor(url) {
    super(url, { maxPayload: 0 })
    sockets.push(this)
    this.on('open', () => say({ event: 'open', url }))
    this.on('close', () => {
      sockets = sockets.filter(other => other !== this)
      say({ event: 'closed', url })
    })
    this.on('message', data => seen('in', String(data)))
  }
  send(data, ...rest) {
    super.send(data, ...rest)
    seen('out', String(data))
  }
}

const gun = new Gun({ peers: setup.peers, localStorage: false, WebSocket: WatchedSocket })
const opened = () => sockets.filter(socket => socket.readyState === WebSocket.OPEN)

// ---- values on their way out: a node without its metadata, undefined told apart from null

function shown(value) {
  if (value === undefined) return { missing: true }
  if (value instanceof Object && value._) {
    const { _: meta, ...fields } = value
    return { value: fields, soul: meta['#'], states: { ...meta['>'] } }
  }
  return { value }
}

function chain(path) {
  return path.reduce((at, step) => {
    if (step instanceof Object && 'map' in step) return step.map ? at.map(step.map) : at.map()
    if (step instanceof Object && 'user' in step) return step.user ? at.user(step.user) : at.user()
    return at.get(step)
  }, gun)
}

const told = ack => (ack && ack.err !== undefined ? { err: String(ack.err) } : { ok: ack && ack.ok })
const listeners = new Map()

// ---- commands: each gets the command and a function for its one answer

const commands = {
  put(cmd, answer) {
    const value = cmd.link ? chain(cmd.link) : cmd.value
    const heard = cmd.ack === false ? undefined : ack => answer(told(ack))
    chain(cmd.path).put(value, heard, cmd.cert && { opt: { cert: cmd.cert } })
    if (!heard) answer(null)
  },

  // Many writes in one turn, which gun.js sends as batched frames. Answers once all are acknowledged.
  batch(cmd, answer) {
    const items = Object.entries(cmd.items)
    const errors = []
    let open = items.length
    for (const [key, value] of items) {
      chain(cmd.path).get(key).put(value, ack => {
        if (ack.err !== undefined) errors.push(String(ack.err))
        if (!--open) answer({ errors })
      })
    }
  },

  once(cmd, answer) {
    const began = Date.now()
    const heard = (value, key) => answer({ ...shown(value), key, ms: Date.now() - began })
    chain(cmd.path).once(heard, cmd.wait && { wait: cmd.wait })
  },

  // Listens with .on or .once; every call is an event named after the method.
  listen(cmd, answer) {
    const method = cmd.method || 'on'
    const at = chain(cmd.path)
    listeners.set(cmd.id, at)
    at[method]((value, key) => say({ event: method, sub: cmd.id, key, ...shown(value) }))
    answer(cmd.id)
  },

  off(cmd, answer) {
    listeners.get(cmd.sub).off()
    listeners.delete(cmd.sub)
    answer(null)
  },

  set(cmd, answer) {
    const at = chain(cmd.path)
    if (cmd.link) {
      // gun.js calls nobody back when a chain is added; its soul is all there is to tell.
      at.set(chain(cmd.link)).get(soul => answer({ soul }), true)
      return
    }
    const item = at.set(cmd.value, ack => answer({ ...told(ack), soul: item._.get }))
  },

  unset(cmd, answer) {
    chain(cmd.path).get(cmd.soul).put(null, ack => answer(told(ack)))
  },

  user_create: (cmd, answer) =>
    gun.user().create(cmd.alias, cmd.password, ack => answer({ ...told(ack), pub: ack.pub })),
  user_auth: (cmd, answer) =>
    cmd.pair
      ? gun.user().auth(cmd.pair, ack => answer(told(ack)))
      : gun.user().auth(cmd.alias, cmd.password, ack => answer({ ...told(ack), pub: ack.sea && ack.sea.pub })),
  user_leave(cmd, answer) {
    gun.user().leave()
    answer(null)
  },
  user_pair: (cmd, answer) => answer(gun.user()._.sea || null),

  // Any SEA function that takes its arguments and a last callback.
  async sea(cmd, answer) {
    const result = await SEA[cmd.name](...cmd.arguments)
    answer(result === undefined ? { missing: true } : { value: result })
  },

  // What this process holds in memory for one soul, without asking anybody.
  memory(cmd, answer) {
    const node = gun._.graph[cmd.soul]
    answer(node ? { value: { ...node, _: undefined }, states: { ...node._['>'] } } : { missing: true })
  },

  peers: (cmd, answer) =>
    answer(Object.values(gun._.opt.peers).map(peer => ({
      url: peer.url,
      pid: peer.pid,
      open: Boolean(peer.wire && peer.wire.readyState === WebSocket.OPEN),
    }))),

  // Cuts the connection as a dead network does, without a closing handshake. gun.js redials after two seconds.
  cut(cmd, answer) {
    opened().forEach(socket => socket.terminate())
    answer(null)
  },

  // A frame of our own making, straight into the socket.
  send(cmd, answer) {
    opened().forEach(socket => socket.send(cmd.text))
    answer(opened().length)
  },

  // The same through gun.js's own mesh, so that the answer finds its way back.
  mesh_say(cmd, answer) {
    gun._.opt.mesh.say(cmd.message)
    answer(null)
  },

  tap(cmd, answer) {
    tap = cmd.on
    answer(null)
  },

  pid: (cmd, answer) => answer(gun._.opt.pid),
}

// ---- the loop

require('readline').createInterface({ input: process.stdin }).on('line', async line => {
  const cmd = JSON.parse(line)
  let open = true
  const answer = ok => {
    if (open) say({ id: cmd.id, ok: ok === undefined ? null : ok })
    open = false
  }
  try {
    await commands[cmd.do](cmd, answer)
  } catch (error) {
    if (open) say({ id: cmd.id, error: String(error && error.stack || error) })
    open = false
  }
}).on('close', () => process.exit(0))

process.on('uncaughtException', error => {
  say({ event: 'crash', text: String(error && error.stack || error) })
  process.exit(1)
})
say({ event: 'ready' })
