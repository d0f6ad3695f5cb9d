// The stock relay as people run it: gun's own server build, disk store and AXE as it comes.
// Two things differ from the default: it listens on a free loopback port, and multicast is off,
// so that two relays on one machine cannot find each other and mix their load.
// An argument is a JSON list of relays to dial: then AXE is off, because with it a relay dials nobody.
"use strict";
const http = require("http");
const Gun = require("gun");

const peers = process.argv[2] && JSON.parse(process.argv[2]);
const server = http.createServer((request, response) => {
  response.statusCode = 404;
  response.end();
});
server.listen(0, "127.0.0.1", () => {
  Gun({ web: server, multicast: false, ...(peers && { peers, axe: false }) });
  const line = {
    gun: ["ws://127.0.0.1:" + server.address().port + "/gun"],
    version: require("gun/package.json").version,
    node: process.version,
  };
  process.stdout.write("\n" + JSON.stringify(line) + "\n");
});
// Whoever started us holds the other end; when it goes, however it goes, so do we.
process.stdin.on("end", () => process.exit(0));
process.stdin.resume();
