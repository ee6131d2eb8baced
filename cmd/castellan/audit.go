package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"castellan/internal/audit"

	"github.com/spf13/cobra"
)

// auditCommand is castellan audit: what one does with the log offline.
func auditCommand() *cobra.Command {
	c := &cobra.Command{Use: "audit", Short: "Verify an exported audit log"}
	c.AddCommand(&cobra.Command{
		Use:   "verify FILE",
		Short: `Verify an exported audit log, one JSON entry a line ("-" for standard input)`,
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			in := c.InOrStdin()
			if args[0] != "-" {
				f, err := os.Open(args[0])
				if err != nil {
					return err
				}
				defer f.Close()
				in = f
			}
			return verify(in, c.OutOrStdout())
		},
	})
	return c
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
