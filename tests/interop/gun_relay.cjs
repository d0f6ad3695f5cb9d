// A stock gun.js relay, as its own documentation starts one, for comparisons and for chains through it.
// Prints {"event": "ready", "port": n}. Ends with its stdin, so it never outlives the test that started it.
'use strict'

const say = line => process.stdout.write(JSON.stringify(line) + '\n')
console.log = console.info = console.warn = (...words) => console.error(...words)

const http = require('http')
const path = require('path')
const setup = JSON.parse(process.argv[2])
const Gun = require('gun')

const options = {
  file: path.join(setup.dir, 'radata'),
  peers: setup.peers || [],
  multicast: false, // relays of other tests on this machine would find each other
  stats: false, // kept inside the package's folder, so shared by every relay of the machine
}
if (setup.axe === false) options.axe = false

const server = http.createServer(Gun.serve(setup.static))
server.listen(setup.port || 0, '127.0.0.1', () => {
  const gun = Gun({ ...options, web: server })
  say({ event: 'ready', port: server.address().port })

  require('readline').createInterface({ input: process.stdin }).on('line', line => {
    const cmd = JSON.parse(line)
    // A relay with peers dials them only when it has something to say; with AXE on it never does.
    if (cmd.do === 'get') gun.get(cmd.path[0]).once(value => say({ id: cmd.id, ok: value === undefined ? null : value }))
    if (cmd.do === 'put') gun.get(cmd.path[0]).put(cmd.value, ack => say({ id: cmd.id, ok: ack.err ? { err: String(ack.err) } : { ok: 1 } }))
    if (cmd.do === 'cut') {
      Object.values(gun._.opt.peers).forEach(peer => peer.wire && peer.wire.terminate && peer.wire.terminate())
      say({ id: cmd.id, ok: null })
    }
    if (cmd.do === 'memory') {
      const node = gun._.graph[cmd.soul]
      say({ id: cmd.id, ok: node ? { value: { ...node, _: undefined }, states: { ...node._['>'] } } : { missing: true } })
    }
  }).on('close', () => process.exit(0))
})
