// Command castellan is a private Azure Machine Learning. So far it has the
// kernel only; docs/limitations.md lists what is not there yet.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"castellan/internal/audit"
)

const usage = `castellan: a private Azure Machine Learning (in the making)

  castellan audit verify FILE   verify an exported audit log, one JSON entry a line ("-" for standard input)

What is not there yet stands in docs/limitations.md.
`

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "castellan:", err)
		os.Exit(1)
	}
}

func run(args []string, in io.Reader, out io.Writer) error {
	if len(args) == 0 || args[0] == "help" || args[0] == "-h" || args[0] == "--help" {
		_, err := io.WriteString(out, usage)
		return err
	}
	if len(args) != 3 || args[0] != "audit" || args[1] != "verify" {
		return fmt.Errorf("unknown command %q; see castellan help", args)
	}
	if args[2] != "-" {
		f, err := os.Open(args[2])
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	}
	return verify(in, out)
}

func verify(in io.Reader, out io.Writer) error {
	var chain audit.Chain
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e audit.Entry
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return fmt.Errorf("line %d is not an audit entry: %w", chain.Seq+1, err)
		}
		if err := chain.Next(e); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "%d entries, unbroken; the last hash is %s\n", chain.Seq, chain.Hash)
	return err
}
