// go-libp2p as the other side of Air's interop matrix. The command line is in README.md.
package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"sort"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/core/sec"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
	"github.com/libp2p/go-libp2p/p2p/security/insecure"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	tls "github.com/libp2p/go-libp2p/p2p/security/tls"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/libp2p/go-libp2p/p2p/transport/websocket"
	ma "github.com/multiformats/go-multiaddr"
)

const (
	echoID = "/echo/1.0.0"
	perfID = "/perf/1.0.0"
	chunk  = 64 * 1024
	block  = 65521
)

// pattern is one repeated block: a stream's bytes are a window into it, so that a byte out of place never goes unseen.
var pattern = func() []byte {
	made := make([]byte, 2*block)
	for at := range made {
		made[at] = byte((at%block)*167 + (at%block)>>8)
	}
	return made
}()

func expected(start, length int) []byte {
	return pattern[start%block : start%block+length]
}

type flags struct {
	tcpPort, wsPort       int
	muxer, security, seed string
	ops                   string
	bytes, up, down       int64
	count                 int
	timeout               int64
	dht                   string
	bootstrap             []string
	key, value, target    string
}

type line map[string]any

func say(what line) {
	text, err := json.Marshal(what)
	if err != nil {
		panic(err)
	}
	os.Stdout.Write(append(text, '\n'))
}

func identity(seed string) (crypto.PrivKey, error) {
	if seed == "" {
		key, _, err := crypto.GenerateEd25519Key(rand.Reader)
		return key, err
	}
	raw, err := hex.DecodeString(seed)
	if err != nil || len(raw) != ed25519.SeedSize {
		return nil, errors.New("--seed wants 64 hex digits")
	}
	return crypto.UnmarshalEd25519PrivateKey(ed25519.NewKeyFromSeed(raw))
}

func newHost(f flags, listen []string) (host.Host, error) {
	key, err := identity(f.seed)
	if err != nil {
		return nil, err
	}
	if f.muxer == "mplex" {
		return nil, errors.New("go-libp2p has no mplex any more")
	}
	// A runner dials over and over from one address, which the default limits take for an attack.
	limits, err := rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(rcmgr.InfiniteLimits))
	if err != nil {
		return nil, err
	}
	options := []libp2p.Option{
		libp2p.Identity(key),
		libp2p.ListenAddrStrings(listen...),
		libp2p.Transport(tcp.NewTCPTransport),
		libp2p.Transport(websocket.New),
		libp2p.Muxer(yamux.ID, yamux.DefaultTransport),
		libp2p.ResourceManager(limits),
		libp2p.DisableRelay(),
		libp2p.DisableMetrics(),
	}
	switch f.security {
	case "noise":
		options = append(options, libp2p.Security(noise.ID, noise.New))
	case "tls":
		options = append(options, libp2p.Security(tls.ID, tls.New))
	case "plaintext":
		plain := func(id protocol.ID, key crypto.PrivKey) (sec.SecureTransport, error) {
			self, err := peer.IDFromPrivateKey(key)
			if err != nil {
				return nil, err
			}
			return insecure.NewWithIdentity(id, self, key), nil
		}
		options = append(options, libp2p.Security(insecure.ID, plain))
	default:
		return nil, fmt.Errorf("--security %s", f.security)
	}
	return libp2p.New(options...)
}

func serveEcho(stream network.Stream) {
	if _, err := io.Copy(stream, stream); err != nil {
		stream.Reset()
		return
	}
	stream.Close()
}

func servePerf(stream network.Stream) {
	var head [8]byte
	if _, err := io.ReadFull(stream, head[:]); err != nil {
		stream.Reset()
		return
	}
	if _, err := io.Copy(io.Discard, stream); err != nil {
		stream.Reset()
		return
	}
	if err := pour(stream, int64(binary.BigEndian.Uint64(head[:]))); err != nil {
		stream.Reset()
		return
	}
	stream.Close()
}

func pour(to io.Writer, count int64) error {
	zeroes := make([]byte, chunk)
	for ; count > 0; count -= chunk {
		if _, err := to.Write(zeroes[:min(count, chunk)]); err != nil {
			return err
		}
	}
	return nil
}

func listen(f flags) error {
	var addresses []string
	if f.tcpPort >= 0 || f.wsPort < 0 {
		addresses = append(addresses, fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", max(f.tcpPort, 0)))
	}
	if f.wsPort >= 0 {
		addresses = append(addresses, fmt.Sprintf("/ip4/127.0.0.1/tcp/%d/ws", f.wsPort))
	}
	node, err := newHost(f, addresses)
	if err != nil {
		return err
	}
	defer node.Close()
	node.SetStreamHandler(echoID, serveEcho)
	node.SetStreamHandler(perfID, servePerf)
	table, err := startDHT(node, f.dht)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(f.timeout)*time.Millisecond)
	defer cancel()
	if err := join(ctx, node, table, f.bootstrap); err != nil {
		return err
	}
	full := []string{}
	for _, address := range node.Network().ListenAddresses() {
		full = append(full, fmt.Sprintf("%s/p2p/%s", address, node.ID()))
	}
	say(line{
		"event": "listening", "impl": "go", "peer": node.ID().String(), "addrs": full,
		"protocols": node.Mux().Protocols(),
	})
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// within makes a stream that is reset when the time is up, so that no read or write outlasts it.
func within(ctx context.Context, node host.Host, target peer.ID, id protocol.ID) (network.Stream, func(), error) {
	stream, err := node.NewStream(ctx, target, id)
	if err != nil {
		return nil, nil, err
	}
	stop := context.AfterFunc(ctx, func() { stream.Reset() })
	return stream, func() { stop(); stream.Close() }, nil
}

func echoOnce(ctx context.Context, node host.Host, target peer.ID, number int, count int64) error {
	stream, done, err := within(ctx, node, target, echoID)
	if err != nil {
		return err
	}
	defer done()
	wrote := make(chan error, 1)
	go func() {
		for start := int64(0); start < count; start += chunk / 2 {
			if _, err := stream.Write(expected(number+int(start), int(min(count-start, chunk/2)))); err != nil {
				wrote <- err
				return
			}
		}
		wrote <- stream.CloseWrite()
	}()
	buffer, got := make([]byte, block), int64(0)
	for {
		n, err := stream.Read(buffer)
		if !bytes.Equal(buffer[:n], expected(number+int(got), n)) {
			stream.Reset()
			return fmt.Errorf("echo differs within %d bytes after byte %d", n, got)
		}
		got += int64(n)
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	if err := <-wrote; err != nil {
		return err
	}
	if got != count {
		return fmt.Errorf("echo: %d bytes of %d came back", got, count)
	}
	return nil
}

func identifyOp(ctx context.Context, node host.Host, target peer.ID, f flags, identified event.Subscription) (line, error) {
	// go-libp2p identifies on its own; asking twice would only repeat that.
	for {
		select {
		case <-ctx.Done():
			return nil, errors.New("identify did not complete")
		case happened := <-identified.Out():
			switch found := happened.(type) {
			case event.EvtPeerIdentificationFailed:
				if found.Peer == target {
					return nil, found.Reason
				}
			case event.EvtPeerIdentificationCompleted:
				if found.Peer != target {
					continue
				}
				addresses := []string{}
				for _, address := range found.ListenAddrs {
					addresses = append(addresses, address.String())
				}
				observed := ""
				if found.ObservedAddr != nil {
					observed = found.ObservedAddr.String()
				}
				return line{
					"agent": found.AgentVersion, "version": found.ProtocolVersion, "protocols": found.Protocols,
					"addrs": addresses, "observed": observed, "signed": found.SignedPeerRecord != nil,
				}, nil
			}
		}
	}
}

func pingOp(ctx context.Context, node host.Host, target peer.ID, f flags) (line, error) {
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	times := []float64{}
	for result := range ping.Ping(inner, node, target) {
		if result.Error != nil {
			return nil, result.Error
		}
		times = append(times, float64(result.RTT.Nanoseconds())/1e6)
		if len(times) == f.count {
			break
		}
	}
	if len(times) < f.count {
		return nil, fmt.Errorf("%d pings of %d", len(times), f.count)
	}
	sort.Float64s(times)
	return line{"count": f.count, "ms": times[len(times)/2]}, nil
}

func echoOp(ctx context.Context, node host.Host, target peer.ID, f flags) (line, error) {
	ended := make(chan error, f.count)
	for number := range f.count {
		go func() { ended <- echoOnce(ctx, node, target, number, f.bytes) }()
	}
	var first error
	for range f.count {
		if err := <-ended; err != nil && first == nil {
			first = err
		}
	}
	return line{"count": f.count, "bytes": f.bytes}, first
}

func perfOp(ctx context.Context, node host.Host, target peer.ID, f flags) (line, error) {
	stream, done, err := within(ctx, node, target, perfID)
	if err != nil {
		return nil, err
	}
	defer done()
	start := time.Now()
	if err := binary.Write(stream, binary.BigEndian, uint64(f.down)); err != nil {
		return nil, err
	}
	if err := pour(stream, f.up); err != nil {
		return nil, err
	}
	if err := stream.CloseWrite(); err != nil {
		return nil, err
	}
	uploaded := time.Now()
	got, err := io.Copy(io.Discard, stream)
	if err == nil && got != f.down {
		err = fmt.Errorf("perf: %d bytes of %d came down", got, f.down)
	}
	return line{
		"up": f.up, "down": f.down, "up_ms": uploaded.Sub(start).Seconds() * 1e3,
		"down_ms": time.Since(uploaded).Seconds() * 1e3,
	}, err
}

// resetOp shows that a reset stream takes nothing with it: the next one on the same connection is well.
func resetOp(ctx context.Context, node host.Host, target peer.ID) (line, error) {
	for number := range 20 {
		stream, err := node.NewStream(ctx, target, echoID)
		if err != nil {
			return nil, err
		}
		if _, err := stream.Write(expected(number, 1000*number)); err != nil {
			return nil, err
		}
		stream.Reset()
	}
	return line{}, echoOnce(ctx, node, target, 7, 100_000)
}

func dial(f flags, address string) (bool, error) {
	var addresses []string
	if f.dht == "off" && asksDHT(f.ops) {
		f.dht = "client"
	}
	if f.dht != "off" {
		// A record that names a provider without an address is refused.
		addresses = append(addresses, "/ip4/127.0.0.1/tcp/0")
	}
	node, err := newHost(f, addresses)
	if err != nil {
		return false, err
	}
	defer node.Close()
	table, err := startDHT(node, f.dht)
	if err != nil {
		return false, err
	}
	parsed, err := ma.NewMultiaddr(address)
	if err != nil {
		return false, err
	}
	target, err := peer.AddrInfoFromP2pAddr(parsed)
	if err != nil {
		return false, err
	}
	if f.target == "" {
		f.target = target.ID.String()
	}
	identified, err := node.EventBus().Subscribe([]any{
		new(event.EvtPeerIdentificationCompleted), new(event.EvtPeerIdentificationFailed),
	})
	if err != nil {
		return false, err
	}
	defer identified.Close()
	limit := time.Duration(f.timeout) * time.Millisecond
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if err := join(ctx, node, table, f.bootstrap); err != nil {
		return false, err
	}
	// The network's own dial returns when the upgraded connection is ready; the host's would wait for identify too.
	node.Peerstore().AddAddrs(target.ID, target.Addrs, peerstore.PermanentAddrTTL)
	start := time.Now()
	connection, err := node.Network().DialPeer(ctx, target.ID)
	if err != nil {
		say(line{"event": "failed", "error": err.Error()})
		return false, nil
	}
	say(line{
		"event": "connected", "impl": "go", "peer": target.ID.String(), "addr": address,
		"encryption": connection.ConnState().Security, "muxer": connection.ConnState().StreamMultiplexer,
		"early": connection.ConnState().UsedEarlyMuxerNegotiation, "ms": time.Since(start).Seconds() * 1e3,
	})
	ok := true
	for _, op := range strings.Split(f.ops, ",") {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		var about line
		var err error
		switch op {
		case "":
			cancel()
			continue
		case "identify":
			about, err = identifyOp(ctx, node, target.ID, f, identified)
		case "ping":
			about, err = pingOp(ctx, node, target.ID, f)
		case "echo":
			about, err = echoOp(ctx, node, target.ID, f)
		case "perf":
			about, err = perfOp(ctx, node, target.ID, f)
		case "half-close":
			// Half-close before a byte is sent: the answer to nothing is an end.
			about, err = line{}, echoOnce(ctx, node, target.ID, 0, 0)
		case "reset":
			about, err = resetOp(ctx, node, target.ID)
		default:
			kadOp, known := kadOps[op]
			if !known {
				err = errors.New("no such operation")
			} else if err = inTable(ctx, table, target.ID); err == nil {
				about, err = kadOp(ctx, table, f)
			}
		}
		cancel()
		if about == nil || err != nil {
			about = line{}
		}
		about["event"], about["op"], about["ok"] = "result", op, err == nil
		if err != nil {
			ok = false
			about["error"] = err.Error()
		}
		say(about)
	}
	return ok, nil
}

func main() {
	var f flags
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "listen or dial?")
		os.Exit(2)
	}
	mode, rest, address := os.Args[1], os.Args[2:], ""
	if mode == "dial" && len(rest) > 0 {
		address, rest = rest[0], rest[1:]
	}
	set := flag.NewFlagSet(mode, flag.ExitOnError)
	set.IntVar(&f.tcpPort, "tcp-port", -1, "")
	set.IntVar(&f.wsPort, "ws-port", -1, "")
	set.StringVar(&f.muxer, "muxer", "yamux", "")
	set.StringVar(&f.security, "security", "noise", "")
	set.StringVar(&f.seed, "seed", "", "")
	set.StringVar(&f.ops, "ops", "identify,ping,echo,perf", "")
	set.Int64Var(&f.bytes, "bytes", 1024, "")
	set.Int64Var(&f.up, "up", 1<<20, "")
	set.Int64Var(&f.down, "down", 1<<20, "")
	set.IntVar(&f.count, "count", 1, "")
	set.Int64Var(&f.timeout, "timeout", 30_000, "")
	set.StringVar(&f.dht, "dht", "off", "")
	set.StringVar(&f.key, "key", "", "")
	set.StringVar(&f.value, "value", "", "")
	set.StringVar(&f.target, "target", "", "")
	set.Func("bootstrap", "", func(address string) error {
		f.bootstrap = append(f.bootstrap, address)
		return nil
	})
	set.Parse(rest)

	var err error
	ok := true
	switch mode {
	case "listen":
		err = listen(f)
	case "dial":
		ok, err = dial(f, address)
	default:
		err = fmt.Errorf("%s: listen or dial?", mode)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if !ok {
		os.Exit(1)
	}
}
