// Runs gun.js expressions as they stand in the documentation: one JSON command per line on stdin, answers and
// events on stdout, as gun_client.cjs. `cb` in an expression reports what it is called with.
'use strict'

const say = line => process.stdout.write(JSON.stringify(line) + '\n')
console.log = console.info = console.warn = (...words) => console.error(...words)

const Gun = require('gun/gun')
const WebSocket = require('ws')
// The extension expects what a browser page has.
global.Gun = global.GUN = Gun
require('gun/lib/open')

const { peers } = JSON.parse(process.argv[2])
const clean = value => {
  if (!(value instanceof Object)) return value
  const { _: meta, ...fields } = value
  return Object.fromEntries(Object.entries(fields).map(([key, inner]) => [key, clean(inner)]))
}

// Each expression has a gun.js of its own, which knows nothing but what it asks for.
const commands = {
  run(cmd, answer) {
    const gun = new Gun({ peers, localStorage: false, WebSocket })
    const cb = (value, key) => say({ event: 'called', run: cmd.id, key, value: clean(value), missing: value === undefined })
    new Function('gun', 'cb', cmd.code)(gun, cb)
    answer(null)
  },
}

require('readline').createInterface({ input: process.stdin }).on('line', line => {
  const cmd = JSON.parse(line)
  try {
    commands[cmd.do](cmd, ok => say({ id: cmd.id, ok }))
  } catch (error) {
    say({ id: cmd.id, error: String(error && error.stack || error) })
  }
}).on('close', () => process.exit(0))
say({ event: 'ready' })
