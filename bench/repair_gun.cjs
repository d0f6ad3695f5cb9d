// A gun.js client as a page has it, for bench/repair.py: one command per line on stdin, one answer per line on
// stdout. It counts the bytes of its WebSocket messages in both directions.
"use strict";
const say = (line) => process.stdout.write(JSON.stringify(line) + "\n");
console.log = console.info = console.warn = () => {};

const Gun = require("gun/gun");
const WebSocket = require("ws");

let sockets = [];
let sent = 0;
let received = 0;
let heard = 0;
let last = Date.now();
class CountingSocket extends WebSocket {
  constructor(url) {
    super(url, { maxPayload: 0 });
    sockets.push(this);
    this.on("close", () => (sockets = sockets.filter((other) => other !== this)));
    this.on("message", (data) => {
      received += data.length;
      last = Date.now();
    });
  }
  send(data, ...rest) {
    super.send(data, ...rest);
    sent += Buffer.byteLength(String(data));
    last = Date.now();
  }
}

const gun = new Gun({ peers: [process.argv[2]], localStorage: false, WebSocket: CountingSocket });
const wait = (ms) => new Promise((done) => setTimeout(done, ms));

// Nothing has been said for a while.
async function quiet(ms) {
  while (Date.now() - last < ms) await wait(50);
}

const commands = {
  // Nodes to write, answered once all are acknowledged.
  async put({ nodes }) {
    const left = Object.entries(nodes).map(
      ([soul, fields]) => new Promise((done) => gun.get(soul).put(fields, done)),
    );
    await Promise.all(left);
    return left.length;
  },
  // Listens to nodes, answered once all have been heard of.
  async listen({ souls }) {
    const known = new Set();
    for (const soul of souls) {
      gun.get(soul).on((node, key) => {
        heard += 1;
        known.add(soul);
      });
      if (known.size % 50 === 0) await wait(0);
    }
    while (known.size < souls.length) await wait(20);
    await quiet(1500);
    return known.size;
  },
  // Loses the connection. gun.js dials again by itself after two seconds.
  async cut() {
    sockets.forEach((socket) => socket.terminate());
    while (sockets.some((socket) => socket.readyState === WebSocket.OPEN)) await wait(10);
    sent = received = heard = 0;
    return null;
  },
  // What has been said since, once all is quiet.
  async healed() {
    while (!sockets.some((socket) => socket.readyState === WebSocket.OPEN)) await wait(20);
    last = Date.now();
    await quiet(3000);
    return { sent, received, heard };
  },
  async read({ souls }) {
    return souls.map((soul) => {
      const { _: meta, ...fields } = gun._.graph[soul] || {};
      return fields;
    });
  },
};

require("readline")
  .createInterface({ input: process.stdin })
  .on("line", async (line) => {
    const command = JSON.parse(line);
    say({ ok: await commands[command.do](command) });
  })
  .on("close", () => process.exit(0));
say({ ok: "ready" });
