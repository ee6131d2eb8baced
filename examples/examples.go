// Package examples carries the sources of the example jobs, so that the demo
// has them wherever the binary is.
package examples

import "embed"

// Iris is the training job of the demo: its program and its data.
//
//go:embed iris/main.go iris/tracker.go iris/iris.csv
var Iris embed.FS
