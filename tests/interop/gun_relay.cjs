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

  const commands = {
    get: (cmd, answer) => gun.get(cmd.path[0]).once(value => answer(value === undefined ? null : value)),
    put: (cmd, answer) => gun.get(cmd.path[0]).put(cmd.value, ack => answer(ack.err ? String(ack.err) : true)),
  }
  require('readline').createInterface({ input: process.stdin }).on('line', line => {
    const cmd = JSON.parse(line)
    commands[cmd.do](cmd, ok => say({ id: cmd.id, ok }))
  }).on('close', () => process.exit(0))
})
