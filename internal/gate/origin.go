package gate

import (
	"context"
	"net"
	"net/netip"
)

// The origin of a request is the sandbox whose own listener its connection came
// by. It is a fact of the connection, which only whoever accepted that can know
// and no header can claim; so it rides in the context of the connection
// (http.Server's BaseContext), and is the one thing that does.

type originKey struct{}

// From is ctx for the connections of a listener that lies inside the sandbox of
// this name. Only the edge inside sandboxes calls it.
func From(ctx context.Context, sandbox string) context.Context {
	return context.WithValue(ctx, originKey{}, sandbox)
}

// Origin is the sandbox that a request came out of, "" for one that came by the
// platform's own listeners.
func Origin(ctx context.Context) string {
	name, _ := ctx.Value(originKey{}).(string)
	return name
}

type peerKey struct{}

// FromPeer is ctx for a connection whose other end is at addr. Only the edge calls
// it (http.Server's ConnContext).
func FromPeer(ctx context.Context, addr net.Addr) context.Context {
	a, err := netip.ParseAddrPort(addr.String())
	if err != nil {
		return ctx // a pipe has no address
	}
	return context.WithValue(ctx, peerKey{}, a.Addr().Unmap().String())
}

// Peer is the IP address that a request came from, for the record; "" for what came
// out of a sandbox, which has none, and for what the platform does by itself.
func Peer(ctx context.Context) string {
	if Origin(ctx) != "" {
		return ""
	}
	a, _ := ctx.Value(peerKey{}).(string)
	return a
}
