package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"castellan/internal/app"
	"castellan/internal/audit"

	"github.com/spf13/cobra"
)

// keysCommand is castellan keys: which key protects what, and keys that sign tokens.
func keysCommand() *cobra.Command {
	c := noun("keys", "Show which key protects what; keys that sign tokens",
		verb{use: "list", short: "List the keys that sign tokens", example: "keys list", columns: []string{"class", "state", "createdDateTime", "endDateTime", "id"}, run: listOf("signingKeys")},
		verb{use: "rotate CLASS", short: "Let the next key sign (CLASS is access or id)", example: "keys rotate access --retain", columns: []string{"class", "state", "id"},
			bools: []string{"retain=tokens of the key before stay good until they end"},
			run: func(a *admin, args []string) (any, error) {
				return a.graph("POST", "signingKeys/rotate", row{"class": args[0], "retain": a.is("retain")})
			}},
		verb{use: "retire CLASS KEY", short: "End a key, and all tokens that it signed", example: "keys retire access KEY",
			run: func(a *admin, args []string) (any, error) {
				return a.graph("DELETE", "signingKeys/"+seg(args[0])+"/"+seg(args[1]), nil)
			}},
		verb{use: "destroyed", short: "List the data keys that were destroyed", example: "keys destroyed", columns: []string{"properties.scope", "properties.destroyed", "name"},
			run: func(a *admin, _ []string) (any, error) { return a.inSubscriptions("destructions") }},
		verb{use: "statement KEY", short: "Print the signed statement that a data key was destroyed", example: "keys statement 3f0c9a1e5d7b > statement",
			run: func(a *admin, args []string) (any, error) {
				rows, err := a.inSubscriptions("destructions")
				for _, x := range rows {
					if cell(x, "name") == args[0] {
						props, _ := x.(map[string]any)["properties"].(map[string]any)
						return props["statement"], nil
					}
				}
				return nil, errors.Join(err, fmt.Errorf("there is no statement about a key %q that you may read", args[0]))
			}},
	)
	show := verb{use: "keys", example: "keys", columns: []string{"properties.protects", "properties.scope", "properties.wrappedBy", "properties.state", "properties.lastRotated"},
		run: func(a *admin, _ []string) (any, error) { return a.inSubscriptions("dataKeys") }}
	var cfg app.Config
	shown := show.command()
	c.Long = `Show which key protects what, from the installation's root key down to the key of each
storage account, vault and workspace, with the customer's key around it, whether that may be used now, and when
it was last wrapped. Of a running server one sees what one may read; of a stopped
one's data folder, with its root key, everything.

  castellan keys
  castellan keys --output json
  castellan keys --data FOLDER`
	c.AddCommand(verifyStatement(), moveRootKey())
	c.Flags().AddFlagSet(shown.Flags())
	rootFlags(c, &cfg)
	c.RunE = func(c *cobra.Command, args []string) error {
		if cfg.Data == "" {
			return shown.RunE(c, args)
		}
		if err := checkOutput(c.Flag("output").Value.String()); err != nil {
			return err
		}
		list, err := app.Keys(c.Context(), cfg)
		if err != nil {
			return err
		}
		text, err := json.Marshal(list)
		if err != nil {
			return err
		}
		var rows []any
		if err := json.Unmarshal(text, &rows); err != nil {
			return err
		}
		return show.print(c, rows)
	}
	return c
}

// moveRootKey is castellan keys move, which asks no server.
func moveRootKey() *cobra.Command {
	var cfg app.Config
	var to string
	c := &cobra.Command{
		Use: "move", Short: "Keep the root key elsewhere: under a token's key, under another, or in a file", Args: cobra.NoArgs,
		Long: `Keep the root key elsewhere. It stays the same, so a server may run meanwhile, backups
open as before, and no data is written anew. Give the next castellan up the new place.

  castellan keys move --data DIR --to 'pkcs11:token=T;object=KEY?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/PIN'
  castellan keys move --data DIR --root-key 'pkcs11:...' --to 'pkcs11:...'
  castellan keys move --data DIR --root-key 'pkcs11:...' --to FILE`,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := app.MoveRootKey(c.Context(), cfg, to); err != nil {
				return err
			}
			_, err := fmt.Fprintln(c.OutOrStdout(), "The root key is there. Where it was in a file before, remove that file and its copies; make a backup, so that it can be restored from the new place.")
			return err
		},
	}
	rootFlags(c, &cfg)
	c.Flags().StringVar(&to, "to", "", "a new file, or the URI of a token's key")
	_ = c.MarkFlagRequired("to") // it was just made
	return c
}

// inSubscriptions lists what the caller may see of keys in all subscriptions.
func (a *admin) inSubscriptions(typ string) ([]any, error) {
	subs, err := a.s.list(a.ctx, a.h, a.s.ARM, versioned("/subscriptions", "2022-12-01"))
	all := []any{}
	for _, sub := range subs {
		rows, err := a.s.list(a.ctx, a.h, a.s.ARM, versioned(cell(sub, "id")+"/providers/Castellan.Keys/"+typ, ownVersion))
		if err != nil {
			return nil, err
		}
		all = append(all, rows...)
	}
	return all, err
}

// verifyStatement is castellan keys verify, which needs no server.
func verifyStatement() *cobra.Command {
	var key string
	c := &cobra.Command{
		Use: "verify FILE", Short: `Verify a statement of destruction offline ("-" for standard input)`, Args: cobra.ExactArgs(1),
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
			text, err := io.ReadAll(io.LimitReader(in, mostAnswer))
			if err != nil {
				return err
			}
			lines, err := audit.ParseStatement(text, key)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "signed by %s\n%s", key, lines)
			return err
		},
	}
	c.Flags().StringVar(&key, "key", "", "the audit log's public key, as castellan audit checkpoint told it")
	_ = c.MarkFlagRequired("key") // it was just made
	return c
}
