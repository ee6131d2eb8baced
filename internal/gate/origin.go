package gate

import "context"

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
