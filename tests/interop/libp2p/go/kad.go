// The Kademlia operations.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ipfs/go-cid"
	dht "github.com/libp2p/go-libp2p-kad-dht"
	pb "github.com/libp2p/go-libp2p-kad-dht/pb"
	record "github.com/libp2p/go-libp2p-record"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/routing"
	ma "github.com/multiformats/go-multiaddr"
	mh "github.com/multiformats/go-multihash"
)

const (
	kadID     = "/ipfs/kad/1.0.0"
	tableWait = 10 * time.Second
)

var kadOps = map[string]func(context.Context, *dht.IpfsDHT, flags) (line, error){
	"kad-put":        kadPut,
	"kad-get":        kadGet,
	"provide":        provide,
	"find-providers": findProviders,
	"find-peer":      findPeer,
}

func asksDHT(ops string) bool {
	return slices.ContainsFunc(strings.Split(ops, ","), func(op string) bool { return kadOps[op] != nil })
}

// greatest takes any value and prefers the one with the greatest bytes, so that every implementation selects the same.
type greatest struct{}

func (greatest) Validate(string, []byte) error { return nil }

func (greatest) Select(_ string, values [][]byte) (int, error) {
	best := 0
	for at := range values {
		if bytes.Compare(values[at], values[best]) > 0 {
			best = at
		}
	}
	return best, nil
}

// startDHT has to come before the first connection: it learns its peers from what identify finds. It is nil when off.
func startDHT(node host.Host, mode string) (*dht.IpfsDHT, error) {
	modes := map[string]dht.ModeOpt{"server": dht.ModeServer, "client": dht.ModeClient}
	wanted, known := modes[mode]
	if !known {
		if mode == "off" {
			return nil, nil
		}
		return nil, fmt.Errorf("--dht %s", mode)
	}
	return dht.New(node,
		dht.Mode(wanted),
		// With the prefix /ipfs the library refuses every namespace but its own two; with another it needs to be told the id.
		dht.ProtocolPrefix("/air"),
		dht.V1ProtocolOverride(kadID),
		dht.NamespacedValidator("air", greatest{}),
		dht.DisableAutoRefresh(),
	)
}

// inTable waits: a peer gets into the table when identify names the protocol and one FIND_NODE is answered.
func inTable(ctx context.Context, table *dht.IpfsDHT, id peer.ID) error {
	ctx, cancel := context.WithTimeout(ctx, tableWait)
	defer cancel()
	for table.RoutingTable().Find(id) == "" {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s does not get into the routing table", id)
		case <-time.After(10 * time.Millisecond):
		}
	}
	return nil
}

func join(ctx context.Context, node host.Host, table *dht.IpfsDHT, bootstrap []string) error {
	for _, address := range bootstrap {
		info, err := peer.AddrInfoFromString(address)
		if err != nil {
			return err
		}
		if err := node.Connect(ctx, *info); err != nil {
			return err
		}
		if table == nil {
			continue
		}
		if err := inTable(ctx, table, info.ID); err != nil {
			return err
		}
	}
	return nil
}

func multihash(key string) (mh.Multihash, error) {
	return mh.Sum([]byte(key), mh.SHA2_256, -1)
}

// toClosest does what the library's PutValue and Provide do, which are content even if nobody takes what they send.
func toClosest(
	ctx context.Context, table *dht.IpfsDHT, key string, send func(*pb.ProtocolMessenger, peer.ID) error,
) error {
	messenger, err := pb.NewProtocolMessenger(table.MessageSender())
	if err != nil {
		return err
	}
	closest, err := table.GetClosestPeers(ctx, key)
	if err != nil {
		return err
	}
	taken, failed := 0, []error{errors.New("nobody took it")}
	for _, id := range closest {
		if err := send(messenger, id); err != nil {
			failed = append(failed, err)
		} else {
			taken++
		}
	}
	if taken == 0 {
		return errors.Join(failed...)
	}
	return nil
}

func kadPut(ctx context.Context, table *dht.IpfsDHT, f flags) (line, error) {
	what := record.MakePutRecord(f.key, []byte(f.value))
	what.TimeReceived = time.Now().UTC().Format(time.RFC3339Nano)
	return line{}, toClosest(ctx, table, f.key, func(messenger *pb.ProtocolMessenger, to peer.ID) error {
		return messenger.PutValue(ctx, to, what)
	})
}

func kadGet(ctx context.Context, table *dht.IpfsDHT, f flags) (line, error) {
	value, err := table.GetValue(ctx, f.key)
	return line{"value": string(value)}, err
}

func provide(ctx context.Context, table *dht.IpfsDHT, f flags) (line, error) {
	hash, err := multihash(f.key)
	if err != nil {
		return nil, err
	}
	self := peer.AddrInfo{ID: table.PeerID(), Addrs: table.FilteredAddrs()}
	return line{}, toClosest(ctx, table, string(hash), func(messenger *pb.ProtocolMessenger, to peer.ID) error {
		if err := messenger.PutProviderAddrs(ctx, to, hash, self); err != nil {
			return err
		}
		// It is never answered. The answer to a request behind it on the same stream shows that it has been read.
		_, err := messenger.GetClosestPeers(ctx, to, to)
		return err
	})
}

func findProviders(ctx context.Context, table *dht.IpfsDHT, f flags) (line, error) {
	hash, err := multihash(f.key)
	if err != nil {
		return nil, err
	}
	found, err := table.FindProviders(ctx, cid.NewCidV1(cid.Raw, hash))
	if err == nil && len(found) == 0 {
		err = errors.New("nobody provides it")
	}
	ids := []string{}
	for _, info := range found {
		ids = append(ids, info.ID.String())
	}
	return line{"providers": ids}, err
}

// findPeer reports what other peers tell. The library's FindPeer asks nobody about a peer that it is connected to.
func findPeer(ctx context.Context, table *dht.IpfsDHT, f flags) (line, error) {
	id, err := peer.Decode(f.target)
	if err != nil {
		return nil, err
	}
	asking, cancel := context.WithCancel(ctx)
	defer cancel()
	asking, told := routing.RegisterForQueryEvents(asking)
	ended := make(chan error, 1)
	go func() {
		_, err := table.GetClosestPeers(asking, string(id))
		ended <- err
		cancel()
	}()
	var addresses []ma.Multiaddr
	for happened := range told {
		for _, info := range happened.Responses {
			if info.ID == id {
				addresses = append(addresses, info.Addrs...)
			}
		}
	}
	if err = <-ended; err == nil && len(addresses) == 0 {
		err = errors.New("nobody knows its addresses")
	}
	full := []string{}
	for _, address := range addresses {
		// Some tell them with the peer's id at the end, some without.
		bare, _ := peer.SplitAddr(address)
		full = append(full, fmt.Sprintf("%s/p2p/%s", bare, id))
	}
	slices.Sort(full)
	return line{"peer": id.String(), "addrs": slices.Compact(full)}, err
}
